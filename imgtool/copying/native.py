"""Copies into an image that imgtool writes itself, range by range, the cheapest way that the range allows.

clone   FICLONERANGE shares the blocks: thin targets on the same file system with reflinks
kernel  copy_file_range(2): the bytes stay in the kernel; short ranges, and all where a server may copy by itself
direct  read and written in large pieces past the page cache: long ranges
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
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from imgtool import storage
from imgtool.copying.batches import BATCH, batches
from imgtool.copying.direct import PIECE, Direct, Scratch
from imgtool.copying.pool import UNPACKING, WAITING, WORKERS, Turns, ordered
from imgtool.copying.writeback import Writeback
from imgtool.copying.zeros import data_runs
from imgtool.formats.disk import Disk
from imgtool.formats.measure import data_length, work
from imgtool.formats.target import Place, Target
from imgtool.model import CopyStats, Extent, Kind
from imgtool.progress import Control, estimated

FICLONERANGE = 0x4020940D
_CLONE = struct.Struct("=qQQQ")
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.ETXTBSY, errno.EPERM)
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)
BLOCK = 4096
"""What a clone must be aligned to, on the file systems that can: their block, at least this."""
CLONED = 256 << 20
"""Bytes of one piece of work where blocks are shared."""
LONG = 64 << 20
"""Bytes of a range from which on its space is taken before it is written: on ext4, one thread at a time may write into holes."""
WAYS = ("clone", "kernel", "direct", "buffer")
READ = 512 << 10
"""Bytes of one read and write: they stay in the processor's cache between the two."""


class Blob(NamedTuple):
    """Guest bytes from ``start`` on; ``runs`` are (offset in ``data``, length) of what shall be written of them."""

    start: int
    data: memoryview
    runs: list[tuple[int, int]]


Run = list[Extent]
"""Neighbours that are copied as they are, from wherever they lie."""
Item = Run | Extent | Blob
"""An extent by itself is zeros."""
Move = tuple[int, int, Place]
"""What is copied as it is: file and offset in the source, and where to."""
SCRATCH, PLAIN = Scratch(), Scratch()
"""For what must be decoded or looked through, a batch of it; for what only passes through, piece by piece."""


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
    direct: Direct = field(default_factory=Direct)

    def _count(self, way: str, count: int) -> None:
        with self.lock:
            self.moved[way] += count

    def run(self) -> CopyStats:
        """Raises NoSpaceError, DamagedError, StoppedError."""
        back, turns = Writeback(self.disk.virtual_size if self.direct.writes else 0), Turns()
        numbered = enumerate(batches(self._told(self.disk.content()), self._batch()))
        progress = estimated(self.control.progress, lambda: work(self.disk), "convert")
        at_once = self._workers()
        with closing(self.direct), ThreadPoolExecutor(at_once) as pool, progress as bar:
            try:
                for (_, batch), places in ordered(pool, lambda one: self._copy(*one, turns), numbered, 2 * at_once):
                    self.control.stop.check()
                    for place in places:
                        back.wrote(place.fd, place.offset, place.length)
                    bar.update(data_length(batch))
            except OSError as error:
                storage.raise_os(error, f"writing {self.target.members[-1]}")
        ways = Counter({way: self.moved[way] for way in WAYS})
        return CopyStats(
            engine=ways.most_common(1)[0][0] if ways.total() else "kernel", bytes_read=self.moved["read"],
            bytes_written=ways.total() - ways["clone"], bytes_cloned=ways["clone"],
            detected_zeroes=bool(self.moved["loaded"]) and self._leaves_zeros_out())

    def _workers(self) -> int:
        """Sharing blocks is work of the processor, unpacking half of it."""
        looks = self.detect or any(layer.compressed for layer in self.disk.layers)
        return WORKERS if self.clones else UNPACKING if looks else WAITING

    def _told(self, extents: Iterator[Extent]) -> Iterator[Extent]:
        """The target hears of long ranges that will be written past the page cache: it may take their space at once."""
        waits = self.direct.writes and not self.clones and not self.whole
        for extent in extents:
            if waits and extent.kind == Kind.DATA and extent.length >= LONG and not self._needs_buffer(extent):
                self.target.expect(extent.start, extent.length)
            yield extent

    def _batch(self) -> int:
        """Bytes of one piece of work: handing 4 MiB over takes longer than sharing them."""
        return CLONED if self.clones and not self.detect and not self.control.rate.limit else BATCH

    def _copy(self, number: int, batch: list[Extent], turns: Turns) -> list[Place]:
        """All of one batch, by one worker: what it unpacks is written while it is still in the processor's cache.

        Gives the places that were written: blocks that are shared are on the disk already.
        """
        try:
            items = self._load(batch)
            turns.wait(number)  # places are given batch after batch
            placed = [(item, list(self._places(item))) for item in items]
        finally:
            turns.over(number)
        written: list[Place] = []
        for item, places in placed:
            if isinstance(item, Blob):
                for place in places:
                    self.control.stop.check()
                    self._write(item, place)
                written += places
        for move in _joined(_moves(placed)):
            self.control.stop.check()
            written += self._move(*move)
        self._count("read", data_length(batch))
        return written

    def _load(self, batch: list[Extent]) -> list[Item]:
        """The same ranges, in order; neighbours that must pass through a buffer as one piece of bytes."""
        items: list[Item] = []
        room = SCRATCH.room(sum(extent.length for extent in batch if self._needs_buffer(extent)))
        for needs_buffer, group in groupby(batch, key=self._needs_buffer):
            if needs_buffer:
                blob = self._blob(list(group), room)
                items.append(blob)
                room = room[len(blob.data):]
            else:
                items += self._as_they_are(group)
        return items

    def _as_they_are(self, extents: Iterable[Extent]) -> Iterator[Run | Extent]:
        if self.clones and not self.whole and self.target.window:
            extents = _as_they_lie(extents, self.target.window)
        return _runs(extents)

    def _needs_buffer(self, extent: Extent) -> bool:
        return extent.kind == Kind.DATA and (extent.file is None or bool(extent.coded) or bool(self.detect))

    def _leaves_zeros_out(self) -> bool:
        return self.detect is not False

    def _blob(self, extents: list[Extent], room: memoryview) -> Blob:
        """The bytes of neighbours, at the beginning of ``room``."""
        length = 0
        for extent in extents:
            self.control.rate.take(extent.length, self.control.stop)
            self.disk.read_into(extent, room[length:][:extent.length], self.direct.read)
            length += extent.length
        self._count("loaded", length)
        data = room[:length]
        return Blob(extents[0].start, data, list(data_runs(data)) if self._leaves_zeros_out() else [(0, length)])

    def _places(self, item: Item) -> Iterator[Place]:
        """Where to write. Ranges of zeros have a place in a whole image, too, and read as zeros already."""
        if isinstance(item, Blob):
            if self.whole:
                yield from self._parts(item, self.target.place(item.start, len(item.data)))
            else:
                for at, length in item.runs:
                    yield from self.target.place(item.start + at, length)
        elif isinstance(item, list):
            yield from self.target.place(item[0].start, item[-1].end - item[0].start)
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
        self.direct.write(place.fd, blob.data[place.start - blob.start:][:place.length], place.offset)
        self._count("buffer", place.length)

    def _move(self, source: int, offset: int, place: Place) -> Iterator[Place]:
        """Copies; gives what was not shared."""
        self.control.rate.take(place.length, self.control.stop)
        ahead = offset - place.start  # of the guest's offsets, in the source
        for part in self._parts_to_clone(place, (offset - place.offset) % BLOCK):
            if not self._move_part(source, ahead + part.start, part):
                yield part

    def _parts_to_clone(self, place: Place, apart: int) -> Iterator[Place]:
        """Whole blocks by themselves, where they may be cloned: the ends around them are copied."""
        lead = min(-place.offset % BLOCK, place.length)
        middle = (place.length - lead) // BLOCK * BLOCK
        if apart or not self._clones() or not middle:
            yield place
            return
        for begin, length in ((0, lead), (lead, middle), (lead + middle, place.length - lead - middle)):
            if length:
                yield Place(place.start + begin, length, place.fd, place.offset + begin)

    def _clones(self) -> bool:
        return self.share and "clone" not in self.refused

    def _move_part(self, source: int, offset: int, place: Place) -> bool:
        """All of ``place``, from ``offset`` of the source on, the cheapest way; what one refuses, the next one does.

        Whether its blocks are shared.
        """
        whole = not (offset % BLOCK or place.offset % BLOCK or place.length % BLOCK)
        if whole and self._clones() and self._clone(source, offset, place):
            self._count("clone", place.length)
            return True
        if self.direct.takes(place.fd, place.length) and not storage.offloads_copies(place.fd):
            self._count("direct", self._copy_direct(source, offset, place))
        elif self.share or not storage.shares_on_copy(place.fd):
            done = self._copy_range(source, offset, place)
            self._count("kernel", done)
            self._count("buffer", self._copy_buffer(source, offset, place, done))
        else:
            self._count("buffer", self._copy_buffer(source, offset, place, 0))
        return False

    def _clone(self, source: int, offset: int, place: Place) -> bool:
        try:
            fcntl.ioctl(place.fd, FICLONERANGE, _CLONE.pack(source, offset, place.length, place.offset))
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
            self.refused.add("clone")
            return False
        return True

    def _copy_direct(self, source: int, offset: int, place: Place) -> int:
        """Bytes copied; fewer than there is place for where the source ends."""
        done = 0
        while done < place.length:
            self.control.stop.check()
            to = place.offset + done
            length = min(place.length, (to + PIECE) // BLOCK * BLOCK - place.offset) - done  # cut between blocks
            room = PLAIN.room(PIECE + BLOCK)[to % BLOCK:][:length]  # blocks of the file are blocks of the memory
            count = self.direct.read(source, room, offset + done)
            self.direct.write(place.fd, room[:count], to)
            done += count
            if count < length:
                break
        return done

    def _copy_range(self, source: int, offset: int, place: Place) -> int:
        """Bytes copied; fewer than there is place for where the kernel cannot, or where the source ends."""
        done = 0
        while done < place.length and "kernel" not in self.refused:
            self.control.stop.check()
            try:
                count = os.copy_file_range(source, place.fd, min(place.length - done, BATCH), offset + done, place.offset + done)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                self.refused.add("kernel")
                break
            if not count:
                break
            done += count
        return done

    def _copy_buffer(self, source: int, offset: int, place: Place, done: int) -> int:
        """Bytes copied, from the first ``done`` on."""
        began = done
        while done < place.length and (data := os.pread(source, min(READ, place.length - done), offset + done)):
            storage.write_all(place.fd, data, place.offset + done)
            done += len(data)
        return done - began


def _as_they_lie(extents: Iterable[Extent], window: int) -> list[Extent]:
    """The data of each window in the order of the source's file: what lies together there will do so in both, and is shared at
    once. A program that wrote clusters in any order has left thousands of ranges otherwise.
    """
    data = [part for extent in extents if extent.kind == Kind.DATA for part in _windows(extent, window)]
    return sorted(data, key=lambda part: (part.start // window, part.file.fd if part.file else -1, part.offset))


def _windows(extent: Extent, window: int) -> Iterator[Extent]:
    """The same range, cut where a window ends."""
    while (edge := (extent.start // window + 1) * window) < extent.end:
        yield extent.part(extent.start, edge)
        extent = extent.part(edge, extent.end)
    yield extent


def _runs(extents: Iterable[Extent]) -> Iterator[Run | Extent]:
    """Neighbours with data together: they are placed at once."""
    run: Run = []
    for extent in extents:
        if run and (extent.kind != Kind.DATA or extent.start != run[-1].end):
            yield run
            run = []
        if extent.kind == Kind.DATA:
            run.append(extent)
        else:
            yield extent
    if run:
        yield run


def _moves(placed: list[tuple[Item, list[Place]]]) -> Iterator[Move]:
    """Each place of each run, cut where another extent begins."""
    for run, places in placed:
        if not isinstance(run, list):
            continue
        extents = iter(run)
        extent = next(extents)
        for start, length, fd, to in places:
            done = 0
            while done < length:
                assert extent.file is not None  # noqa: S101 - others pass through a buffer
                count = min(length - done, extent.end - start - done)
                yield extent.file.fd, extent.offset + start + done - extent.start, Place(start + done, count, fd, to + done)
                done += count
                if start + done == extent.end:
                    extent = next(extents, extent)


def _joined(moves: Iterator[Move]) -> Iterator[Move]:
    """Neighbours in both files as one, though the guest has a hole between them: ``start`` means the first of them."""
    held = next(moves, None)
    if held is None:
        return
    source, offset, place = held
    length = place.length
    for move in moves:
        if (source, offset + length, place.fd, place.offset + length) == (move[0], move[1], move[2].fd, move[2].offset):
            length += move[2].length
            continue
        yield source, offset, place._replace(length=length)
        source, offset, place = move
        length = place.length
    yield source, offset, place._replace(length=length)
