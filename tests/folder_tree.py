"""A guest's tree (``imgtool.guests.tree.Tree``) over a folder of this host, for tests without an appliance.

Links are followed inside the folder only: an absolute one begins at the folder, and ``..`` stops there.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from imgtool.errors import DamagedError
from imgtool.guests.tree import NEW_FILE, READ_LIMIT, Stat

MAX_LINKS = 40


@dataclass
class FolderTree:
    root: Path
    room: int | None = None
    """What ``free`` says; None: the truth."""

    def real(self, path: str, *, last: bool = True) -> Path:
        """Where a path of the guest is on this host; ``last``: a link at its end is followed too."""
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        found: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                found = found[:-1]
                continue
            here = self.root.joinpath(*found, part)
            if here.is_symlink() and (waiting or last):
                if (links := links + 1) > MAX_LINKS:
                    raise OSError(40, "too many links", path)
                target = os.readlink(here)
                found = [] if target.startswith("/") else found
                waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            else:
                found.append(part)
        return self.root.joinpath(*found)

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes:
        real = self.real(path)
        if not stat.S_ISREG(real.stat().st_mode):
            raise DamagedError(f"{path} in the guest is no regular file")
        if real.stat().st_size > limit:
            raise DamagedError(f"{path} in the guest is too large")
        return real.read_bytes()

    def exists(self, path: str) -> bool:
        try:
            return self.real(path).exists()
        except OSError:
            return False

    def is_dir(self, path: str) -> bool:
        return self.exists(path) and self.real(path).is_dir()

    def is_file(self, path: str) -> bool:
        return self.exists(path) and self.real(path).is_file()

    def glob(self, pattern: str) -> list[str]:
        found = [""]
        for part in [part for part in pattern.split("/") if part]:
            if any(sign in part for sign in "*?["):
                found = [f"{folder}/{name}" for folder in found for name in self.ls(folder or "/")
                         if fnmatch.fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))]
            else:
                found = [f"{folder}/{part}" for folder in found]
        return sorted(path for path in found if self.exists(path) or self.readlink(path) is not None)

    def ls(self, path: str) -> list[str]:
        return sorted(os.listdir(self.real(path))) if self.is_dir(path) else []

    def readlink(self, path: str) -> str | None:
        try:
            real = self.real(path, last=False)
        except OSError:
            return None
        return os.readlink(real) if real.is_symlink() else None

    def realpath(self, path: str) -> str:
        try:
            return "/" + str(self.real(path).relative_to(self.root)).removeprefix(".")
        except OSError:
            return path

    def stat(self, path: str) -> Stat:
        found = self.real(path).stat()
        return Stat(mode=found.st_mode, uid=found.st_uid, gid=found.st_gid, mtime=int(found.st_mtime), size=found.st_size)

    def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        real = self.real(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        beside = real.with_name(f".{real.name}.new")
        beside.write_bytes(data)
        self._place(beside, real, mode)

    def _place(self, beside: Path, real: Path, mode: int | None) -> None:
        if real.exists():
            old = real.stat()
            os.chown(beside, old.st_uid, old.st_gid)
            beside.chmod(stat.S_IMODE(old.st_mode))
        else:
            beside.chmod(NEW_FILE if mode is None else mode)
        beside.replace(real)

    def symlink(self, target: str, path: str) -> None:
        real = self.real(path, last=False)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.unlink(missing_ok=True)
        real.symlink_to(target)

    def remove(self, path: str) -> None:
        self.real(path, last=False).unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        self.real(old, last=False).replace(self.real(new, last=False))

    def mkdir(self, path: str) -> None:
        self.real(path).mkdir(parents=True, exist_ok=True)

    def free(self, path: str) -> int:
        return self.room if self.room is not None else shutil.disk_usage(self.real(path)).free

    def download(self, path: str, local: str) -> None:
        shutil.copyfile(self.real(path), local)

    def upload(self, local: str, path: str, *, mode: int | None = None) -> None:
        real = self.real(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=real.parent, prefix=".new-", delete=False) as file, open(local, "rb") as source:
            shutil.copyfileobj(source, file)
        self._place(Path(file.name), real, mode)
