"""Sends what was written to the disk while the copy goes on, and keeps a large result from driving everything else out of memory.

sync_file_range(2), posix_fadvise(2). Both are hints: the flush that counts is the fsync before the result gets its name.
"""

from __future__ import annotations

import os

from imgtool import storage

WINDOW = 64 << 20
"""Bytes between two hints."""


class Writeback:
    """``wrote`` after each piece of a target; called by one thread."""

    def __init__(self, data: int) -> None:
        self._evict = data > memory() // 2
        self._written: dict[int, tuple[int, int]] = {}

    def wrote(self, fd: int, offset: int, length: int) -> None:
        low, high = self._written.get(fd, (offset, offset))
        low, high = min(low, offset), max(high, offset + length)
        if high - low >= WINDOW:
            storage.begin_writeback(fd, low, high - low)
            if self._evict:
                os.posix_fadvise(fd, 0, low, os.POSIX_FADV_DONTNEED)
            low = high
        self._written[fd] = (low, high)


def memory() -> int:
    """Bytes of memory of this host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
