"""The disk in pieces of equal size, for codecs: each piece is read, cut into units and packed by one worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgtool.copying.zeros import all_zero
from imgtool.formats.disk import Disk
from imgtool.model import Extent, Kind

CHUNK = 4 << 20


class Chunk(NamedTuple):
    """Guest bytes [start, end) and the DATA that lies in them; the rest is zeros."""

    start: int
    end: int
    extents: list[Extent]


def chunks(extents: Iterable[Extent], disk_size: int, size: int = CHUNK) -> Iterator[Chunk]:
    """Pieces that begin at multiples of ``size``; those without DATA are left out."""
    held: list[Extent] = []
    index = -1
    for extent in extents:
        if extent.kind != Kind.DATA:
            continue
        for part in _cut(extent, size):
            if part.start // size != index and held:
                yield Chunk(index * size, min(disk_size, (index + 1) * size), held)
                held = []
            index = part.start // size
            held.append(part)
    if held:
        yield Chunk(index * size, min(disk_size, (index + 1) * size), held)


def _cut(extent: Extent, size: int) -> Iterator[Extent]:
    position = extent.start
    while position < extent.end:
        stop = min(extent.end, (position // size + 1) * size)
        yield extent.part(position, stop)
        position = stop


def units(disk: Disk, chunk: Chunk, unit: int) -> Iterator[tuple[int, bytes]]:
    """(guest offset, bytes) of the units of a chunk that are not zeros; the last unit of a disk is padded with zeros."""
    for start in range(chunk.start, chunk.end, unit):
        parts = [extent for extent in chunk.extents if extent.start < start + unit and extent.end > start]
        if parts:
            data = _joined(disk, parts, start, unit)
            if not all_zero(data):
                yield start, data


def _joined(disk: Disk, parts: list[Extent], start: int, unit: int) -> bytes:
    if parts[0].start <= start and parts[0].end >= start + unit:
        return bytes(disk.read(parts[0].part(start, start + unit)))
    buffer = bytearray(unit)
    for extent in parts:
        low, high = max(extent.start, start), min(extent.end, start + unit)
        buffer[low - start:high - start] = disk.read(extent.part(low, high))
    return bytes(buffer)
