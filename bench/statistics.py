"""Medians of runs, and who of several is the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from bench.measure import Run


class Summary(NamedTuple):
    """Of all runs of one contender."""

    family: str
    name: str
    seconds: float
    """Median of the wall time."""
    spread: float
    """Slowest less fastest run, in seconds."""
    memory: int
    """Bytes, the largest of all runs."""
    size: int
    """Bytes of the files it made."""
    runs: int


def summary(family: str, name: str, runs: Sequence[Run]) -> Summary:
    times = [run.seconds for run in runs]
    return Summary(family, name, median(times), max(times) - min(times), max(run.memory for run in runs),
                   max(run.size for run in runs), len(runs))


def best(found: Sequence[Summary], family: str) -> Summary | None:
    """The fastest of those that ran most often: who was slow in the first round was not run again."""
    of = [each for each in found if each.family == family]
    most = max((each.runs for each in of), default=0)
    return min((each for each in of if each.runs == most), key=lambda each: each.seconds, default=None)


def survivors(families: Sequence[str], seconds: Sequence[float]) -> list[int]:
    """Positions of the fastest of each family, after the first round."""
    fastest: dict[str, int] = {}
    for position, family in enumerate(families):
        if family not in fastest or seconds[position] < seconds[fastest[family]]:
            fastest[family] = position
    return sorted(fastest.values())
