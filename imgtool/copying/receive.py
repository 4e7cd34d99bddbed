"""A disk that arrives in chunks, in any order, by several threads, over days if need be: from a network, or a physical disk.

It is written straight into what it shall be (raw, or qcow2 with its metadata last), under the name ``NAME.imgtool-partial``; its
block map says what is there. After a stop the same call goes on with what is missing. The file may lie on another machine: a
``Medium`` writes it, the block map stays here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Protocol

from imgtool import files, storage
from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.zeros import data_runs
from imgtool.errors import DifferError, ImgtoolError, RefusedError, UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.qcow2.late import Layout, end_of, layout, metadata
from imgtool.journal import PARTIAL, BlockMap, block_map, digest
from imgtool.model import ImageSpec
from imgtool.progress import Bar, Control

CHUNK = 4 << 20
"""Bytes that are fetched, hashed and remembered at once. A multiple of all clusters."""
SAVE_BYTES, SAVE_SECONDS = 512 << 20, 10.0
"""The map is saved after so much has come, or after so long: what is lost by a crash."""
FORMATS = ("raw", "qcow2")
MAP, WHOLE = ".map", ".whole"
"""Behind ``NAME.imgtool-partial``: its block map; the same when the copy is whole."""


class Medium(Protocol):
    """The file of a copy. Threads may call at the same time; offsets are the file's. Raises NoSpaceError, ImgtoolError."""

    def write(self, offset: int, data: memoryview | bytes) -> None: ...

    def hole(self, offset: int, length: int) -> None:
        """The range reads as zeros afterwards, and takes no space where that can be."""

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges that may hold something."""

    def truncate(self, size: int) -> None: ...

    def flush(self) -> None:
        """What was written is on the disk."""


class LocalFile:
    """A medium: an open file of this machine."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, offset: int, data: memoryview | bytes) -> None:
        try:
            storage.write_all(self._fd, data, offset)
        except OSError as error:
            storage.raise_os(error, "writing the copy")

    def hole(self, offset: int, length: int) -> None:
        """What a run that was cut short may have left there must go."""
        if length and not storage.is_hole(self._fd, offset, length) and not storage.punch(self._fd, offset, length):
            for at in range(offset, offset + length, len(storage.ZEROS)):  # only where something is: the copy stays thin
                for begin, count in data_runs(storage.read(self._fd, min(len(storage.ZEROS), offset + length - at), at)):
                    self.write(at + begin, storage.ZEROS[:count])

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for piece in storage.pieces(self._fd, start, end):
            if piece.data:
                yield piece.offset, min(piece.offset + piece.length, end)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def flush(self) -> None:
        os.fsync(self._fd)


class Receiver:
    """The copy in the making. ``take`` may be called by threads."""

    def __init__(self, medium: Medium, blocks: BlockMap, plan: Layout | None) -> None:
        self.blocks, self.medium = blocks, medium
        self._plan = plan
        self._base = plan.data_at if plan else 0
        self._unsaved = 0
        self._saved_at = time.monotonic()
        self._lock, self._saving = threading.Lock(), threading.Lock()

    def missing(self) -> Iterator[tuple[int, int, int]]:
        """(chunk, offset, length) of what is still to come."""
        return self.blocks.missing()

    def take(self, number: int, data: memoryview) -> int:
        """A whole chunk. Gives the bytes that were written; zeros become holes. Raises NoSpaceError."""
        start = self._base + number * self.blocks.chunk
        written = at = 0
        for offset, length in data_runs(data):
            self.medium.hole(start + at, offset - at)
            self.medium.write(start + offset, data[offset:offset + length])
            written, at = written + length, offset + length
        self.medium.hole(start + at, len(data) - at)
        self.blocks.mark(number, digest(data), zero=not written)
        self._save_sometimes(len(data))
        return written

    def take_zeros(self, number: int) -> None:
        """A chunk that is known to be zeros, without its bytes."""
        length = min(self.blocks.chunk, self.blocks.size - number * self.blocks.chunk)
        self.medium.hole(self._base + number * self.blocks.chunk, length)
        self.blocks.mark(number, _digest_of_zeros(length), zero=True)
        self._save_sometimes(0)

    def _save_sometimes(self, count: int) -> None:
        with self._lock:
            self._unsaved += count
            if self._unsaved < SAVE_BYTES and time.monotonic() - self._saved_at < SAVE_SECONDS:
                return
            self._unsaved, self._saved_at = 0, time.monotonic()
        with self._saving:  # the other threads go on
            self.save()

    def save(self) -> None:
        """What has come until now will not be fetched again, whatever happens. Raises NoSpaceError."""
        self.blocks.save(self.medium.flush)

    def close_up(self) -> None:
        """All is there: the file becomes an image. Flushed."""
        left = next(self.missing(), None)
        if left:
            raise RefusedError(f"the copy is not whole: chunk {left[0]} is missing")
        if self._plan:
            self._write_metadata(self._plan)
        self.save()

    def _write_metadata(self, plan: Layout) -> None:
        """The header only after a flush of the rest: a copy that has one is whole."""
        base = plan.data_at
        ranges = [(start - base, end - base) for start, end in self.medium.data(base, base + plan.size)]
        for offset, piece in metadata(plan, ranges):
            if not offset:
                self.medium.truncate(end_of(plan, ranges[-1][1] if ranges else 0))
                self.medium.flush()
            self.medium.write(offset, piece)


@cache
def _digest_of_zeros(length: int) -> bytes:
    return digest(bytes(length))


class Chunks:
    """A sink that puts pieces together to whole chunks, which a receiver takes. Threads may call at the same time.

    A piece does not cross a chunk's end, and no byte comes twice.
    """

    def __init__(self, receiver: Receiver, bar: Bar) -> None:
        self._receiver, self._bar = receiver, bar
        self._open: dict[int, tuple[bytearray, list[int]]] = {}
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        """``data`` is valid until this returns."""
        chunk = self._receiver.blocks.chunk
        number, at = divmod(offset, chunk)
        length = min(chunk, self._receiver.blocks.size - number * chunk)
        with self._lock:
            buffer, left = self._open.setdefault(number, (bytearray(length), [length]))
        buffer[at:at + len(data)] = data
        self._arrived(number, left, len(data))

    def zero(self, offset: int, length: int) -> None:
        """A range of zeros, of any length."""
        chunk, size = self._receiver.blocks.chunk, self._receiver.blocks.size
        while length:
            number, at = divmod(offset, chunk)
            whole = min(chunk, size - number * chunk)
            part = min(length, whole - at)
            if part == whole:
                self._receiver.take_zeros(number)
                self._bar.update(part)
            else:
                with self._lock:
                    _, left = self._open.setdefault(number, (bytearray(whole), [whole]))
                self._arrived(number, left, part)
            offset, length = offset + part, length - part

    def _arrived(self, number: int, left: list[int], count: int) -> None:
        with self._lock:
            left[0] -= count
            buffer = self._open.pop(number)[0] if not left[0] else None
        if buffer is not None:
            self._receiver.take(number, memoryview(buffer))
        self._bar.update(count)


@contextmanager
def receiving(path: str, *, size: int, spec: ImageSpec, source: Mapping[str, object]) -> Iterator[Receiver]:
    """The copy that shall become ``path``, begun or gone on with. What is there is kept when the block fails.

    ``source``: what tells this disk, in this state, from any other. Raises RefusedError (another source, another imgtool works
    on it, or the file is gone that the map speaks of), UsageError.
    """
    plan = _layout(size, spec)
    with _map(path + PARTIAL + MAP, size, spec, source) as blocks:
        fd = os.open(path + PARTIAL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            there = os.fstat(fd).st_size
            if not there and blocks.done:
                raise RefusedError(f"{path + PARTIAL} is gone or empty, but its block map is there: what the map records is lost",
                                   "--discard-partial removes it, and the copy begins anew")
            if there < size:  # the first time
                os.ftruncate(fd, file_size(size, spec))
            with _kept(Receiver(LocalFile(fd), blocks, plan)) as receiver:
                yield receiver
        finally:
            os.close(fd)


@contextmanager
def receiving_by(medium: Medium, map_path: str, *, size: int, spec: ImageSpec,
                 source: Mapping[str, object]) -> Iterator[Receiver]:
    """As ``receiving``, into a file that is there already, at least ``file_size`` long: of another machine, or a block device.

    Where what it held is gone, ``map_path`` must be gone, too: the map is believed.
    """
    plan = _layout(size, spec)
    with _map(map_path, size, spec, source) as blocks, _kept(Receiver(medium, blocks, plan)) as receiver:
        yield receiver


def file_size(size: int, spec: ImageSpec) -> int:
    """Bytes of the file of a disk of ``size`` bytes while it is received."""
    plan = _layout(size, spec)
    return (plan.data_at if plan else 0) + size


def _layout(size: int, spec: ImageSpec) -> Layout | None:
    if spec.format not in FORMATS:
        raise UsageError(f"a copy that can go on after a stop is raw or qcow2, not {spec.format}", "convert it afterwards")
    return layout(size, spec) if spec.format == "qcow2" else None


def _map(path: str, size: int, spec: ImageSpec, source: Mapping[str, object]) -> AbstractContextManager[BlockMap]:
    return block_map(path, size=size, chunk=CHUNK, source={**source, "format": spec.format})


@contextmanager
def _kept(receiver: Receiver) -> Iterator[Receiver]:
    """What has come is kept when the block fails."""
    try:
        yield receiver
    except BaseException:
        with suppress(OSError, ImgtoolError):
            receiver.save()
        raise


def settle(path: str) -> None:
    """The copy is whole and compared: from now on its bytes may change, and no run looks for missing chunks again."""
    os.rename(path + PARTIAL + MAP, path + PARTIAL + WHOLE)
    files.sync(os.path.dirname(path) or ".")


def settled(path: str, *, size: int, spec: ImageSpec, source: Mapping[str, object]) -> bool:
    """Whether a run before has ``settle``\\ d this copy. Raises RefusedError where it is one of another source."""
    mark = path + PARTIAL + WHOLE
    if not os.path.lexists(mark):
        return False
    with _map(mark, size, spec, source):
        return os.path.lexists(path + PARTIAL) or os.path.lexists(path)


def settle_foreign(path: str, *, size: int, spec: ImageSpec, source: Mapping[str, object]) -> None:
    """As ``settle``, for a copy at ``NAME.imgtool-partial`` that was made, and compared, in another way."""
    with _map(path + PARTIAL + WHOLE, size, spec, source):
        files.sync(os.path.dirname(path) or ".")


def is_whole(path: str) -> bool:
    """Whether a run that was stopped has settled the copy, which may have its name already."""
    return os.path.lexists(path + PARTIAL + WHOLE)


def is_ours(path: str) -> bool:
    """Whether the disk at ``path`` was published by a run that was then stopped."""
    return is_whole(path) and not os.path.lexists(path + PARTIAL)


def publish(path: str) -> None:
    """The settled copy gets its name; ``forget`` ends it. Raises RefusedError where the name is another's."""
    if is_ours(path):
        return
    os.chmod(path + PARTIAL, 0o666 & ~_umask())
    files.rename(path + PARTIAL, path, replace=False)
    files.sync(os.path.dirname(path) or ".")


def withdraw(path: str) -> None:
    """The reverse of ``publish``, where it was done: the machine could not be made."""
    if is_ours(path) and os.path.lexists(path):
        os.rename(path, path + PARTIAL)


def forget(path: str) -> None:
    """All that the copy was for is done: nothing but the disk itself stays."""
    with suppress(FileNotFoundError):
        os.unlink(path + PARTIAL + WHOLE)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def discard(path: str) -> bool:
    """``--discard-partial``: removes what a stopped copy left. True if there was something."""
    found = False
    for name in (path + PARTIAL, path + PARTIAL + MAP, path + PARTIAL + WHOLE):
        with suppress(FileNotFoundError):
            os.unlink(name)
            found = True
    return found


def check(disk: Disk, blocks: BlockMap, control: Control, *, what: str = "verify") -> None:
    """Reads the copy back and compares it with what came, chunk by chunk. Raises DifferError."""
    with ThreadPoolExecutor(WORKERS) as pool, control.progress.bar(blocks.size, what) as bar:
        for number, same in ordered(pool, lambda number: _same(disk, blocks, number), _watched(range(blocks.chunks), control)):
            if not same:
                raise DifferError(f"{disk.top.path} differs from what was read, in the {blocks.chunk >> 20} MiB from byte "
                                  f"{number * blocks.chunk} on", "the storage may be failing: keep the source")
            bar.update(min(blocks.chunk, blocks.size - number * blocks.chunk))


def _watched(numbers: Iterable[int], control: Control) -> Iterator[int]:
    for number in numbers:
        control.stop.check()
        yield number


def _same(disk: Disk, blocks: BlockMap, number: int) -> bool:
    start = number * blocks.chunk
    end = min(start + blocks.chunk, blocks.size)
    data = bytearray(end - start)
    empty = True
    for extent in disk.content(start, end):
        if extent.kind.name == "DATA":
            data[extent.start - start:extent.end - start] = disk.read(extent)
            empty = False
    return empty if blocks.is_zero(number) and empty else digest(memoryview(data)) == blocks.digest_of(number)
