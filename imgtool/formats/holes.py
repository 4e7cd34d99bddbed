"""Holes of the files that an image lies in, found without reading them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter

from imgtool import storage
from imgtool.model import Extent, ImageFile, Kind

NEAR, AHEAD = 1 << 20, 256 << 20
"""Bytes between extents of a file that follow each other; and those that are asked about ahead of them, at most."""
WINDOW, PIECES = 4 << 30, 1024
"""Bytes of a file that are asked about together; and the data and holes in them, up to which it is kept."""


def with_holes(extents: Iterator[Extent]) -> Iterator[Extent]:
    """What lies in a hole of its file reads as zeros; the rest as it comes."""
    known: dict[int, _Known] = {}
    for extent in extents:
        if extent.kind != Kind.DATA:
            plain = extent.kind == Kind.ZERO and not extent.layer
            yield extent if plain else Extent(extent.start, extent.length, Kind.ZERO)
        elif extent.file is None or extent.coded:
            yield extent
        else:
            file = extent.file
            found = known.get(file.fd) or known.setdefault(file.fd, _Known(file.fd))
            inside = not file.base or _inside(extent, file) == extent.length
            if inside and found.full(extent.offset, extent.length):
                yield extent
            else:
                yield from _cut_at_holes(extent, file)


class _Known:
    """Where a file was found to have data and nothing else: lseek(2) walks to the next hole each time that it is asked."""

    def __init__(self, fd: int) -> None:
        self._fd, self._ahead = fd, 0
        self._begin = self._end = 0
        self._windows: dict[int, list[tuple[int, int]] | None] = {}

    def full(self, offset: int, length: int) -> bool:
        """Whether a range is data and nothing else."""
        if self._begin <= offset and offset + length <= self._end:
            return True
        if (runs := self._runs(offset // WINDOW)) is None or (offset + length - 1) // WINDOW != offset // WINDOW:
            return self._asked(offset, length)
        at = bisect_right(runs, offset, key=itemgetter(0)) - 1
        self._begin, self._end = runs[at] if at >= 0 else (0, 0)
        return self._begin <= offset and offset + length <= self._end

    def _runs(self, window: int) -> list[tuple[int, int]] | None:
        """The data in a part of the file, in any order that it is needed; None where that is too much to keep."""
        if window not in self._windows:
            start = window * WINDOW
            found = [*islice(storage.pieces(self._fd, start, start + WINDOW), PIECES + 1)]
            runs = [(piece.offset, piece.offset + piece.length) for piece in found if piece.data]
            self._windows[window] = runs if len(found) <= PIECES else None
        return self._windows[window]

    def _asked(self, offset: int, length: int) -> bool:
        """As ``full``. Where ranges follow each other, it is asked for what comes next, too."""
        follows = 0 <= offset - self._end <= NEAR
        self._ahead = min(2 * self._ahead + length, AHEAD) if follows else 0
        first = next(storage.pieces(self._fd, offset, offset + length + self._ahead), None)
        if first is None or not first.data:
            return False
        self._begin, self._end = offset, offset + first.length
        return length <= first.length


def _cut_at_holes(extent: Extent, file: ImageFile) -> Iterator[Extent]:
    inside = _inside(extent, file)
    for piece in storage.pieces(file.fd, extent.offset, extent.offset + inside):
        start = extent.start + piece.offset - extent.offset
        if piece.data:
            yield extent._replace(start=start, length=piece.length, offset=piece.offset)
        else:
            yield Extent(start, piece.length, Kind.ZERO)
    if inside < extent.length:
        yield Extent(extent.start + inside, extent.length - inside, Kind.ZERO)


def _inside(extent: Extent, file: ImageFile) -> int:
    """Bytes of an extent before the end of its image: behind a member of an archive comes the next one."""
    return min(extent.length, file.base + file.size - extent.offset) if file.base else extent.length
