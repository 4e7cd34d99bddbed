"""What is in a partition, and whether it can live on a disk with larger sectors than it was made on.

Sources: the ext4, XFS, btrfs and swap layouts of the kernel's documentation and headers; fat(5) of the FAT specification (BPB).
The kernel mounts no file system whose own sectors or blocks are smaller than the disk's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

Read = Callable[[int, int], bytes]
SWAP_MAGIC = b"SWAPSPACE2"
HEAD = 68 << 10


def obstacle(read: Read, start: int, size: int, sector: int) -> str | None:
    """Why what stands at ``start`` cannot be used with sectors of ``sector`` bytes; None: it can, that is known."""
    data = bytes(read(start, min(size, HEAD))).ljust(HEAD, b"\0")
    if not any(data):
        return None
    for known in (_ext, _xfs, _btrfs, _swap, _fat):
        found = known(data)
        if found is not None:
            name, unit = found
            return None if unit >= sector else f"{name} with sectors or blocks of {unit} bytes"
    return "something that is not known to work with larger sectors"


def _ext(data: bytes) -> tuple[str, int] | None:
    if data[1080:1082] != b"\x53\xef":
        return None
    return "ext2/3/4", 1024 << min(int.from_bytes(data[1048:1052], "little"), 16)


def _xfs(data: bytes) -> tuple[str, int] | None:
    """Block size and sector size: the log is written in sectors."""
    if data[:4] != b"XFSB":
        return None
    return "XFS", min(int.from_bytes(data[4:8], "big"), int.from_bytes(data[102:104], "big"))


def _btrfs(data: bytes) -> tuple[str, int] | None:
    at = 64 << 10
    if data[at + 64:at + 72] != b"_BHRfS_M":
        return None
    return "btrfs", int.from_bytes(data[at + 0x90:at + 0x94], "little")


def _swap(data: bytes) -> tuple[str, int] | None:
    return ("swap", 4096) if data[4086:4096] == SWAP_MAGIC else None


def _fat(data: bytes) -> tuple[str, int] | None:
    if data[510:512] != b"\x55\xaa" or (data[54:57] != b"FAT" and data[82:85] != b"FAT"):
        return None
    return "FAT", int(struct.unpack_from("<H", data, 11)[0])
