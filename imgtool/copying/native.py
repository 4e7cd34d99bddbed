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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from imgtool import storage
from imgtool.copying.batches import batches
from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.writeback import Writeback
from imgtool.copying.zeros import data_runs
from imgtool.formats.disk import Disk
from imgtool.formats.target import Place, Target
from imgtool.model import CopyStats, Extent, ImageFile, Kind
from imgtool.progress import Bar, Control

FICLONERANGE = 0x4020940D
_CLONE = struct.Struct("=qQQQ")
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.ETXTBSY, errno.EPERM)
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)
BLOCK = 4096
"""What a clone must be aligned to, on the file systems that can: their block, at least this."""
READ = 512 << 10
"""Bytes of one read and write: they stay in the processor's cache between the two."""

Job = Callable[[], Place]


class Blob(NamedTuple):
    """Guest bytes from ``start`` on; ``runs`` are (offset in ``data``, length) of what shall be written of them."""

    start: int
    data: bytes
    runs: list[tuple[int, int]]


@dataclass(frozen=True)
class Copier:
    """One copy. ``whole``: every range of the target gets space; ``share``: blocks may be shared with the source."""

    disk: Disk
    target: Target
    control: Control
    whole: bool
    share: bool
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
        back = Writeback(self.disk.virtual_size)
        with ThreadPoolExecutor(WORKERS) as pool, self.control.progress.bar(self.disk.virtual_size, "convert") as bar:
            try:
                for _, place in ordered(pool, lambda job: job(), self._jobs(pool, bar)):
                    self.control.stop.check()
                    back.wrote(place.fd, place.offset, place.length)
            except OSError as error:
                storage.raise_os(error, f"writing {self.target.members[-1]}")
        ways = Counter({way: self.moved[way] for way in ("clone", "kernel", "buffer")})
        return CopyStats(
            engine=ways.most_common(1)[0][0] if ways.total() else "kernel", bytes_read=self.moved["read"],
            bytes_written=ways["kernel"] + ways["buffer"], bytes_cloned=ways["clone"],
            detected_zeroes=bool(self.moved["loaded"]) and self._leaves_zeros_out())

    def _jobs(self, pool: ThreadPoolExecutor, bar: Bar) -> Iterator[Job]:
        """The pieces of work. Places are asked for here, in the order of the disk; the jobs may run in any order."""
        for batch, items in ordered(pool, self._load, batches(self.disk.content())):
            self.control.stop.check()
            for item in items:
                if isinstance(item, Blob):
                    self._count("loaded", len(item.data))
                    yield from self._write_jobs(item)
                elif item.kind == Kind.DATA:
                    yield from self._move_jobs(item)
                elif self.whole:
                    for _ in self.target.place(item.start, item.length):
                        pass
            self._count("read", sum(extent.length for extent in batch if extent.kind == Kind.DATA))
            bar.update(sum(extent.length for extent in batch))

    def _load(self, batch: list[Extent]) -> list[Extent | Blob]:
        """The same ranges, in order; neighbours that must pass through a buffer as one piece of bytes."""
        items: list[Extent | Blob] = []
        for needs_buffer, group in groupby(batch, key=self._needs_buffer):
            if needs_buffer:
                items.append(self._blob(list(group)))
            else:
                items += group
        return items

    def _needs_buffer(self, extent: Extent) -> bool:
        return extent.kind == Kind.DATA and (extent.file is None or bool(extent.coded) or bool(self.detect))

    def _leaves_zeros_out(self) -> bool:
        return self.detect is not False

    def _blob(self, extents: list[Extent]) -> Blob:
        self.control.rate.take(sum(extent.length for extent in extents), self.control.stop)
        data = b"".join([self.disk.read(extent) for extent in extents])
        return Blob(extents[0].start, data, list(data_runs(data)) if self._leaves_zeros_out() else [(0, len(data))])

    def _write_jobs(self, blob: Blob) -> Iterator[Job]:
        data = memoryview(blob.data)
        if not self.whole:
            for at, length in blob.runs:
                for place in self.target.place(blob.start + at, length):
                    yield self._write_job(place, data[place.start - blob.start:][:place.length])
            return
        for place in self.target.place(blob.start, len(data)):  # zeros have their place, too; it reads as zeros already
            low, high = place.start - blob.start, place.start - blob.start + place.length
            for at, length in blob.runs:
                begin, end = max(low, at), min(high, at + length)
                if begin < end:
                    part = Place(blob.start + begin, end - begin, place.fd, place.offset + begin - low)
                    yield self._write_job(part, data[begin:end])

    def _write_job(self, place: Place, data: memoryview) -> Job:
        def job() -> Place:
            write_all(place.fd, data, place.offset)
            self._count("buffer", len(data))
            return place

        return job

    def _move_jobs(self, extent: Extent) -> Iterator[Job]:
        assert extent.file is not None  # noqa: S101 - else it went through a buffer
        for place in self.target.place(extent.start, extent.length):
            yield self._move_job(extent.file, extent.offset + place.start - extent.start, place)

    def _move_job(self, source: ImageFile, offset: int, place: Place) -> Job:
        def job() -> Place:
            self.control.rate.take(place.length, self.control.stop)
            for way, start, length in self._ways(source, offset, place):
                self._move(way, source.fd, offset + start, place.fd, place.offset + start, length)
            return place

        return job

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

    def _move(self, way: str, source: int, offset: int, target: int, to: int, length: int) -> None:
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
            try:
                count = os.copy_file_range(source, target, length - done, offset + done, to + done)
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
