"""Jobs as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from imgtool.units import duration, size

if TYPE_CHECKING:
    from imgtool.model.job import Going, Job, JobStep, Overview

ERROR_WIDTH = 60
HEADS = ("JOB", "STATE", "WHAT", "BEGUN (UTC)", "READ", "RATE", "LEFT", "WHY")
BEGUN = HEADS.index("BEGUN (UTC)")
MINUTES = len("2026-11-29 03:36")


def table(seen: Overview, room: int | None = None) -> Iterator[str]:
    """A line a job, then one a wave. ``room``: columns of the terminal."""
    if not seen.jobs:
        yield "no jobs"
        return
    rows = [HEADS, *(_row(job) for job in seen.jobs)]
    lines = list(_columns(rows))
    yield from lines if room is None or max(map(len, lines)) <= room else _narrow(rows, room)
    yield from ("", *_columns([_wave_row(seen, number) for number in range(len(seen.waves))])) if seen.waves else ()
    if seen.paused:
        yield "paused: nothing new begins (imgtool jobs resume)"


def _row(job: Job) -> tuple[str, ...]:
    shown = job.id if job.batch or not job.machine else f"{job.id} ({job.machine})"
    why = f"{job.error[:ERROR_WIDTH]}…" if job.error and len(job.error) > ERROR_WIDTH else job.error or ""
    begun, read = (job.started or "-")[:19].replace("T", " "), size(job.bytes_read) if job.bytes_read else "-"
    rate = f"{size(job.rate)}/s" if job.rate is not None else "-"
    return shown, job.state, job.verb, begun, read, rate, duration(job.remaining), why


def _wave_row(seen: Overview, number: int) -> tuple[str, ...]:
    wave = seen.waves[number]
    counts = ", ".join(f"{count} {state}" for state, count in wave.states.items())
    rate = f"{size(wave.rate)}/s" if wave.rate else ""
    return f"{wave.batch}, wave {wave.name}:", counts, f"{size(wave.bytes_read)} read", rate


def _narrow(rows: Sequence[tuple[str, ...]], room: int) -> Iterator[str]:
    """Without seconds and columns that say nothing; why it failed stands below."""
    kept = [number for number in range(len(HEADS) - 1) if any(row[number] != "-" for row in rows[1:])]
    short = [tuple(row[number][:MINUTES] if number == BEGUN else row[number] for number in kept) for row in rows]
    for line, row in zip(_columns(short), rows, strict=True):
        yield line
        if row is not rows[0] and row[-1]:
            yield f"    {row[-1]}"[:room]


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def job_lines(job: Job) -> Iterator[str]:
    """All that is known of one."""
    yield (f"{job.id}: {job.verb} of {job.machine or '?'}, {job.state}" + (f", run {job.runs} times" if job.runs > 1 else "")
           + (f", retries: {job.retries}" if job.retries else ""))
    if job.wave:
        yield f"  wave {job.wave}, from {job.source_host} to {job.target_host}" + (f", on {job.worker}" if job.worker else "")
    if job.source or job.target:
        yield f"  {job.source or '-'} → {job.target or '-'}"
    if job.started:
        yield f"  begun {job.started}" + (f", ended {job.ended}" if job.ended else "")
    yield from (_step(step) for step in job.steps)
    yield from (_going(one) for one in job.going)
    for change in (job.result or {}).get("changes", ()):
        yield f"  changed  {change['where']}: {change['what']}"
    if job.error:
        yield f"  error: {job.error}"
    if job.hint:
        yield f"  hint: {job.hint}"


def _step(step: JobStep) -> str:
    seconds = "" if step.seconds is None else f", {step.seconds:.1f} s"
    read = f", {size(step.bytes_read)} read" if step.bytes_read else ""
    again = f", attempt {step.attempts}" if step.attempts > 1 else ""
    return f"  {step.state:<8} {step.verb} {step.of or ''}".rstrip() + seconds + read + again


def _going(one: Going) -> str:
    whole = f" of {size(one.total)} ({one.percent} %)" if one.total else ""
    left = f", {duration(one.remaining)} left" if one.remaining is not None else ""
    return f"  now      {one.what}: {size(one.done)}{whole}, {size(one.rate)}/s{left}"
