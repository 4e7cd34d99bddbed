"""Events of a journal, or of the audit → steps; and what they make of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from imgtool.model.job import Job, JobStep
from imgtool.runs.jobs.going import Moving

Event = Mapping[str, Any]
ENDS = {"end": "done", "failed": "failed", "stopped": "stopped"}
"""Event → the state of the step that it ends."""


def steps(said: Iterable[Event], *, runs: bool) -> list[JobStep]:
    """In the order of their first beginning. ``runs``: whether the process that did them is there."""
    found: dict[tuple[str, str], JobStep] = {}
    for one in said:
        verb = one.get("part") or one.get("verb")
        key = (str(verb), str(one.get("disk")))
        if one["event"] == "begin" and verb:
            old = found.get(key)
            found[key] = JobStep(
                verb=str(verb), of=one.get("disk") or one.get("machine"), state="running" if runs else "stopped", seconds=None,
                bytes_read=None, started=one["time"], attempts=old.attempts + 1 if old else 1, worker=one.get("worker"),
                work=one.get("work"))
        elif one["event"] in ENDS and key in found:
            begun = found[key]
            passed = seconds_between(begun.started, one["time"])
            found[key] = replace(begun, state=ENDS[one["event"]], ended=one["time"], bytes_read=read_by(one.get("result")),
                                 seconds=one.get("seconds", round(passed, 3)))
    return list(found.values())


def read_by(result: Any) -> int | None:
    """Bytes that a step has read, where its result says so."""
    if not isinstance(result, dict):
        return None
    if "bytes_read" in result:
        return int(result["bytes_read"])
    disks = [one.get("bytes_read") for one in result.get("disks", ()) if isinstance(one, dict)]
    return sum(disk for disk in disks if disk) if disks else None


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def measured(job: Job, now: Moving) -> Job:
    """With what moves, and the sums."""
    read = sum(step.bytes_read or 0 for step in job.steps) + now.read
    if not now.bars:
        return replace(job, bytes_read=read)
    left = [one.remaining for one in now.bars if one.total]
    return replace(job, bytes_read=read, going=now.bars, rate=sum(one.rate for one in now.bars),
                   remaining=None if not left or None in left else max(one for one in left if one is not None))
