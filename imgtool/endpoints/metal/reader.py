"""A physical disk as something to read from: used blocks only, many requests on the way, changes of the source noticed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from imgtool.copying.receive import Receiver
from imgtool.endpoints.far.file import PIECE, data_of
from imgtool.endpoints.far.wire import FarError
from imgtool.endpoints.metal import disks, live, rescue
from imgtool.endpoints.metal.chunks import differing, fetch, in_threads
from imgtool.endpoints.metal.free import Map
from imgtool.endpoints.metal.nbd import BLOCK
from imgtool.endpoints.metal.packing import Packing
from imgtool.endpoints.metal.served import Readable
from imgtool.endpoints.ranges import Range, Ranges, pieces, spread
from imgtool.errors import ImgtoolError, RefusedError
from imgtool.files import file_name
from imgtool.journal import digest
from imgtool.model.metal import Pass, PhysicalDisk, Reading
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

HEAD, PART_HEAD = 1 << 20, 128 << 10
"""Of a disk and of each partition: superblocks of every file system that imgtool knows lie in there."""
SAMPLE, SEEN_SAMPLE = 48, 512
"""Chunks that are compared when a copy goes on: of any, and of those that hold the file systems' own tables."""


class MetalReader:
    """Conforms to ``endpoints.Reader``. ``fill`` does all that is to be done for a copy."""

    resumes = True
    disk = None

    def __init__(self, file: Readable, disk: PhysicalDisk, reading: Reading, *, packing: Packing,
                 mapped: Callable[[], Map], refresh: Callable[[], PhysicalDisk]) -> None:
        """``mapped`` finds what is free, of a disk at rest; ``refresh`` describes the disk as it is now."""
        self.file, self.physical, self.reading = file, disk, reading
        self.size = file.size
        self.bad = rescue.BadSectors(_map_path(reading.rescue, disk), file.size, file.sector) if reading.rescue else None
        self.state = self._state()
        self.warnings: list[str] = []
        self.passes: tuple[Pass, ...] = ()
        self.bytes_read = 0
        """Of the disk, by ``read``."""
        self.refresh = refresh
        self._packing, self._mapped = packing, mapped
        self._map: Map | None = None
        self._lock = threading.Lock()

    def _state(self) -> Mapping[str, object]:
        """Of a disk in use only what does not change with each write: its passes compare everything."""
        disk = self.physical
        found: dict[str, object] = {"disk": disk.identity or disk.path, "wwid": disk.wwid, "size": self.size,
                                    "partitions": [[part.start, part.size] for part in disk.partitions]}
        if not disk.busy:
            heads = [(0, HEAD), (self.size - HEAD, self.size),
                     *((part.start, part.start + PART_HEAD) for part in disk.partitions)]
            sums = blake2b(digest_size=16)
            for start, end in Ranges(heads).within(0, self.size):
                sums.update(self._head(start, end))
            found["heads"] = sums.hexdigest()
        return found

    def _head(self, start: int, end: int) -> bytes:
        try:
            return self.file.hash_of(start, end - start, [(start, end)])
        except FarError as error:
            if rescue.is_bad(error) and self.bad is not None:
                return b"unreadable"
            raise (self._bad_sector(start, end) if rescue.is_bad(error) else error) from error

    def holes(self) -> Iterable[Range]:
        return iter(self.map().free)

    def map(self) -> Map:
        """What is free, found once: of a disk in use as it is when the first pass begins."""
        if self._map is None:
            self._map = Map(Ranges(), {}) if self.reading.whole else self._mapped()
            self.warnings += self._map.warnings
        return self._map

    def read(self, wanted: Iterable[Range], sink: Sink, control: Control) -> None:
        """Raises UnreachableError, ImgtoolError (a sector that cannot be read), StoppedError."""
        todo, lock = pieces(wanted, PIECE), threading.Lock()

        def work(over: threading.Event) -> None:
            while not over.is_set():
                with lock:
                    piece = next(todo, None)
                if piece is None:
                    return
                control.stop.check()
                self._piece(*piece, sink, control)

        in_threads(work)

    def _piece(self, start: int, end: int, sink: Sink, control: Control) -> None:
        control.rate.take(end - start, control.stop)
        data = self._get(start, end)
        with self._lock:
            self.bytes_read += end - start
        if data is None:
            sink.zero(start, end - start)
        else:
            sink.write(start, memoryview(data))

    def _get(self, start: int, end: int) -> bytes | bytearray | None:
        asked = self._packing.codec
        try:
            data = data_of(self.file.ask_read(start, end - start, asked).result(), end - start)
        except FarError as error:
            if not rescue.is_bad(error):
                raise
            if self.bad is None:
                raise self._bad_sector(start, end) from error
            return self.bad.read(start, end, self.file.read)
        if data is not None:
            self._packing.came(len(data), asked)
        return data

    def _bad_sector(self, start: int, end: int) -> ImgtoolError:
        return rescue.bad_sector(self.physical.path, start, end, self.file.sector, self.file.read)

    def digest(self, start: int, end: int, used: list[Range]) -> bytes:
        """Of a range as the copy has it: with zeros for what is not in ``used``, and for bad sectors."""
        if not used:
            return digest_of_zeros(end - start)
        try:
            return self.file.hash_of(start, end - start, used)
        except FarError as error:
            if not rescue.is_bad(error):
                raise
        data = bytearray(end - start)  # ``_get`` knows what is to be done about bad sectors
        for low, high in pieces(used, PIECE):
            data[low - start:high - start] = self._get(low, high) or bytes(high - low)
        return digest(memoryview(data))

    def fill(self, receiver: Receiver, control: Control) -> None:
        """All that the copy misses; of a disk in use, until the copy is that of one moment.

        Raises RefusedError where the source has changed since the copy was begun.
        """
        if self.bad and not receiver.blocks.done:
            self.bad.clear()
        if self.physical.busy:
            self.passes = live.fill(self, receiver, control)
            return
        self._refuse_changed(receiver, control)
        with control.progress.bar(self.size, "read") as bar:
            bar.update(receiver.blocks.done)
            fetch(self, receiver, self.map().free, (number for number, _, _ in receiver.missing()), bar, control)
        receiver.save()
        self._refuse_touched(control)

    def _refuse_touched(self, control: Control) -> None:
        """Raises RefusedError where somebody has begun to use the disk while it was read."""
        disks.refuse_busy(self.refresh())
        if self._state() != self.state or not self.map().holds(self.file, control.stop):
            raise RefusedError(f"{self.physical.path} has changed while it was read", "--discard-partial removes the copy; keep "
                               "the disk out of use, or use --live")

    def _refuse_changed(self, receiver: Receiver, control: Control) -> None:
        """Compares chunks that a run before this one has read with what the disk has now.

        Those with the tables that the map was made from: whoever writes to a file system changes one of them. And some others.
        """
        blocks = receiver.blocks
        done = [number for number in range(blocks.chunks) if number in blocks]
        if not done:
            return
        tables = sorted({number * BLOCK // blocks.chunk for number in self.map().seen} & set(done))
        chosen = sorted({*spread(tables, SEEN_SAMPLE), *spread(done, SAMPLE)})
        for number in differing(self, receiver, self.map().free, chosen, control)[:1]:
            raise RefusedError(f"{self.physical.path} has changed since the copy was begun, in the {blocks.chunk >> 20} MiB from "
                               f"byte {number * blocks.chunk} on", "--discard-partial removes the copy, and it begins anew")


def _map_path(folder: str, disk: PhysicalDisk) -> str:
    """Names of the kernel may change with each start of the machine."""
    return os.path.join(folder, file_name(disk.identity or disk.name) + ".map")


@lru_cache(maxsize=4)
def digest_of_zeros(length: int) -> bytes:
    """Most chunks of a large disk are that."""
    return digest(bytes(length))
