"""Arithmetic on extents: cutting long ones, grouping short ones, walking two maps at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imgtool.model import Extent, Kind

BATCH = 4 << 20
"""Bytes of one piece of work."""
MAX_ITEMS = 256
"""Extents of one piece of work."""


def split(extents: Iterable[Extent], size: int = BATCH) -> Iterator[Extent]:
    """No DATA extent longer than ``size``; cuts at multiples of it, so that they fall on clusters and blocks."""
    for extent in extents:
        step = min(size, BATCH) if extent.file is None else size
        if extent.kind != Kind.DATA or extent.length <= step or extent.coded:
            yield extent
            continue
        position = extent.start
        while position < extent.end:
            stop = min(extent.end, (position // step + 1) * step)
            yield extent.part(position, stop)
            position = stop


def batches(extents: Iterable[Extent], size: int = BATCH) -> Iterator[list[Extent]]:
    """Groups of neighbours, of about ``size`` bytes of DATA; of BATCH, where that has to go through memory."""
    batch: list[Extent] = []
    total = held = 0
    for extent in split(extents, size):
        batch.append(extent)
        if extent.kind == Kind.DATA:
            total += extent.length
            held += extent.length if extent.coded or extent.file is None else 0
        if total >= size or held >= BATCH or len(batch) >= MAX_ITEMS:
            yield batch
            batch, total, held = [], 0, 0
    if batch:
        yield batch


def side_by_side(left: Iterator[Extent], right: Iterator[Extent]) -> Iterator[tuple[Extent, Extent]]:
    """Both maps cut at the same places; ends with the shorter one."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        length = min(a.length, b.length)
        yield a.part(a.start, a.start + length), b.part(b.start, b.start + length)
        a = a.part(a.start + length, a.end) if a.length > length else next(left, None)
        b = b.part(b.start + length, b.end) if b.length > length else next(right, None)
