"""What was sent, compared with what comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from imgtool.copying.zeros import all_zero
from imgtool.errors import DifferError
from imgtool.formats.disk import Disk
from imgtool.model import Kind
from imgtool.progress import Bar

PIECE = 1 << 20


class Comparing:
    """A sink that compares with a disk of this host; threads may call at the same time. Raises DifferError."""

    def __init__(self, disk: Disk, name: str, bar: Bar) -> None:
        self._disk, self._name, self._bar = disk, name, bar
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        end = min(offset + len(data), self._disk.virtual_size)
        for start, stop, here in self._pieces(offset, end):
            there = data[start - offset:stop - offset]
            if here is None and not all_zero(there):
                raise self._differ(start, bytes(stop - start), bytes(there))
            if here is not None and bytes(there) != here:
                raise self._differ(start, here, bytes(there))
        if end < offset + len(data) and not all_zero(data[max(0, end - offset):]):
            raise DifferError(f"{self._name} has data behind the end of the disk that was sent")
        self._done(len(data))

    def zero(self, offset: int, length: int) -> None:
        for start, _, here in self._pieces(offset, min(offset + length, self._disk.virtual_size)):
            if here is not None and not all_zero(here):
                raise self._differ(start, here, bytes(len(here)))
        self._done(length)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int, bytes | bytearray | None]]:
        """(start, end, bytes or None for zeros), of at most PIECE."""
        for extent in self._disk.content(start, end) if start < end else ():
            for low in range(extent.start, extent.end, PIECE):
                high = min(low + PIECE, extent.end)
                yield low, high, self._disk.read(extent.part(low, high)) if extent.kind == Kind.DATA else None

    def _differ(self, start: int, here: bytes | bytearray, there: bytes) -> DifferError:
        first = next(at for at, (one, other) in enumerate(zip(here, there, strict=True)) if one != other)
        return DifferError(f"{self._name} differs from what was sent, at byte {start + first}",
                           "the storage or the line may be failing: keep the source; the same command sends it again, "
                           "--discard-partial removes what is there")

    def _done(self, count: int) -> None:
        with self._lock:
            self._bar.update(count)
