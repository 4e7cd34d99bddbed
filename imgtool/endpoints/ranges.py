"""Sorted ranges [start, end) of bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]


class Ranges:
    """Sorted, apart from each other; asked for by place."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._all = list(joined(ranges))
        self._starts = [start for start, _ in self._all]

    def __iter__(self) -> Iterator[Range]:
        return iter(self._all)

    @property
    def bytes(self) -> int:
        return sum(end - start for start, end in self._all)

    def within(self, start: int, end: int) -> Iterator[Range]:
        """What of them lies in [start, end)."""
        at = max(bisect_right(self._starts, start) - 1, 0)
        while at < len(self._all) and self._all[at][0] < end:
            low, high = max(self._all[at][0], start), min(self._all[at][1], end)
            if low < high:
                yield low, high
            at += 1

    def outside(self, start: int, end: int) -> Iterator[Range]:
        """What of [start, end) none of them covers."""
        for low, high in self.within(start, end):
            if start < low:
                yield start, low
            start = high
        if start < end:
            yield start, end


def joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Sorted, those that touch or overlap as one."""
    held: Range | None = None
    for start, end in sorted(ranges):
        if held and start <= held[1]:
            held = held[0], max(held[1], end)
            continue
        if held:
            yield held
        held = start, end
    if held:
        yield held


def inward(ranges: Iterable[Range], unit: int) -> Iterator[Range]:
    """Only the whole units of each."""
    for start, end in ranges:
        low, high = -(-start // unit) * unit, end // unit * unit
        if low < high:
            yield low, high


def pieces(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """Cut at the multiples of ``size``."""
    for start, end in ranges:
        for low in range(start // size * size, end, size):
            yield max(low, start), min(low + size, end)


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly from first to last."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[at * (len(numbers) - 1) // (most - 1)] for at in range(most)]
