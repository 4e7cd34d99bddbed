"""Compares what a guest would read from two disks, by their maps: what is zeros on both sides is not read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

from imgtool import storage
from imgtool.copying import direct
from imgtool.copying.batches import MAX_ITEMS, side_by_side
from imgtool.copying.buffers import Buffer, buffer, same_bytes
from imgtool.copying.direct import Direct
from imgtool.copying.pool import ordered
from imgtool.formats.disk import Disk
from imgtool.formats.measure import work
from imgtool.model import Extent, Kind, VerifyResult
from imgtool.progress import Control, estimated

Pair = tuple[Extent, Extent]
Reader = Callable[[int, int], bytes | Buffer]
BATCH = 32 << 20
"""Bytes of one piece of work: comparing runs at the speed of memory, so that handing over 4 MiB takes as long as their bytes."""
PIECE = 512 << 10
"""Bytes that are read and compared at once."""
READERS = 4
"""Requests that the storage has at a time; more would only be in each other's way where all is in the page cache."""
WORTH_ASKING = 64 << 10
"""Bytes from which on the file system is asked for the blocks: below, reading is as quick."""


def compare(left: Disk, right: Disk, control: Control, *, what: str = "verify") -> VerifyResult:
    """A disk that is longer must have zeros behind the end of the other; a warning says so. Raises DamagedError, StoppedError."""
    began = time.monotonic()
    size = max(left.virtual_size, right.virtual_size)
    compared, difference = 0, None
    same: list[int] = []
    sides, pairs = Sides(left, right, control), _batches(left, right, size, same)
    progress = estimated(control.progress, lambda: max(work(left), work(right)), what)
    with closing(sides.direct), ThreadPoolExecutor(READERS) as pool, progress as bar:
        for batch, first in ordered(pool, sides.differ, pairs, 2 * READERS):
            control.stop.check()
            count = sum(a.length for a, b in batch if _read(a, b))
            compared += count
            bar.update(count)
            if first is not None:
                difference = first
                break
    warnings: tuple[str, ...] = ()
    if left.virtual_size != right.virtual_size:
        warnings = (f"the sizes differ: {left.virtual_size} and {right.virtual_size} bytes; "
                    "what the shorter one lacks counts as zeros",)
    return VerifyResult(identical=difference is None, first_difference=difference, bytes_compared=compared + sum(same),
                        seconds=round(time.monotonic() - began, 3), warnings=warnings)


def _padded(disk: Disk, size: int) -> Iterator[Extent]:
    rest = size - disk.virtual_size
    return chain(disk.content(), [Extent(disk.virtual_size, rest, Kind.ZERO)] if rest else [])


def _read(a: Extent, b: Extent) -> bool:
    return Kind.DATA in (a.kind, b.kind)


def _batches(left: Disk, right: Disk, size: int, seen: list[int]) -> Iterator[list[Pair]]:
    batch: list[Pair] = []
    total = 0
    for a, b in _cut(_unshared(side_by_side(_padded(left, size), _padded(right, size)), seen)):
        batch.append((a, b))
        total += a.length if _read(a, b) else 0
        if total >= BATCH or len(batch) >= MAX_ITEMS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _unshared(pairs: Iterator[Pair], seen: list[int]) -> Iterator[Pair]:
    """Leaves out what lies in the same blocks on the disk; ``seen`` counts those bytes."""
    may_share: dict[tuple[int, int], bool] = {}
    for a, b in pairs:
        position = a.start
        for begin, length in _same_blocks(a, b, may_share):
            if a.start + begin > position:
                yield a.part(position, a.start + begin), b.part(position, b.start + begin)
            seen.append(length)
            position = a.start + begin + length
        if position < a.end:
            yield a.part(position, a.end), b.part(position, b.end)


def _same_blocks(a: Extent, b: Extent, may_share: dict[tuple[int, int], bool]) -> Iterator[tuple[int, int]]:
    """``may_share``: pairs of files that were looked at before."""
    if a.file is None or b.file is None or a.coded or b.coded or a.length < WORTH_ASKING:
        return
    both = a.file.fd, b.file.fd
    if both not in may_share:
        may_share[both] = os.fstat(both[0]).st_dev == os.fstat(both[1]).st_dev and storage.shares_on_copy(both[0])
    if may_share[both]:
        yield from storage.same_blocks(a.file.fd, a.offset, b.file.fd, b.offset, a.length)


def _cut(pairs: Iterator[Pair]) -> Iterator[Pair]:
    for a, b in pairs:
        if a.length <= BATCH or not _read(a, b):
            yield a, b
            continue
        for start in range(a.start, a.end, BATCH):
            end = min(a.end, start + BATCH)
            yield a.part(start, end), b.part(start, end)


class _Buffers(threading.local):
    """Two buffers a thread, used again and again: what the processor's cache holds, unless a disk is waited for."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Buffer, Buffer]] = {}

    def pair(self, size: int) -> tuple[Buffer, Buffer]:
        if size not in self._made:
            self._made[size] = (buffer(size), buffer(size))
        return self._made[size]


BUFFERS = _Buffers()


@dataclass(frozen=True)
class Sides:
    """Two disks, and the way to their bytes."""

    left: Disk
    right: Disk
    control: Control
    direct: Direct = field(default_factory=Direct)

    def differ(self, pairs: list[Pair]) -> int | None:
        """The offset of the first byte that differs."""
        wanted = [(a, b) for a, b in pairs if _read(a, b)]
        past = self._past(wanted)
        piece = direct.PIECE if past else PIECE
        left, right = BUFFERS.pair(piece)
        for a, b in wanted:
            self.control.rate.take(a.length, self.control.stop)
            step = a.length if a.coded or b.coded else piece  # what is compressed is unpacked once, not once a piece
            read_left = self._reader(self.left, a, left, past)
            read_right = self._reader(self.right, b, right, past)
            for done in range(0, a.length, step):
                length = min(step, a.length - done)
                one, other = read_left(done, length), read_right(done, length)
                if not same_bytes(one, other, length):
                    return a.start + done + first_byte(memoryview(one)[:length], memoryview(other)[:length])
        return None

    def _past(self, pairs: list[Pair]) -> bool:
        """Whether past the page cache, judged by the longest pair: to ask for each takes as long as to compare a tenth of it."""
        plain = (pair for pair in pairs if not pair[0].coded and not pair[1].coded)
        longest = max(plain, key=lambda pair: pair[0].length, default=())
        return any(each.file is not None and self.direct.reads(each.file.fd, each.offset, each.length) for each in longest)

    def _reader(self, disk: Disk, extent: Extent, mine: Buffer, past: bool) -> Reader:
        """(offset in the extent, length) → the guest's bytes there, in ``mine`` if they are plain; what follows has no meaning.

        Chosen once an extent, since the bytes themselves come at the speed of memory.
        """
        if extent.kind != Kind.DATA:
            return lambda _, length: storage.ZEROS if length <= len(storage.ZEROS) else bytes(length)
        if extent.file is None or extent.coded:
            return lambda done, length: bytes(disk.read(extent.part(extent.start + done, extent.start + done + length)))
        fd, offset = extent.file.fd, extent.offset
        read = self.direct.read if past else storage.read_into

        def plain(done: int, length: int) -> Buffer:
            room = mine if length <= len(mine) else buffer(length)
            view = memoryview(room).cast("B")[:length]
            count = read(fd, view, offset + done)
            if count < length:
                view[count:] = bytes(length - count)
            return room

        return plain


def first_byte(left: memoryview, right: memoryview) -> int:
    """Index of the first byte in which two different strings of one length differ."""
    import numpy as np

    return int(np.argmax(np.frombuffer(left, np.uint8) != np.frombuffer(right, np.uint8)))
