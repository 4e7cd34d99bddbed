"""The quickest of several runs, and who of several programs is the fastest.

What disturbs a run only makes it longer: a host that gives memory, or its disk to others, takes seconds that are nobody's. Where
two runs of three were hit, a median is one of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.measure import Run


class Summary(NamedTuple):
    """Of all runs of one contender."""

    family: str
    name: str
    times: tuple[float, ...]
    """Seconds of wall time, round by round."""
    memory: int
    """Bytes, the largest of all runs."""
    size: int
    """Bytes of the files it made."""

    @property
    def runs(self) -> int:
        return len(self.times)

    @property
    def seconds(self) -> float:
        """Of the quickest run."""
        return min(self.times)

    def within(self, rounds: int) -> float:
        """As ``seconds``, of the first rounds only: who ran more often than another has no better chance."""
        return min(self.times[:rounds])


def summary(family: str, name: str, runs: Sequence[Run]) -> Summary:
    times = tuple(run.seconds for run in runs)
    return Summary(family, name, times, max(run.memory for run in runs), max(run.size for run in runs))


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
