"""Large ranges of files, read and written past the page cache: O_DIRECT, open(2).

What is written once and not read again soon costs the page cache twice: its memory, and the time to fill and flush it. Only
whole blocks go past it; the ends of a range go through it. So no page ever holds bytes of both ways, and the kernel keeps the
two in step: a direct write first flushes what the cache has of its range, then drops it. Where a file system refuses, a range
goes through the page cache as ever.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from contextlib import suppress

from imgtool import storage
from imgtool.copying.buffers import buffer

BLOCK = max(4096, mmap.PAGESIZE)
"""What direct ranges are multiples of, in files and in memory: no device asks for more than its sector, of 4096 bytes at most."""
WORTH = 1 << 20
"""Bytes from which on a range goes past the page cache: each is waited for."""
PIECE = 2 << 20
"""Bytes that are read or written at once."""


class Direct:
    """Second descriptors of files, that go past the page cache; opened when first asked for. May be used by threads.

    ``writes``: what is written is not read again soon.
    """

    def __init__(self, *, writes: bool = True) -> None:
        self.writes = writes
        self._opened: dict[tuple[int, int], int | None] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        for fd in self._opened.values():
            if fd is not None:
                os.close(fd)
        self._opened.clear()

    def takes(self, fd: int, length: int) -> bool:
        """Whether it is worth the while to write ``length`` bytes of this file so."""
        return self.writes and length >= WORTH and self._second(fd, os.O_WRONLY) is not None

    def write(self, fd: int, data: memoryview, offset: int) -> None:
        """All of ``data``; its whole blocks directly, if there are enough of them. They should be whole blocks of memory, too."""
        lead = min(-offset % BLOCK, len(data))
        whole = (len(data) - lead) // BLOCK * BLOCK
        if not self.takes(fd, whole):
            storage.write_all(fd, data, offset)
            return
        storage.write_all(fd, data[:lead], offset)
        done = lead + self._write_whole(fd, data[lead:lead + whole], offset + lead)
        storage.write_all(fd, data[done:], offset + done)

    def _write_whole(self, fd: int, data: memoryview, offset: int) -> int:
        """Bytes written; fewer where the file system does not want them so."""
        second, done = self._second(fd, os.O_WRONLY), 0
        assert second is not None  # noqa: S101 - it takes them
        while done < len(data):
            try:
                done += os.pwrite(second, data[done:done + PIECE], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break
        return done

    def reads(self, fd: int, offset: int, length: int) -> bool:
        """Whether it is worth the while to read a range of this file so: what is in the page cache comes from there."""
        return length >= WORTH and not storage.cached(fd, offset, length) and self._second(fd, os.O_RDONLY) is not None

    def read(self, fd: int, room: memoryview, offset: int) -> int:
        """Bytes read: fewer than asked for only where the file ends. Whole blocks come directly, where that is worth it."""
        done, whole = 0, len(room) // BLOCK * BLOCK
        if not offset % BLOCK and self.reads(fd, offset, whole):
            second = self._second(fd, os.O_RDONLY)
            with suppress(OSError):  # of whatever kind: the other way can, or says it again
                done = os.preadv(second, [room[:whole]], offset) if second is not None else 0
        return done + storage.read_into(fd, room[done:], offset + done) if done < len(room) else done

    def _second(self, fd: int, mode: int) -> int | None:
        with self._lock:
            if (fd, mode) not in self._opened:
                self._opened[fd, mode] = _open(fd, mode)
            return self._opened[fd, mode]


def _open(fd: int, mode: int) -> int | None:
    """None where there is no such way, or nothing to gain by it."""
    if storage.in_memory(fd):
        return None
    mode |= fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NOATIME
    try:
        return os.open(f"/proc/self/fd/{fd}", mode | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


class Scratch(threading.local):
    """A buffer a thread, in whole pages, used again and again: fresh memory each time would cost as much as filling it."""

    def __init__(self) -> None:
        self._buffer = buffer(PIECE + BLOCK)

    def room(self, size: int) -> memoryview:
        """``size`` bytes; what was there before is gone."""
        if len(self._buffer) < size:
            self._buffer = buffer(size)
        return memoryview(self._buffer).cast("B")[:size]
