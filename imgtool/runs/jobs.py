"""What single commands did and do, from their journals. It reads, and starts nothing."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtool.errors import UsageError
from imgtool.journal import events, state_folder

Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job, as its journal has it since it last began."""

    id: str
    verb: str
    state: str
    """running, done, failed, or stopped: killed, and gone on with by the same command."""
    machine: str | None
    source: str | None
    target: str | None
    started: str
    """RFC 3339, UTC."""
    ended: str | None
    error: str | None = None
    hint: str | None = None
    steps: tuple[Event, ...] = ()
    """{verb, of, state, seconds, bytes_read}, in their order."""
    result: Event | None = None
    runs: int = 1
    """How often it was begun."""


def jobs() -> list[Job]:
    """All, the latest last."""
    folder = state_folder() / "jobs"
    found = [_job(path) for path in folder.glob("*.jsonl")] if folder.is_dir() else []
    return sorted((job for job in found if job), key=lambda job: job.started)


def find(name: str) -> Job:
    """By its id, or the beginning of it. Raises UsageError."""
    fitting = [job for job in jobs() if job.id.startswith(name)]
    if len(fitting) != 1:
        raise UsageError(f"{len(fitting) or 'no'} jobs begin with {name!r}", "imgtool jobs lists them")
    return fitting[0]


def told(job: Job) -> list[Event]:
    """All its events."""
    return list(events(state_folder() / "jobs" / f"{job.id}.jsonl"))


def _job(path: Path) -> Job | None:
    every: list[Event] = list(events(path))
    begins = [number for number, one in enumerate(every) if one["event"] == "start"]
    if not begins:
        return None
    start, said = every[begins[-1]], every[begins[-1]:]
    last = said[-1]
    ended = last["event"] in ("done", "failed")
    result = next((one["result"] for one in reversed(said) if one["event"] == "result"), None)
    looked: Event = next((one for one in said if one["event"] == "looked"), {})
    state = str(last["event"]) if ended else "running" if _held(path) else "stopped"
    return Job(
        id=path.stem, verb=str(start.get("verb", "")), state=state, started=str(start["time"]), runs=len(begins), result=result,
        machine=looked.get("machine") or start.get("machine"), source=start.get("source"), target=start.get("target"),
        ended=str(last["time"]) if ended else None, error=last.get("error"), hint=last.get("hint"),
        steps=tuple(_steps(said, state)))


def _held(path: Path) -> bool:
    """Whether a process has the journal open for its own."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _steps(said: list[Event], state: str) -> Iterator[Event]:
    ends = {(one["verb"], str(one.get("disk"))): one for one in said if one["event"] == "end"}
    for one in said:
        if one["event"] == "begin":
            end = ends.get((one["verb"], str(one.get("disk"))))
            moved = (end or {}).get("result") or {}
            yield {"verb": one["verb"], "of": one.get("disk") or one.get("machine"), "seconds": (end or {}).get("seconds"),
                   "state": "done" if end else "running" if state == "running" else "stopped",
                   "bytes_read": moved.get("bytes_read")}
