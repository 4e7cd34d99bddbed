"""What a file really occupies on the storage: holes, unwritten and shared extents, and how to change that.

Sources: ioctl_fiemap (linux/fiemap.h), lseek(2) SEEK_DATA/SEEK_HOLE, fallocate(2), statfs(2). Offsets and lengths in bytes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from imgtool.errors import ImgtoolError, NoSpaceError

FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 1
FIEMAP_LAST = 0x1
FIEMAP_DELALLOC = 0x4
FIEMAP_UNWRITTEN = 0x800
FIEMAP_SHARED = 0x2000
_FIEMAP_HEAD = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")
_FIEMAP_COUNT = 512

FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
FALLOC_UNSHARE_RANGE = 0x40
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL)

BLKGETSIZE64 = 0x80081272
COPY_ON_WRITE = {0x9123683E: "btrfs", 0x2FC12FC1: "zfs", 0xCA451A4E: "bcachefs"}
"""f_type of file systems on which space that was reserved is not the space that a write takes."""

COPIES = {0xEF53: "ext4", 0x01021994: "tmpfs", 0x4D44: "vfat"}
"""f_type of file systems whose copy_file_range never shares blocks."""

ZEROS = bytes(1 << 20)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Piece(NamedTuple):
    """A range of a file. ``data`` is False for holes and for unwritten extents: it reads as zeros."""

    offset: int
    length: int
    data: bool


class Physical(NamedTuple):
    """An extent of a file as the file system has it."""

    offset: int
    physical: int
    length: int
    flags: int


def size_of(fd: int) -> int:
    """Length of a file or a block device."""
    status = os.fstat(fd)
    if stat.S_ISBLK(status.st_mode):
        buffer = bytearray(8)
        fcntl.ioctl(fd, BLKGETSIZE64, buffer)
        return int.from_bytes(buffer, "little")
    return status.st_size


def allocated_bytes(fd: int) -> int:
    """Bytes that a file occupies; a block device is all of it."""
    status = os.fstat(fd)
    return size_of(fd) if stat.S_ISBLK(status.st_mode) else status.st_blocks * 512


def pieces(fd: int, start: int, end: int) -> Iterator[Piece]:
    """Data and holes of [start, end), in order, complete. Past the end of the file is a hole."""
    position = start
    while position < end:
        try:
            data = min(os.lseek(fd, position, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a block device, or a file system that cannot tell
                yield Piece(position, end - position, data=True)
                return
            if error.errno != errno.ENXIO:
                raise
            data = end
        if data > position:
            yield Piece(position, data - position, data=False)
        if data < end:
            hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
            yield from _written(fd, data, hole)
            data = hole
        position = data


def _written(fd: int, start: int, end: int) -> Iterator[Piece]:
    """A run of data, as lseek says. Reserved space in the page cache (somebody has read it) is data to lseek; FIEMAP knows."""
    position = start
    try:
        for extent in physical_extents(fd, start, end):
            begin, stop = max(extent.offset, position), min(extent.offset + extent.length, end)
            if extent.flags & FIEMAP_UNWRITTEN and begin < stop:
                if begin > position:
                    yield Piece(position, begin - position, data=True)
                yield Piece(begin, stop - begin, data=False)
                position = stop
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    if position < end:
        yield Piece(position, end - position, data=True)


def physical_extents(fd: int, start: int, end: int) -> Iterator[Physical]:
    """What the file system has allocated in [start, end). Raises OSError (EOPNOTSUPP) where it cannot tell."""
    position = start
    while position < end:
        head = _FIEMAP_HEAD.pack(position, end - position, FIEMAP_FLAG_SYNC, 0, _FIEMAP_COUNT, 0)
        buffer = bytearray(head + bytes(_FIEMAP_EXTENT.size * _FIEMAP_COUNT))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        count = _FIEMAP_HEAD.unpack_from(buffer)[3]
        if not count:
            return
        for index in range(count):
            found = Physical(*_FIEMAP_EXTENT.unpack_from(buffer, _FIEMAP_HEAD.size + index * _FIEMAP_EXTENT.size))
            yield found
            position = found.offset + found.length
        if found.flags & FIEMAP_LAST:
            return


def reserved(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of [start, end) for which space is taken, whether written or not. All data where nobody can tell."""
    try:
        for extent in physical_extents(fd, start, end):
            begin, stop = max(extent.offset, start), min(extent.offset + extent.length, end)
            if begin < stop:
                yield begin, stop - begin
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        yield from ((piece.offset, piece.length) for piece in pieces(fd, start, end) if piece.data)


def _file_system(fd: int) -> int:
    """f_type of statfs(2)."""
    buffer = ctypes.create_string_buffer(256)
    return 0 if _libc.fstatfs(fd, buffer) else int.from_bytes(buffer.raw[:4], "little")


def copy_on_write(fd: int) -> str | None:
    """The name of the file system if it cannot reserve space for a later write."""
    return COPY_ON_WRITE.get(_file_system(fd))


def shares_on_copy(fd: int) -> bool:
    """Whether copy_file_range to this file might share blocks instead of copying them."""
    return _file_system(fd) not in COPIES


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """False where the file system cannot do it."""
    while _libc.fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code == errno.EOPNOTSUPP:
            return False
        raise_os(OSError(code, os.strerror(code)), f"reserving {length} bytes")
    return True


def reserve(fd: int, offset: int, length: int, *, keep_size: bool = False) -> bool:
    """Takes the space of a range; what is in it stays. False where the file system cannot. Raises NoSpaceError."""
    if length <= 0:
        return True
    return _fallocate(fd, FALLOC_KEEP_SIZE if keep_size else 0, offset, length)


def unshare(fd: int, offset: int, length: int) -> bool:
    """Gives a range blocks of its own where a clone shares them. False where the file system cannot, or never shares."""
    return length <= 0 or _fallocate(fd, FALLOC_UNSHARE_RANGE | FALLOC_KEEP_SIZE, offset, length)


def punch(fd: int, offset: int, length: int) -> bool:
    """Gives the space of a range back; it reads as zeros afterwards. False where the file system cannot."""
    return _fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)


def unwritten(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of a file that are no written extents: holes, and space that was only reserved."""
    position = 0
    try:
        for extent in physical_extents(fd, 0, size):
            if extent.flags & FIEMAP_UNWRITTEN:
                continue
            if extent.offset > position:
                yield position, extent.offset - position
            position = max(position, extent.offset + extent.length)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        yield from ((piece.offset, piece.length) for piece in pieces(fd, 0, size) if not piece.data)
        return
    if position < size:
        yield position, size - position


def free_space(directory: str) -> int:
    """Bytes that a user (root included, where he may) can still write there."""
    status = os.statvfs(directory)
    blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    return blocks * status.f_frsize


def may_share(directory: str) -> bool:
    """Whether files in a directory may share blocks."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return shares_on_copy(fd)
    finally:
        os.close(fd)


def raise_os(error: OSError, doing: str) -> NoReturn:
    """Turns an OSError of writing into ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise NoSpaceError(f"no space left: {doing}", "free some space, or choose another file system") from error
    if error.errno == errno.EFBIG:
        raise ImgtoolError(f"the file system cannot hold a file this large: {doing}",
                           "use XFS, or a format whose file stays small (qcow2)") from error
    raise ImgtoolError(f"{doing}: {error.strerror}") from error
