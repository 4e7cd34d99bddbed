"""bench/RESULTS.md: one table a topic."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.case import Outcome, Table
from bench.measure import GIB, MIB
from bench.statistics import best

HEADER = ("case", "imgtool", "against", "its time", "ratio", "required", "runs", "memory", "its memory", "result")


def document(about: Sequence[str], topics: Sequence[tuple[str, Sequence[Outcome | Table]]]) -> str:
    """Markdown."""
    lines = ["# Results", "", "Made by `make bench`. Ratio: how many times as fast imgtool is as the fastest of the other side.",
             "", *about, ""]
    missed = [f"* {done.case.name}: {words}" for _, found in topics for done in found if isinstance(done, Outcome)
              for words in done.missed()]
    lines += ["## Missed", "", *(missed or ["Nothing."]), ""]
    for title, found in topics:
        lines += [f"## {title}", "", *section(found)]
    return "\n".join(lines).rstrip() + "\n"


def section(found: Sequence[Outcome | Table]) -> list[str]:
    """All cases of a topic in one table, each other table in one of its own."""
    lines: list[str] = []
    outcomes = [each for each in found if isinstance(each, Outcome)]
    if outcomes:
        lines += [*markdown(HEADER, [row for each in outcomes for row in rows(each)]), ""]
    for each in found:
        if isinstance(each, Table):
            lines += [each.note, "", *(markdown(each.header, each.rows) if each.header else ()), *([""] if each.header else ())]
    return lines


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The first and the last column of ``HEADER`` are words, so is what it is measured against; the rest are numbers."""
    ruler = [" --- " if name in ("case", "codec", "against", "required", "result") else " ---: " for name in header]
    return ["| " + " | ".join(header) + " |", "|" + "|".join(ruler) + "|", *("| " + " | ".join(row) + " |" for row in body)]


def rows(done: Outcome) -> list[tuple[str, ...]]:
    """One for each family of rivals."""
    found: list[tuple[str, ...]] = []
    for family in done.families():
        rival, ratio = best(done.rivals, family), done.ratio(family)
        assert rival is not None
        assert ratio is not None
        bound = next((f"{each.ratio:.2g}" for each in done.case.bounds if each.family == family), "")
        verdict = "MISSED" if done.missed_by(family) else "kept" if bound or done.case.seconds or done.case.growth else ""
        wanted = ", ".join(filter(None, [bound, f"{done.case.seconds:g} s" if done.case.seconds else "",
                                         _size(done, rival.size)]))
        ours, theirs = done.ours.within(rival.runs), rival.within(done.ours.runs)
        found.append((done.case.name, seconds(ours), rival.name, seconds(theirs), f"{ratio:.2f}", wanted,
                      str(done.ours.runs), f"{done.ours.memory / MIB:.0f} MiB", f"{rival.memory / MIB:.0f} MiB", verdict))
    return found


def _size(done: Outcome, theirs: int) -> str:
    """Only where the size is looked at."""
    return f"size {done.ours.size / theirs:.2f} of {done.case.growth:g}" if done.case.growth and theirs else ""


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def machine(place: Path, parameters: str) -> list[str]:
    """Where it was measured, and with what."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    qemu = subprocess.run(["qemu-img", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    cp = subprocess.run(["cp", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    under = subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True, text=True, check=True).stdout.strip()
    return [f"* {datetime.now(UTC):%Y-%m-%d}, {model[1] if model else platform.machine()}, {os.cpu_count()} processors, "
            f"{memory:.0f} GiB of memory; loop files on {under}",
            f"* Linux {platform.release()}, Python {platform.python_version()}, {qemu}, {cp}",
            f"* {parameters}"]
