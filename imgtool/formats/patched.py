"""A disk with some bytes of its own, and another size: a layer over it that holds them in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from imgtool.formats.disk import Disk
from imgtool.formats.layer import Layer
from imgtool.model import Extent, Kind
from imgtool.model.partitions import Patch


def patched(disk: Disk, patches: Sequence[Patch], size: int) -> Disk:
    """``disk`` as one of ``size`` bytes (what it does not have is unallocated), with the patches; a later one wins."""
    pieces = _flat(patches, size)
    starts = [piece.offset for piece in pieces]

    def extents(start: int, end: int) -> Iterator[Extent]:
        at = start
        for piece in pieces[max(0, bisect_right(starts, start) - 1):]:
            low, high = max(piece.offset, at), min(piece.offset + len(piece.data), end)
            if low < high:
                if at < low:
                    yield Extent(at, low - at, Kind.UNALLOCATED)
                yield Extent(low, high - low, Kind.DATA)
                at = high
        if at < end:
            yield Extent(at, end - at, Kind.UNALLOCATED)

    def decode(extent: Extent) -> bytes:
        data = bytearray()
        for piece in pieces:
            low, high = max(piece.offset, extent.start), min(piece.offset + len(piece.data), extent.end)
            if low < high:
                data += piece.data[low - piece.offset:high - piece.offset]
        return bytes(data)

    layer = Layer(path=disk.path, format=disk.top.format, virtual_size=size, files=(), extents=extents, decode=decode)
    return replace(disk, layers=(layer, *disk.layers))


def _flat(patches: Sequence[Patch], size: int) -> list[Patch]:
    """Sorted, without overlaps, none behind the disk's end."""
    edges = sorted({edge for patch in patches for edge in (patch.offset, patch.offset + len(patch.data))})
    found = []
    for low, high in pairwise(edges):
        covering = (patch for patch in reversed(patches) if patch.offset <= low and high <= patch.offset + len(patch.data))
        over = next(covering, None)
        if over is not None and low < size:
            found.append(Patch(low, over.data[low - over.offset:min(high, size) - over.offset]))
    return found


def reader(disk: Disk) -> Callable[[int, int], bytes]:
    """``read(offset, length)`` of what a guest would read; less at the disk's end."""

    def read(offset: int, length: int) -> bytes:
        end = min(offset + length, disk.virtual_size)
        if offset >= end:
            return b""
        data = bytearray(end - offset)
        for extent in disk.content(offset, end):
            if extent.kind == Kind.DATA:
                data[extent.start - offset:extent.end - offset] = disk.read(extent)
        return bytes(data)

    return read
