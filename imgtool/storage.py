"""What a file really occupies on the storage: holes, unwritten and shared extents, and how to change that.

Sources: ioctl_fiemap (linux/fiemap.h), lseek(2) SEEK_DATA/SEEK_HOLE, fallocate(2), statfs(2). Offsets and lengths in bytes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from imgtool.errors import ImgtoolError, NoSpaceError

FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 1
FIEMAP_LAST = 0x1
FIEMAP_UNWRITTEN = 0x800
FIEMAP_SHARED = 0x2000
FIEMAP_NOT_PLAIN = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | FIEMAP_UNWRITTEN
"""Unknown, delayed, encoded (compressed), encrypted, not aligned, inline."""
SYNC_FILE_RANGE_WRITE = 2
_FIEMAP_HEAD = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")

FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
FALLOC_UNSHARE = 0x40
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL)

BLKGETSIZE64 = 0x80081272
COPY_ON_WRITE = {0x9123683E: "btrfs", 0x2FC12FC1: "zfs", 0xCA451A4E: "bcachefs"}
"""f_type of file systems on which space that was reserved is not the space that a write takes."""

COPIES = {0xEF53: "ext4", 0x01021994: "tmpfs", 0x4D44: "vfat"}
"""f_type of file systems whose copy_file_range never shares blocks."""

IN_MEMORY = (0x01021994, 0x858458F6)
"""f_type of tmpfs and ramfs."""

OFFLOADS = (0x6969, 0xFF534D42, 0xFE534D42, 0x517B, 0x65735546, 0x00C36400)
"""f_type of NFS, CIFS, SMB, FUSE and Ceph: copy_file_range asks the server, which may copy by itself."""

ASKED = 64
"""Extents of a file that one question is for."""
SAMPLE = 64 << 10
"""Bytes that are asked about, to know whether a range of a file is in the page cache; a multiple of all pages."""

ZEROS = bytes(1 << 20)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_MAP_FAILED = ctypes.c_void_p(-1).value
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
    position, sure = start, start
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
            if hole > sure:
                sure = _written_until(fd, data, hole, end)
            yield from _written(fd, data, hole) if hole > sure else (Piece(data, hole - data, data=True),)
            data = hole
        position = data


def is_hole(fd: int, start: int, length: int) -> bool:
    """Whether a range of a file has no data at all, found without reading it. False where nobody can tell."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA) >= start + length
    except OSError as error:
        return error.errno == errno.ENXIO


def _written_until(fd: int, start: int, enough: int, end: int) -> int:
    """Up to where no space is only reserved, ``enough`` or more. Only a question: pages may wait to be written."""
    try:
        for index, extent in enumerate(physical_extents(fd, start, end, flush=False, count=ASKED), 1):
            if extent.flags & FIEMAP_UNWRITTEN:
                return max(extent.offset, start)
            if index % ASKED == 0 and extent.offset + extent.length >= enough:
                return extent.offset + extent.length
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    return end


def _written(fd: int, start: int, end: int) -> Iterator[Piece]:
    """A run of data for lseek: so is reserved space that somebody has read, as it is in the page cache. FIEMAP knows better."""
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


def physical_extents(fd: int, start: int, end: int, *, flush: bool = True, count: int = 512) -> Iterator[Physical]:
    """What the file system has allocated in [start, end), ``count`` extents a call. Raises OSError where it cannot tell."""
    position = start
    while position < end:
        head = _FIEMAP_HEAD.pack(position, end - position, FIEMAP_FLAG_SYNC if flush else 0, 0, count, 0)
        buffer = bytearray(head + bytes(_FIEMAP_EXTENT.size * count))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, buffer)
        got = _FIEMAP_HEAD.unpack_from(buffer)[3]
        if not got:
            return
        for index in range(got):
            found = Physical(*_FIEMAP_EXTENT.unpack_from(buffer, _FIEMAP_HEAD.size + index * _FIEMAP_EXTENT.size))
            yield found
            position = found.offset + found.length
        if found.flags & FIEMAP_LAST:
            return


def reserved(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of [start, end) for which space is taken, whether written or not; where nobody can tell, those with data."""
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


def offloads_copies(fd: int) -> bool:
    """Whether copy_file_range to this file may be done where the file is, without its bytes coming here."""
    return _file_system(fd) in OFFLOADS


def in_memory(fd: int) -> bool:
    """Whether a file has no storage but the page cache."""
    return _file_system(fd) in IN_MEMORY


def cached(fd: int, offset: int, length: int) -> bool:
    """Whether a range of a file is in the page cache, judged by its middle; True where nobody can tell. mincore(2).

    That is mapped, but never read by way of it: a file that is cut off meanwhile does no harm.
    """
    middle = (offset + length // 2) // SAMPLE * SAMPLE
    address = _libc.mmap(None, SAMPLE, mmap.PROT_READ, mmap.MAP_SHARED, fd, middle)
    if address == _MAP_FAILED:
        return True
    pages = ctypes.create_string_buffer(SAMPLE // mmap.PAGESIZE)
    told = _libc.mincore(address, SAMPLE, pages)
    _libc.munmap(address, SAMPLE)
    return bool(told) or 2 * pages.raw.count(1) >= len(pages)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """False where the file system cannot do it."""
    while _libc.fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code == errno.EOPNOTSUPP:
            return False
        doing = "punching a hole of" if mode & FALLOC_PUNCH_HOLE else "reserving"
        raise_os(OSError(code, os.strerror(code)), f"{doing} {length} bytes in {os.readlink(f'/proc/self/fd/{fd}')}")
    return True


def reserve(fd: int, offset: int, length: int, *, keep_size: bool = False) -> bool:
    """Takes the space of a range; what is in it stays. False where the file system cannot. Raises NoSpaceError."""
    if length <= 0:
        return True
    return _fallocate(fd, FALLOC_KEEP_SIZE if keep_size else 0, offset, length)


def reserve_rest(fd: int, size: int) -> bool:
    """Takes the space of all of a file that has none yet. As ``reserve``, but asks only for what is missing: XFS wants the whole
    range to be free for a moment, also where it is allocated already."""
    position, taken = 0, list(reserved(fd, 0, size))
    for offset, length in [*taken, (size, 0)]:
        if offset > position and not reserve(fd, position, offset - position):
            return False
        position = max(position, offset + length)
    return True


def shared(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of a file whose blocks belong to another file too. Nothing where nobody can tell."""
    try:
        for extent in physical_extents(fd, 0, size):
            if extent.flags & FIEMAP_SHARED:
                yield extent.offset, min(extent.length, size - extent.offset)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def unshare(fd: int, offset: int, length: int) -> bool:
    """Gives a range blocks of its own. False where the file system cannot (only XFS can). Raises NoSpaceError."""
    return _fallocate(fd, FALLOC_UNSHARE, offset, length)


def punch(fd: int, offset: int, length: int) -> bool:
    """Gives the space of a range back; it reads as zeros afterwards. False where the file system cannot."""
    return _fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length)


def begin_writeback(fd: int, offset: int, length: int) -> None:
    """Starts to write dirty pages to the disk, without waiting; a hint."""
    _libc.sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE)


def same_blocks(left: int, left_offset: int, right: int, right_offset: int, length: int) -> Iterator[tuple[int, int]]:
    """(begin, length), from 0 on: where two ranges of files have the very same blocks on the disk, and so the same bytes."""
    one, other = (_blocks(fd, offset, length) for fd, offset in ((left, left_offset), (right, right_offset)))
    a, b = next(one, None), next(other, None)
    while a is not None and b is not None:
        begin, end = max(a.offset, b.offset), min(a.offset + a.length, b.offset + b.length)
        if begin < end and a.physical - a.offset == b.physical - b.offset:
            yield begin, end - begin
        if a.offset + a.length <= b.offset + b.length:
            a = next(one, None)
        else:
            b = next(other, None)


def _blocks(fd: int, offset: int, length: int) -> Iterator[Physical]:
    """Shared extents of a range, cut to it, with offsets from 0 on; those whose place on the disk is no plain number left out."""
    try:
        for extent in physical_extents(fd, offset, offset + length):
            if extent.flags & FIEMAP_SHARED and not extent.flags & FIEMAP_NOT_PLAIN:
                lead = max(0, offset - extent.offset)
                begin, end = max(extent.offset, offset), min(extent.offset + extent.length, offset + length)
                yield Physical(begin - offset, extent.physical + lead, end - begin, extent.flags)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def read_into(fd: int, room: memoryview, offset: int) -> int:
    """Bytes read: fewer than asked for only where the file ends.

    preadv(2) alone also gives fewer where a bad block follows, and tells of that only when it is asked again.
    """
    done = os.preadv(fd, [room], offset)
    while done < len(room) and (count := os.preadv(fd, [room[done:]], offset + done)):
        done += count
    return done


def read(fd: int, length: int, offset: int) -> bytes:
    """As ``read_into``, in memory of its own."""
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """pwrite(2) until all is written: on a disk that is nearly full it writes a part, and only the next one fails."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count


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


def free_above(path: str) -> int:
    """As ``free_space``, where a folder that may not be there yet will be made."""
    place = os.path.abspath(path)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return free_space(place)


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
        raise ImgtoolError(f"the file system, or the limit of this shell, does not allow a file this large: {doing}",
                           "ulimit -f; else XFS, or a format whose file stays small (qcow2)") from error
    raise ImgtoolError(f"{doing}: {error.strerror}") from error
