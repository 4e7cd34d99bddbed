"""What a migration leaves on this host while it is under way: a folder of its own, held by one process at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imgtool import files
from imgtool.endpoints.uri import shown
from imgtool.frozen import frozen, thawed
from imgtool.journal import hold, state_folder
from imgtool.model.guest import AdaptResult
from imgtool.model.machine import Machine
from imgtool.model.migration import Migrated, MigrateRequest
from imgtool.steps.migrate.describe import Identity

JOB = "migrate-"
ADAPTED, IDENTITY, FINISHED, LOCK = "adapted.json", "identity.json", "finished.json", "lock"


def job_of(request: MigrateRequest) -> str:
    """An id: the same for the same machine from and to the same places."""
    what = [shown(request.source), request.name, shown(request.target), request.new_name, request.placing.storage]
    said = hashlib.blake2b(json.dumps(what).encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{JOB}{said}"


def _path(request: MigrateRequest, job: str) -> Path:
    return Path(request.staging, files.GOES_ON + job.removeprefix(JOB)) if request.staging else state_folder() / "work" / job


class Work:
    """The folder of one migration."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> str:
        return str(self.path / name)

    def identity(self, machine: Machine, of: object) -> Identity:
        """Of the machine at the target: drawn the first time, and then the same. ``of``: what it is made from."""
        found = self._read(IDENTITY)
        if found and found.get("of") == json.loads(json.dumps(of)):
            return thawed(Identity, found["identity"])
        drawn = Identity(uuid=machine.uuid or str(uuid.uuid4()), genid=machine.genid, macs=tuple(nic.mac for nic in machine.nics))
        self._write(IDENTITY, {"of": of, "identity": frozen(drawn)})
        return drawn

    def adapted(self, of: object) -> AdaptResult | None:
        """What a run before has changed in the guest; None: nothing yet. ``of``: tells the disks from any others."""
        found = self._read(ADAPTED)
        if not found or found["of"] != json.loads(json.dumps(of)):
            return None
        return thawed(AdaptResult, found["result"])

    def set_adapted(self, of: object, result: AdaptResult) -> None:
        self._write(ADAPTED, {"of": of, "result": frozen(result)})

    def finished(self) -> Migrated | None:
        """What a run before has done, that was stopped when it cleared up."""
        found = self._read(FINISHED)
        return thawed(Migrated, found) if found else None

    def set_finished(self, done: Migrated) -> None:
        self._write(FINISHED, frozen(done))

    def _read(self, name: str) -> dict[str, Any] | None:
        with suppress(FileNotFoundError, ValueError):
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else None
        return None

    def _write(self, name: str, said: object) -> None:
        files.put(self.file(name), json.dumps(said).encode("utf-8", "surrogateescape"), replace=True)

    def tidy(self) -> None:
        """The machine is there. What says so stays: a run that is killed now, or that cannot start it, goes on with this."""
        for name in os.listdir(self.path):
            if name not in (LOCK, FINISHED):
                _remove(self.path / name)

    def clear(self) -> None:
        """All is done."""
        self.tidy()
        _remove(self.path / FINISHED)

    @property
    def empty(self) -> bool:
        return os.listdir(self.path) in ([], [LOCK])


@contextmanager
def held(request: MigrateRequest, job: str) -> Iterator[Work]:
    """Raises RefusedError where another process does the same migration."""
    path = _path(request, job)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = Work(path)
    with open(work.file(LOCK), "ab") as lock:
        hold(lock, str(path))
        try:
            yield work
        finally:
            if work.empty:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
