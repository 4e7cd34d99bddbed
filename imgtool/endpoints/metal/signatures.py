"""What is on a disk, from its first and last mebibyte: what must not be overwritten without a word.

Sources: include/lvm label of LVM2 (``LABELONE``), Documentation/admin-guide/md (superblocks 0.90, 1.0, 1.1, 1.2), LUKS on-disk
format, SNIA DDF 2.0, UEFI 2.10 chapter 5 (GPT), the ext4, XFS and btrfs layouts of the kernel's documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SEEN = 1 << 20
"""Bytes that are looked at, at either end."""
MD_MAGIC = bytes.fromhex("fc4e2ba9")
"""0xa92b4efc, little endian."""


class Signature(NamedTuple):
    name: str
    offset: int
    """On the disk."""
    member: bool
    """The disk belongs to a RAID, a volume group or a pool: only ``--wipe`` may write over that."""


class _Mark(NamedTuple):
    name: str
    magic: bytes
    offsets: tuple[int, ...]
    member: bool


FROM_START = (
    _Mark("LVM2 physical volume", b"LABELONE", (0, 512, 1024, 1536), member=True),
    _Mark("Linux RAID (1.1)", MD_MAGIC, (0,), member=True),
    _Mark("Linux RAID (1.2)", MD_MAGIC, (4096,), member=True),
    _Mark("LUKS", b"LUKS\xba\xbe", (0,), member=False),
    _Mark("GPT", b"EFI PART", (512, 4096), member=False),
    _Mark("MBR", b"\x55\xaa", (510,), member=False),
    _Mark("XFS", b"XFSB", (0,), member=False),
    _Mark("btrfs", b"_BHRfS_M", (65536 + 64,), member=False),
    _Mark("ext2/3/4", b"\x53\xef", (1024 + 56,), member=False),
    _Mark("bcache", bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), (4096 + 24,), member=True),
    _Mark("ZFS", bytes.fromhex("0cb1ba0000000000"), tuple(range(128 << 10, 256 << 10, 1024)), member=True),
)
FROM_END = (
    _Mark("Linux RAID (1.0)", MD_MAGIC, (8192, 12288), member=True),
    _Mark("Intel RAID (IMSM)", b"Intel Raid ISM Cfg Sig. ", (1024,), member=True),
    _Mark("DDF RAID", bytes.fromhex("de11de11"), (512,), member=True),
    _Mark("backup GPT", b"EFI PART", (512, 4096), member=False),
)
MD_RESERVED = 64 << 10
"""Superblock 0.90 stands at the last multiple of this that leaves as much behind it."""


def signatures(head: bytes, tail: bytes, size: int) -> Iterator[Signature]:
    """``head`` and ``tail``: the first and the last bytes of the disk (1 MiB, or all of it), ``size`` its bytes."""
    for mark in FROM_START:
        yield from (Signature(mark.name, offset, mark.member) for offset in mark.offsets
                    if head[offset:offset + len(mark.magic)] == mark.magic)
    begin = size - len(tail)
    for mark in FROM_END:
        yield from (Signature(mark.name, size - back, mark.member) for back in mark.offsets
                    if begin <= size - back and tail[len(tail) - back:][:len(mark.magic)] == mark.magic)
    old = size // MD_RESERVED * MD_RESERVED - MD_RESERVED
    if old >= begin and tail[old - begin:][:4] == MD_MAGIC:
        yield Signature("Linux RAID (0.90)", old, member=True)
