"""Single commands, from their journals."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgtool.errors import RefusedError, UsageError
from imgtool.journal import events, held, jobs_folder
from imgtool.model.job import Job
from imgtool.runs.jobs.going import Moving, moving
from imgtool.runs.jobs.steps import measured, steps

Event = dict[str, Any]
INTERRUPTED = (130, 143)
"""Exit codes of those who were asked to stop."""


class Journals:
    """A store of jobs."""

    paused = False

    def jobs(self) -> list[Job]:
        found = [_job(path) for path in paths()]
        return sorted((job for job in found if job), key=lambda job: str(job.started))

    def whole(self, job: Job) -> Job:
        return job

    def events(self, job: Job) -> list[Event]:
        return list(events(_path(job)))

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            _end(job)

    def resume(self, jobs: Sequence[Job]) -> None:
        raise _by_hand(jobs[0])

    retry = resume

    def close(self) -> None:
        """Nothing is open."""


def paths() -> list[Path]:
    """Of all journals."""
    folder = jobs_folder()
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def of_machine(machine: str) -> Iterator[tuple[Path, list[Event]]]:
    """Journals of what was done for a machine of a batch (``BATCH/NAME``)."""
    for path in paths():
        said = list(events(path))
        if any(one.get("of") == machine for one in said if one["event"] == "start"):
            yield path, said


def last_run(said: Sequence[Event]) -> list[Event]:
    """From its last beginning on; nothing where it never began."""
    begins = [number for number, one in enumerate(said) if one["event"] == "start"]
    return list(said[begins[-1]:]) if begins else []


def _path(job: Job) -> Path:
    return jobs_folder() / f"{job.id}.jsonl"


def _job(path: Path) -> Job | None:
    """None: it never began, or it belongs to a batch."""
    every = list(events(path))
    said = last_run(every)
    if not said or said[0].get("of"):
        return None
    start, last = said[0], said[-1]
    runs = last["event"] not in ("done", "failed") and held(path)
    looked: Event = next((one for one in said if one["event"] == "looked"), {})
    state = _state(last, runs=runs)
    ended = str(last["time"]) if last["event"] in ("done", "failed") else None
    return measured(Job(
        id=path.stem, verb=str(start.get("verb", "")), state=state, started=str(start["time"]), ended=ended,
        runs=sum(one["event"] == "start" for one in every), worker=f"pid {start.get('pid')}" if runs else None,
        result=next((one["result"] for one in reversed(said) if one["event"] == "result"), None),
        machine=looked.get("machine") or start.get("machine"), source=start.get("source"), target=start.get("target"),
        error=last.get("error"), hint=last.get("hint"), exit_code=last.get("exit_code"),
        steps=tuple(steps(said, runs=runs))), moving(path.stem) if runs else Moving())


def _state(last: Event, *, runs: bool) -> str:
    if last["event"] == "failed":
        return "stopped" if last.get("exit_code") in INTERRUPTED else "failed"
    return "done" if last["event"] == "done" else "running" if runs else "stopped"


def _end(job: Job) -> None:
    """SIGTERM to the process that holds the journal: to no other, whatever has its number by now. Raises RefusedError."""
    if job.state != "running":
        raise RefusedError(f"{job.id} does not run: it is {job.state}", f"imgtool jobs show {job.id}")
    pid = int(last_run(list(events(_path(job))))[0]["pid"])
    try:
        process = os.pidfd_open(pid)
    except OSError:
        raise RefusedError(f"{job.id}: its process {pid} is gone", f"imgtool jobs show {job.id}") from None
    try:
        if not _has_open(pid, _path(job)):
            raise RefusedError(f"{job.id}: process {pid} is another program",
                               "was it started on another host that shares this state folder?")
        signal.pidfd_send_signal(process, signal.SIGTERM)
    finally:
        os.close(process)


def _has_open(pid: int, path: Path) -> bool:
    with suppress(OSError):
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(fd.path), path.stat()):
                    return True
    return False


def _by_hand(job: Job) -> UsageError:
    """imgtool keeps neither passwords nor options: it cannot run the command itself."""
    words = ["imgtool", job.verb, *([job.machine] if job.machine else [])]
    for option, place in (("--from", job.source), ("--to", job.target)):
        words += [option, place] if place else []
    return UsageError(f"{job.id} was a single command: it goes on when that is run again, with its options and passwords",
                      f"run it again: {shlex.join(words)} …")
