"""A disk that arrives in chunks, in any order, by several threads, over days if need be: from a network, or a physical disk.

It is written straight into what it shall be (raw, or qcow2 with its metadata last), under the name ``NAME.imgtool-partial``; its
block map says what is there. After a stop the same call goes on with what is missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from imgtool import files, storage
from imgtool.copying.native import write_all
from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.zeros import data_runs
from imgtool.errors import DifferError, RefusedError, UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.qcow2.late import Layout, layout, write_metadata
from imgtool.journal import PARTIAL, BlockMap, block_map, digest
from imgtool.model import ImageSpec
from imgtool.progress import Control

CHUNK = 4 << 20
"""Bytes that are fetched, hashed and remembered at once. A multiple of all clusters."""
SAVE_BYTES, SAVE_SECONDS = 512 << 20, 10.0
"""The map is saved after so much has come, or after so long: what is lost by a crash."""
FORMATS = ("raw", "qcow2")


class Receiver:
    """The copy in the making. ``take`` may be called by threads."""

    def __init__(self, fd: int, blocks: BlockMap, plan: Layout | None) -> None:
        self.blocks = blocks
        self._fd, self._plan = fd, plan
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
        try:
            for offset, length in data_runs(data):
                self._hole(start + at, offset - at)
                write_all(self._fd, data[offset:offset + length], start + offset)
                written, at = written + length, offset + length
            self._hole(start + at, len(data) - at)
        except OSError as error:
            storage.raise_os(error, "writing the copy")
        self.blocks.mark(number, digest(data), zero=not written)
        self._save_sometimes(len(data))
        return written

    def take_zeros(self, number: int) -> None:
        """A chunk that is known to be zeros, without its bytes."""
        length = min(self.blocks.chunk, self.blocks.size - number * self.blocks.chunk)
        self._hole(self._base + number * self.blocks.chunk, length)
        self.blocks.mark(number, digest(bytes(length)), zero=True)
        self._save_sometimes(0)

    def _hole(self, offset: int, length: int) -> None:
        """What a run that was cut short may have left there must go."""
        if length and not storage.is_hole(self._fd, offset, length):
            storage.punch(self._fd, offset, length)

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
        self.blocks.save(lambda: os.fdatasync(self._fd))

    def close_up(self) -> None:
        """All is there: the file becomes an image. Flushed."""
        left = next(self.missing(), None)
        if left:
            raise RefusedError(f"the copy is not whole: chunk {left[0]} is missing")
        if self._plan:
            write_metadata(self._fd, self._plan, self._data(self._plan))
        os.fsync(self._fd)
        self.blocks.save(lambda: None)

    def _data(self, plan: Layout) -> Iterator[tuple[int, int]]:
        end = plan.data_at + plan.size
        for piece in storage.pieces(self._fd, plan.data_at, end):
            if piece.data:
                yield piece.offset - plan.data_at, min(piece.offset + piece.length, end) - plan.data_at


@contextmanager
def receiving(path: str, *, size: int, spec: ImageSpec, source: Mapping[str, object]) -> Iterator[Receiver]:
    """The copy that shall become ``path``, begun or gone on with. What is there is kept when the block fails.

    ``source``: what tells this disk, in this state, from any other. Raises RefusedError (another source, or another imgtool
    works on it), UsageError.
    """
    if spec.format not in FORMATS:
        raise UsageError(f"a copy that can go on after a stop is raw or qcow2, not {spec.format}", "convert it afterwards")
    plan = layout(size, spec) if spec.format == "qcow2" else None
    with block_map(path + PARTIAL + ".map", size=size, chunk=CHUNK, source={**source, "format": spec.format}) as blocks:
        fd = os.open(path + PARTIAL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < size:  # the first time
                os.ftruncate(fd, (plan.data_at if plan else 0) + size)
            receiver = Receiver(fd, blocks, plan)
            try:
                yield receiver
            except BaseException:
                with suppress(OSError):
                    receiver.save()
                raise
        finally:
            os.close(fd)


def publish(path: str, *, replace: bool) -> None:
    """The whole copy gets its name; the map goes. Raises RefusedError where the name is taken."""
    os.chmod(path + PARTIAL, 0o666 & ~_umask())
    files.rename(path + PARTIAL, path, replace=replace)
    with suppress(FileNotFoundError):
        os.unlink(path + PARTIAL + ".map")
    files.sync(os.path.dirname(path) or ".")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def discard(path: str) -> bool:
    """``--discard-partial``: removes what a stopped copy left. True if there was something."""
    found = False
    for name in (path + PARTIAL, path + PARTIAL + ".map"):
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
