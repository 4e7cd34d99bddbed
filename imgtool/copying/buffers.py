"""Memory that bytes pass through: in pages, used again and again, its address known to C."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress

LARGE_PAGE = 2 << 20
"""Bytes of memory from which on the processor may have one page for them; on others it is no use, and no harm."""

Buffer = ctypes.Array[ctypes.c_char]

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def buffer(size: int) -> Buffer:
    """Whole pages of memory, whose address C knows; large ones where there are any: a request to a disk then has few parts."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= LARGE_PAGE:
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return (ctypes.c_char * size).from_buffer(pages)


def same_bytes(left: bytes | Buffer, right: bytes | Buffer, length: int) -> bool:
    """memcmp(3) of the first ``length`` bytes, without the interpreter's lock; both have as many."""
    return not _memcmp(left, right, length)
