"""Waves, machines, throughput, failures: one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from imgtool import __version__
from imgtool.model.job import STATES, Cause, Job, Overview, Wave
from imgtool.runs.pages.chart import chart
from imgtool.runs.pages.parts import bar, document, html_table, state
from imgtool.units import duration, size

MOST_ROWS, MOST_NAMES = 500, 30
"""More are counted, not listed: a browser shall show the page at once."""
FILLED = ("done", "failed", "cancelled", "stopped", "running")
"""States that a wave's bar shows; the rest of it waits."""
HEADS = ("Machine", "State", "Now", "Read", "Rate", "Left", "Why")


def page(seen: Overview, *, title: str = "Jobs", refresh: int | None = None) -> str:
    """HTML. What should be looked at first is first."""
    html = "".join((_head(seen, title), _tiles(seen.jobs), _paused(seen), _waves(seen.waves), chart(seen.flow),
                    _causes(seen.causes), _jobs(seen.jobs), _foot(seen)))
    return document(title, html, refresh=refresh)


def _head(seen: Overview, title: str) -> str:
    return f'<header><h1>{escape(title)}</h1><p class="quiet">as of {escape(_clock(seen.time))} UTC</p></header>'


def _clock(time: str) -> str:
    return time[:19].replace("T", " ")


def _tiles(jobs: Sequence[Job]) -> str:
    if not jobs:
        return ('<div class="card note"><p>There are no jobs yet.</p><p class="quiet"><code>imgtool run RUNBOOK.yaml</code> '
                "carries out a batch, <code>imgtool migrate</code> moves one machine.</p></div>")
    counts = Counter(job.state for job in jobs)
    tiles = [(one, str(counts[one]), one) for one in STATES if counts[one] or one in ("running", "failed", "done")]
    rate = sum(job.rate or 0 for job in jobs)
    tiles += [("", size(sum(job.bytes_read for job in jobs)), "read"), *([("running", f"{size(rate)}/s", "now")] if rate else [])]
    return '<div class="tiles">' + "".join(
        f'<div class="card tile {kind}"><b>{escape(number)}</b>{escape(words)}</div>' for kind, number, words in tiles) + "</div>"


def _paused(seen: Overview) -> str:
    if not seen.paused:
        return ""
    return ('<div class="card note"><p>Paused: what runs goes on, nothing new begins.</p><p><code>imgtool jobs resume</code></p>'
            "</div>")


def _waves(waves: Sequence[Wave]) -> str:
    cards = "".join(_wave(wave) for wave in waves)
    return f'<h2>Waves</h2><div class="cards">{cards}</div>' if cards else ""


def _wave(wave: Wave) -> str:
    order: dict[str, int] = {one: wave.states[one] for one in FILLED if one in wave.states}
    counts = ", ".join(f"{count} {name}" for name, count in wave.states.items())
    moved = f"{size(wave.bytes_read)} read" + (f", {size(wave.rate)}/s now" if wave.rate else "")
    done = f"{wave.states.get('done', 0)} of {wave.machines} done"
    return (f'<div class="card"><h3>{escape(wave.batch)} · {escape(wave.name)}</h3>{bar(order, wave.machines, counts)}'
            f'<div class="axis"><span>{done}</span><span class="quiet">{moved}</span></div><p class="quiet">{escape(counts)}</p>'
            "</div>")


def _causes(causes: Sequence[Cause]) -> str:
    cards = "".join(_cause(cause) for cause in causes)
    return f'<h2>Failures</h2><div class="cards">{cards}</div>' if cards else ""


def _cause(cause: Cause) -> str:
    hint = f"<p>What to do: {escape(cause.hint)}</p>" if cause.hint else ""
    more = len(cause.jobs) - MOST_NAMES
    names = ", ".join(cause.jobs[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    count = f"{len(cause.jobs)} machine{'' if len(cause.jobs) == 1 else 's'}"
    return (f'<div class="card cause"><p>{escape(cause.error)}</p>{hint}<p class="quiet">{count}'
            + (f", exit code {cause.exit_code}" if cause.exit_code is not None else "") + f": {escape(names)}</p></div>")


def _jobs(jobs: Sequence[Job]) -> str:
    order = sorted(jobs, key=lambda job: STATES.index(job.state))  # what began last is the last of its kind
    more = f'<p class="quiet">and {len(order) - MOST_ROWS} more</p>' if len(order) > MOST_ROWS else ""
    return html_table("Machines", HEADS, (list(_cells(job)) for job in order[:MOST_ROWS]), "stack") + more


def _cells(job: Job) -> Iterator[str]:
    name = job.machine or job.id
    below = [one for one in (job.wave and f"{job.batch} · {job.wave}", job.verb, job.worker and f"on {job.worker}") if one]
    why = escape(job.error) if job.error else ""
    if job.hint and job.state != "done":
        why += f'<p class="quiet">{escape(job.hint)}</p>'
    retries = f'<p class="quiet">retries: {job.retries}</p>' if job.retries else ""
    yield _cell("Machine", f'<b>{escape(name)}</b><p class="quiet">{escape(", ".join(below))}</p>')
    yield _cell("State", state(job.state) + retries, "short")
    yield _cell("Now", "".join(_going(job)))
    yield _cell("Read", size(job.bytes_read) if job.bytes_read else "", "short")
    yield _cell("Rate", f"{size(job.rate)}/s" if job.rate is not None else "", "short")
    yield _cell("Left", duration(job.remaining) if job.remaining is not None else "", "short")
    yield _cell("Why", why)


def _cell(head: str, html: str, kind: str = "") -> str:
    """The head is shown on narrow screens, where each row is a block."""
    return f'<td data-head="{head}" class="{kind}">' + (f"<div>{html}</div>" if html else "") + "</td>"


def _going(job: Job) -> Iterator[str]:
    """Bars of what moves; else the steps that run."""
    for one in job.going:
        share = f", {one.percent} %" if one.total else ""
        yield f"{escape(one.what)}{share}"
        yield bar({"running": min(one.done, one.total)}, one.total, one.what) if one.total else ""
    if not job.going:
        yield escape(", ".join(step.verb.partition("-")[2] or step.verb for step in job.steps if step.state == "running"))


def _foot(seen: Overview) -> str:
    return f'<footer class="quiet">imgtool {escape(__version__)}, {len(seen.jobs)} jobs, times in UTC</footer>'
