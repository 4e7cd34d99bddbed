"""What is measured: cases, who takes part in them, and what must come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import MIB, Run
from bench.statistics import Summary, best, summary

MEMORY_LIMIT = 200 * MIB

Command = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Contender:
    """One program, or several one after another, whose wall time is measured as a whole."""

    family: str
    """Ratios are against the fastest of a family: ``qemu-img`` with various options is one."""
    name: str
    commands: tuple[Command, ...]
    folder: Path | None = None
    """Where it puts its result: emptied before and after each run."""


@dataclass(frozen=True, slots=True)
class Bound:
    """imgtool must be at least ``ratio`` times as fast as the fastest of ``family``."""

    family: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    ours: Contender
    rivals: tuple[Contender, ...]
    sources: tuple[Path, ...] = ()
    """Files that are read once before each run: warm caches for all."""
    bounds: tuple[Bound, ...] = ()
    seconds: float | None = None
    """imgtool needs at most this."""
    growth: float | None = None
    """imgtool's result is at most this many times as large as that of each rival."""
    runs: int | None = None
    """At most this many runs: for what takes minutes."""

    @property
    def contenders(self) -> tuple[Contender, ...]:
        return self.ours, *self.rivals


@dataclass(frozen=True, slots=True)
class Table:
    """What is not a race: rows as they are printed."""

    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and what was measured."""

    case: Case
    ours: Summary
    rivals: tuple[Summary, ...]

    def ratio(self, family: str) -> float | None:
        """How many times as fast as the fastest of that family imgtool is, in the rounds that both have run."""
        rival = best(self.rivals, family)
        return rival.within(self.ours.runs) / self.ours.within(rival.runs) if rival else None

    def families(self) -> list[str]:
        return list(dict.fromkeys(rival.family for rival in self.rivals))

    def missed(self) -> list[str]:
        """Each requirement that is not kept, in words."""
        words = [f"{self.ratio(bound.family):.2f} times {bound.family}, required {bound.ratio:g}" for bound in self._slower()]
        return words + self.missed_alone()

    def missed_by(self, family: str) -> bool:
        """Whether the requirement against this family is not kept, or one against none."""
        return any(bound.family == family for bound in self._slower()) or bool(self.missed_alone())

    def _slower(self) -> list[Bound]:
        return [bound for bound in self.case.bounds if (found := self.ratio(bound.family)) is not None and found < bound.ratio]

    def missed_alone(self) -> list[str]:
        """Seconds, sizes and memory that are not kept, in words."""
        words = []
        if self.case.seconds is not None and self.ours.seconds > self.case.seconds:
            words.append(f"{self.ours.seconds:.2f} s, required {self.case.seconds:g} s")
        words += [f"{self.ours.size / rival.size:.2f} times the size of {rival.name}, required {self.case.growth:g}"
                  for rival in self.rivals if self.case.growth and rival.size and self.ours.size > rival.size * self.case.growth]
        if self.ours.memory > MEMORY_LIMIT:
            words.append(f"{self.ours.memory / MIB:.0f} MiB, required {MEMORY_LIMIT / MIB:.0f} MiB")
        return words


def outcome(case: Case, runs: Sequence[Sequence[Run]]) -> Outcome:
    """``runs``: those of each contender, ours first."""
    found = [summary(each.family, each.name, of) for each, of in zip(case.contenders, runs, strict=True)]
    return Outcome(case, found[0], tuple(found[1:]))
