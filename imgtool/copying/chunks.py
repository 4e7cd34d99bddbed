"""The disk in pieces of equal size, for codecs: each piece is read, cut into units and packed by one worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgtool.copying.direct import Scratch
from imgtool.copying.zeros import all_zero
from imgtool.formats.disk import Disk
from imgtool.model import Extent, Kind

CHUNK = 4 << 20
SCRATCH = Scratch()


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


def units(disk: Disk, chunk: Chunk, unit: int) -> list[tuple[int, memoryview]]:
    """(guest offset, bytes) of the units of a chunk that are not zeros; the last unit of a disk is padded with zeros.

    The bytes are in a buffer of this thread: its next chunk writes over them.
    """
    starts = _touched(chunk.extents, unit)
    room = SCRATCH.room(len(starts) * unit)
    filled = index = 0
    for extent in chunk.extents:
        while starts[index] + unit <= extent.start:
            index += 1
        begin = index * unit + extent.start - starts[index]
        room[filled:begin] = bytes(begin - filled)
        filled = begin + extent.length
        disk.read_into(extent, room[begin:filled])
    room[filled:] = bytes(len(room) - filled)
    return [(start, data) for number, start in enumerate(starts) if not all_zero(data := room[number * unit:][:unit])]


def _touched(extents: list[Extent], unit: int) -> list[int]:
    """Where the units begin that have a part of these extents."""
    starts: list[int] = []
    for extent in extents:
        first = extent.start // unit * unit
        if starts and starts[-1] == first:
            first += unit
        starts += range(first, extent.end, unit)
    return starts
