"""One physical disk written, so that it can go on after any stop, and a half-written one cannot boot.

::

    1  the places of the boot sectors, the table and the backup GPT become zeros     (each run begins with that)
    2  the chunks that the block map lacks, in pieces of 4 MiB                       (flushed, then remembered)
    3  the backup GPT; flush; the first MiB; flush
    4  the kernel reads the table; all is read back, past the cache, and compared
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.receive import CHUNK, Receiver, receiving_by
from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.ranges import Ranges
from imgtool.errors import DifferError, ImgtoolError, NoSpaceError, RefusedError, UnreachableError
from imgtool.formats.disk import Disk
from imgtool.formats.patched import reader
from imgtool.journal import BlockMap
from imgtool.model import ImageSpec, Kind
from imgtool.model.metal import PhysicalDisk
from imgtool.model.partitions import Fit
from imgtool.model.v2p import WrittenDisk
from imgtool.progress import Control

HEAD = 1 << 20
"""Bytes at the beginning of a disk that are written last."""
SAMPLES = 64
"""Chunks that are looked at before a stopped copy goes on."""
TOGETHER = 8
"""Chunks that are hashed in one call."""
LARGEST_DISCARD = 1 << 30
Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is written where."""

    source: str
    device: str
    disk: PhysicalDisk
    content: Disk
    """As long as the physical disk."""
    held: int
    """Bytes from the beginning that the image speaks of; behind them only what it has as data."""
    fit: Fit
    map_path: str
    state: Mapping[str, object]
    """What tells these bytes, and this disk, from any others."""
    wipe: bool = False
    verify: bool = True

    @property
    def late(self) -> tuple[Range, ...]:
        """What is written last, in the reverse order."""
        size = self.disk.size
        head = (0, min(HEAD, size))
        low, high = self.fit.backup or (size, size)
        return (head, (max(low, head[1]), high)) if max(low, head[1]) < high else (head,)


class Guarded:
    """A medium that leaves out what is written last. Zeros may go there at any time. Counts."""

    def __init__(self, file: FarFile, late: Sequence[Range]) -> None:
        self._file, self._late = file, late
        self.written = self.zeroed = 0
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview | bytes) -> None:
        view = memoryview(data)
        for low, high in _outside((offset, offset + len(view)), self._late):
            self._file.write(low, view[low - offset:high - offset])
            self._count(written=high - low)

    def hole(self, offset: int, length: int) -> None:
        self._file.hole(offset, length)
        self._count(zeroed=length)

    def _count(self, *, written: int = 0, zeroed: int = 0) -> None:
        with self._lock:
            self.written += written
            self.zeroed += zeroed

    def finish(self, offset: int, data: bytes) -> None:
        """A part that was left out."""
        self._file.write(offset, data)
        self._count(written=len(data))

    def data(self, start: int, end: int) -> Iterator[Range]:
        yield start, end

    def truncate(self, size: int) -> None:
        """A disk is as long as it is."""

    def flush(self) -> None:
        self._file.flush()


def _outside(whole: Range, ranges: Sequence[Range]) -> Iterator[Range]:
    at, end = whole
    for low, high in sorted(ranges):
        if at < min(low, end):
            yield at, min(low, end)
        at = max(at, high)
    if at < end:
        yield at, end


def begun(path: str) -> bool:
    """A run that was stopped has left a block map."""
    return os.path.exists(path)


def write(work: Work, file: FarFile, control: Control) -> WrittenDisk:
    """Raises RefusedError (something else is on the disk than was written before the stop), DifferError, NoSpaceError,
    UnreachableError, ImgtoolError."""
    medium = Guarded(file, work.late)
    notes = list(work.fit.notes)
    with receiving_by(medium, work.map_path, size=work.disk.size, spec=ImageSpec(format="raw"), source=work.state) as receiver:
        resumed = receiver.blocks.done
        _check_before(work, file, receiver.blocks)
        for low, high in work.late:
            medium.hole(low, high - low)
        medium.flush()
        _copy(work, receiver, file, control)
        receiver.save()
        for low, high in reversed(work.late):
            medium.finish(low, reader(work.content)(low, high - low))
            medium.flush()
        notes += _reread(file)
        if work.verify:
            _verify(work, file, receiver.blocks, control)
    return WrittenDisk(source=work.source, device=work.device, serial=work.disk.serial, size=work.disk.size,
                       bytes_written=medium.written, bytes_zeroed=medium.zeroed, bytes_resumed=resumed, notes=tuple(notes),
                       verified=work.verify)


def _check_before(work: Work, file: FarFile, blocks: BlockMap) -> None:
    """Some of the chunks that a stopped run has written: are they there?"""
    done = [number for number in range(blocks.chunks) if number in blocks and not _is_late(work, number)]
    for number in sorted(random.sample(done, min(SAMPLES, len(done)))):
        start = number * blocks.chunk
        if file.hashes(start, min(blocks.chunk, blocks.size - start), blocks.chunk) != [blocks.digest_of(number)]:
            raise RefusedError(f"{work.device} was written to since the run that was stopped, at byte {start} or after it",
                               "is it the right disk? --discard-partial lets the copy begin anew")


def _is_late(work: Work, number: int) -> bool:
    start, end = number * CHUNK, (number + 1) * CHUNK
    return any(low < end and start < high for low, high in work.late)


def _copy(work: Work, receiver: Receiver, file: FarFile, control: Control) -> None:
    plan = [(number, start, length) for number, start, length in receiver.missing()]
    read = reader(work.content)

    def one(item: tuple[int, int, int]) -> int:
        number, start, length = item
        control.stop.check()
        control.rate.take(length, control.stop)
        if _has_data(work.content, start, start + length):
            receiver.take(number, memoryview(read(start, length)))
        else:
            receiver.take_zeros(number)
        return length

    spare = _spare(work)
    free = [(start, start + length) for _, start, length in plan if not [*spare.outside(start, start + length)]]
    _discard(work, file, _joined(free), control)
    skipped = {start for start, _ in free}
    wanted = [item for item in plan if item[1] not in skipped]
    with ThreadPoolExecutor(WORKERS) as pool, control.progress.bar(sum(item[2] for item in wanted), "write") as bar:
        for _, length in ordered(pool, one, wanted):
            bar.update(length)


def _has_data(disk: Disk, start: int, end: int) -> bool:
    return any(extent.kind == Kind.DATA for extent in disk.content(start, end))


def _spare(work: Work) -> Ranges:
    """Behind the image, and nobody has put anything there; not the end of the disk, where old superblocks would be found."""
    end = work.disk.size - 1
    if work.wipe or work.held >= end:
        return Ranges()
    return Ranges((extent.start, min(extent.end, end)) for extent in work.content.extents(work.held, work.disk.size)
                  if extent.kind == Kind.UNALLOCATED)


def _discard(work: Work, file: FarFile, free: Sequence[Range], control: Control) -> None:
    """What the image does not have: the disk is told that it is unused. What it reads as then does not matter."""
    for start, end in free if work.disk.discards else ():
        control.stop.check()
        try:
            file.discard(start, end - start)
        except (UnreachableError, NoSpaceError):
            raise
        except ImgtoolError:  # a hint that it did not take
            return


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """Neighbours together, up to 1 GiB."""
    found: list[Range] = []
    for start, end in ranges:
        if found and found[-1][1] == start and end - found[-1][0] <= LARGEST_DISCARD:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _reread(file: FarFile) -> Iterator[str]:
    try:
        file.reread()
    except UnreachableError:
        raise
    except ImgtoolError as error:
        yield f"the kernel did not take the new partition table ({error.message}): it will by partprobe, or at the next start"


def _verify(work: Work, file: FarFile, blocks: BlockMap, control: Control) -> None:
    """All that was written or zeroed, in this run and before, by what is on the disk."""
    there = [number for number in range(blocks.chunks) if number in blocks]
    groups = [[there[0]]] if there else []
    for number in there[1:]:
        if number == groups[-1][-1] + 1 and len(groups[-1]) < TOGETHER:
            groups[-1].append(number)
        else:
            groups.append([number])

    def different(group: list[int]) -> int | None:
        control.stop.check()
        start, end = group[0] * blocks.chunk, min((group[-1] + 1) * blocks.chunk, blocks.size)
        found = file.hashes(start, end - start, blocks.chunk)
        return next((number for number, sum_ in zip(group, found, strict=True) if sum_ != blocks.digest_of(number)), None)

    with ThreadPoolExecutor(WORKERS) as pool, control.progress.bar(len(there) * blocks.chunk, "verify") as bar:
        for group, wrong in ordered(pool, different, groups):
            if wrong is not None:
                raise DifferError(f"{work.device} reads back other bytes than were written, in the {blocks.chunk >> 20} MiB "
                                  f"from byte {wrong * blocks.chunk} on", "the disk may be failing, do not trust it")
            bar.update(len(group) * blocks.chunk)
