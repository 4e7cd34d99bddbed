"""Jobs → waves, causes of failures, throughput. Pure but for ``overview``, which asks the stores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from imgtool.journal import now
from imgtool.model.job import STATES, Cause, Flow, Job, Overview, Wave
from imgtool.runs.jobs import JobStore

PARTS = 60
"""Of the time that ``flow`` looks at."""
LONGEST = timedelta(days=1)


def overview(known: Sequence[JobStore], wanted: Callable[[Job], bool] = lambda job: True) -> Overview:
    """Of those jobs that are wanted. Raises UnreachableError."""
    jobs = tuple(job for store in known for job in store.jobs() if wanted(job))
    return seen(jobs, now(), paused=any(store.paused for store in known))


def seen(jobs: Sequence[Job], time: str, *, paused: bool = False) -> Overview:
    return Overview(time=time, paused=paused, jobs=tuple(jobs), waves=tuple(waves(jobs)), causes=tuple(causes(jobs)),
                    flow=tuple(flow(jobs, datetime.fromisoformat(time))))


def waves(jobs: Sequence[Job]) -> Iterator[Wave]:
    """In the order of the runbooks."""
    found: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if job.batch is not None:
            found.setdefault((job.batch, str(job.wave)), []).append(job)
    for (batch, name), mine in found.items():
        counts = Counter(job.state for job in mine)
        yield Wave(batch=batch, name=name, machines=len(mine), states={state: counts[state] for state in STATES if counts[state]},
                   bytes_read=sum(job.bytes_read for job in mine), rate=sum(job.rate or 0 for job in mine))


def causes(jobs: Sequence[Job]) -> list[Cause]:
    """The commonest first. Errors are alike if they differ only in the machine's name, in numbers and in paths."""
    found: dict[tuple[int | None, str], Cause] = {}
    for job in jobs:
        if job.state == "failed":
            key, error = (job.exit_code, _kind(job)), job.error or "no reason is known"
            old = found.get(key) or Cause(error=error, hint=job.hint, exit_code=job.exit_code, jobs=())
            found[key] = replace(old, jobs=(*old.jobs, job.id))
    return sorted(found.values(), key=lambda cause: -len(cause.jobs))


def _kind(job: Job) -> str:
    """A rule's name says it; else the words of the error that are not about this machine."""
    error = job.error or ""
    if rule := re.search(r"\[([a-z]+(?:\.[a-z_]+)+)\]", error):
        return rule[1]
    if job.machine:
        error = error.replace(job.machine, "")
    return re.sub(r"(?:/[^\s:,;]+)|\d+", "", error)


def flow(jobs: Sequence[Job], until: datetime) -> Iterator[Flow]:
    """From the first reading (of the last day) on, in equal parts: a step's bytes count evenly over its time."""
    spans = [span for job in jobs for span in _spans(job, until)]
    spans = [(max(start, until - LONGEST), end, rate) for start, end, rate in spans if end > until - LONGEST]
    if not spans:
        return
    first, last = min(start for start, _, _ in spans), max(end for _, end, _ in spans)
    part = max((last - first) / PARTS, timedelta(seconds=1))
    for number in range(PARTS):
        low, high = first + number * part, first + (number + 1) * part
        if low >= last:
            return
        read = sum(rate * max((min(end, high) - max(start, low)).total_seconds(), 0) for start, end, rate in spans)
        yield Flow(start=low.astimezone(UTC).isoformat(timespec="seconds"), seconds=round(part.total_seconds(), 1),
                   rate=round(read / part.total_seconds()))


def _spans(job: Job, until: datetime) -> Iterator[tuple[datetime, datetime, float]]:
    """(start, end, bytes a second) of what has read."""
    now = job.bytes_read - sum(step.bytes_read or 0 for step in job.steps)
    share = now / max(1, sum(step.state == "running" for step in job.steps))
    for step in job.steps:
        read = share if step.state == "running" else step.bytes_read
        start = datetime.fromisoformat(step.started)
        end = datetime.fromisoformat(step.ended) if step.ended else until
        if read and end > start:
            yield start, end, read / (end - start).total_seconds()
