"""Copies into an image that imgtool writes itself, range by range, the cheapest way that the range allows.

clone   FICLONERANGE shares the blocks: thin targets on the same file system with reflinks
kernel  copy_file_range(2): the bytes stay in the kernel
buffer  read, look for zeros, write: compressed payload, payload behind qemu, ``--detect-zeroes``; and where nothing may be
        shared on a file system on which copy_file_range would share
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from imgtool import storage
from imgtool.copying.batches import BATCH, batches
from imgtool.copying.pool import WORKERS, Turns, ordered
from imgtool.copying.writeback import Writeback
from imgtool.copying.zeros import data_runs
from imgtool.formats.disk import Disk
from imgtool.formats.target import Place, Target
from imgtool.model import CopyStats, Extent, ImageFile, Kind
from imgtool.progress import Control

FICLONERANGE = 0x4020940D
_CLONE = struct.Struct("=qQQQ")
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.ETXTBSY, errno.EPERM)
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)
BLOCK = 4096
"""What a clone must be aligned to, on the file systems that can: their block, at least this."""
CLONED = 256 << 20
"""Bytes of one piece of work where blocks are shared."""
READ = 512 << 10
"""Bytes of one read and write: they stay in the processor's cache between the two."""


class Blob(NamedTuple):
    """Guest bytes from ``start`` on; ``runs`` are (offset in ``data``, length) of what shall be written of them."""

    start: int
    data: memoryview
    runs: list[tuple[int, int]]


class _Scratch(threading.local):
    """A buffer a thread, used for batch after batch: fresh memory for each would cost as much as filling it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def room(self, size: int) -> memoryview:
        """``size`` bytes; what was there before is gone."""
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        return memoryview(self._buffer)[:size]


SCRATCH = _Scratch()


@dataclass(frozen=True)
class Copier:
    """One copy. ``whole``: every range of the target gets space; ``share``: blocks may be shared with the source;
    ``clones``: most of them will be."""

    disk: Disk
    target: Target
    control: Control
    whole: bool
    share: bool
    clones: bool
    detect: bool | None
    """Written zeros: looked for everywhere, nowhere, or (None) where the bytes pass through a buffer anyway."""
    moved: Counter[str] = field(default_factory=Counter)
    """Bytes by way of copying."""
    refused: set[str] = field(default_factory=set)
    """Ways that the kernel does not go between these files."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _count(self, way: str, count: int) -> None:
        with self.lock:
            self.moved[way] += count

    def run(self) -> CopyStats:
        """Raises NoSpaceError, DamagedError, StoppedError."""
        back, turns = Writeback(self.disk.virtual_size), Turns()
        work = enumerate(batches(self.disk.content(), self._batch()))
        with ThreadPoolExecutor(WORKERS) as pool, self.control.progress.bar(self.disk.virtual_size, "convert") as bar:
            try:
                for (_, batch), places in ordered(pool, lambda numbered: self._copy(*numbered, turns), work):
                    self.control.stop.check()
                    for place in places:
                        back.wrote(place.fd, place.offset, place.length)
                    bar.update(batch[-1].end - batch[0].start)
            except OSError as error:
                storage.raise_os(error, f"writing {self.target.members[-1]}")
        ways = Counter({way: self.moved[way] for way in ("clone", "kernel", "buffer")})
        return CopyStats(
            engine=ways.most_common(1)[0][0] if ways.total() else "kernel", bytes_read=self.moved["read"],
            bytes_written=ways["kernel"] + ways["buffer"], bytes_cloned=ways["clone"],
            detected_zeroes=bool(self.moved["loaded"]) and self._leaves_zeros_out())

    def _batch(self) -> int:
        """Bytes of one piece of work: handing 4 MiB over takes longer than sharing them."""
        return CLONED if self.clones and not self.detect and not self.control.rate.limit else BATCH

    def _copy(self, number: int, batch: list[Extent], turns: Turns) -> list[Place]:
        """All of one batch, by one worker: what it unpacks is written while it is still in the processor's cache."""
        try:
            items = self._load(batch)
            turns.wait(number)  # places are given in the order of the disk
            placed = [(item, list(self._places(item))) for item in items]
        finally:
            turns.over(number)
        for item, places in placed:
            for place in places:
                self.control.stop.check()
                if isinstance(item, Blob):
                    self._write(item, place)
                else:
                    self._move(item, place)
        self._count("read", sum(extent.length for extent in batch if extent.kind == Kind.DATA))
        return [place for _, places in placed for place in places]

    def _load(self, batch: list[Extent]) -> list[Extent | Blob]:
        """The same ranges, in order; neighbours that must pass through a buffer as one piece of bytes."""
        items: list[Extent | Blob] = []
        room = SCRATCH.room(sum(extent.length for extent in batch if self._needs_buffer(extent)))
        for needs_buffer, group in groupby(batch, key=self._needs_buffer):
            if needs_buffer:
                blob = self._blob(list(group), room)
                items.append(blob)
                room = room[len(blob.data):]
            else:
                items += group
        return items

    def _needs_buffer(self, extent: Extent) -> bool:
        return extent.kind == Kind.DATA and (extent.file is None or bool(extent.coded) or bool(self.detect))

    def _leaves_zeros_out(self) -> bool:
        return self.detect is not False

    def _blob(self, extents: list[Extent], room: memoryview) -> Blob:
        """The bytes of neighbours, at the beginning of ``room``."""
        length = 0
        for extent in extents:
            self.control.rate.take(extent.length, self.control.stop)
            self.disk.read_into(extent, room[length:][:extent.length])
            length += extent.length
        self._count("loaded", length)
        data = room[:length]
        return Blob(extents[0].start, data, list(data_runs(data)) if self._leaves_zeros_out() else [(0, length)])

    def _places(self, item: Extent | Blob) -> Iterator[Place]:
        """Where to write. Ranges of zeros have a place in a whole image, too, and read as zeros already."""
        if isinstance(item, Blob):
            if self.whole:
                yield from self._parts(item, self.target.place(item.start, len(item.data)))
            else:
                for at, length in item.runs:
                    yield from self.target.place(item.start + at, length)
        elif item.kind == Kind.DATA:
            yield from self.target.place(item.start, item.length)
        elif self.whole:
            for _ in self.target.place(item.start, item.length):
                pass

    def _parts(self, blob: Blob, places: Iterator[Place]) -> Iterator[Place]:
        """What of these places is not zeros."""
        for place in places:
            for at, length in blob.runs:
                begin = max(place.start, blob.start + at)
                end = min(place.start + place.length, blob.start + at + length)
                if begin < end:
                    yield Place(begin, end - begin, place.fd, place.offset + begin - place.start)

    def _write(self, blob: Blob, place: Place) -> None:
        write_all(place.fd, blob.data[place.start - blob.start:][:place.length], place.offset)
        self._count("buffer", place.length)

    def _move(self, extent: Extent, place: Place) -> None:
        assert extent.file is not None  # noqa: S101 - else it went through a buffer
        offset = extent.offset + place.start - extent.start
        self.control.rate.take(place.length, self.control.stop)
        for way, start, length in self._ways(extent.file, offset, place):
            self._move_by(way, extent.file.fd, offset + start, place.fd, place.offset + start, length)

    def _ways(self, source: ImageFile, offset: int, place: Place) -> Iterator[tuple[str, int, int]]:
        """(way, offset in the piece, length): whole blocks are cloned where possible, the ends around them copied."""
        if self.share and "clone" not in self.refused and (offset - place.offset) % BLOCK == 0:
            lead = min(-offset % BLOCK, place.length)
            middle = (place.length - lead) // BLOCK * BLOCK
            yield from (way for way in (("kernel", 0, lead), ("clone", lead, middle),
                                        ("kernel", lead + middle, place.length - lead - middle)) if way[2])
        elif self.share or not storage.shares_on_copy(place.fd):
            yield "kernel", 0, place.length
        else:
            yield "buffer", 0, place.length

    def _move_by(self, way: str, source: int, offset: int, target: int, to: int, length: int) -> None:
        if way == "clone" and not self._clone(source, offset, target, to, length):
            way = "kernel"
        done = 0
        if way == "kernel" and "kernel" not in self.refused:
            done = self._copy_range(source, offset, target, to, length)
            self._count("kernel", done)
        if way != "clone" and done < length:
            self._copy_buffer(source, offset + done, target, to + done, length - done)
        if way == "clone":
            self._count("clone", length)

    def _clone(self, source: int, offset: int, target: int, to: int, length: int) -> bool:
        try:
            fcntl.ioctl(target, FICLONERANGE, _CLONE.pack(source, offset, length, to))
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
            self.refused.add("clone")
            return False
        return True

    def _copy_range(self, source: int, offset: int, target: int, to: int, length: int) -> int:
        """Bytes copied; fewer than ``length`` where the kernel cannot, or where the source ends."""
        done = 0
        while done < length:
            self.control.stop.check()
            try:
                count = os.copy_file_range(source, target, min(length - done, BATCH), offset + done, to + done)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                self.refused.add("kernel")
                return done
            if not count:
                return done
            done += count
        return done

    def _copy_buffer(self, source: int, offset: int, target: int, to: int, length: int) -> None:
        done = 0
        while done < length and (data := os.pread(source, min(READ, length - done), offset + done)):
            write_all(target, memoryview(data), to + done)
            done += len(data)
        self._count("buffer", done)


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """pwrite(2) until all is written."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
