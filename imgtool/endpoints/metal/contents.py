"""What is on a physical disk, by its first and last bytes and those of its partitions: shown before it is gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgtool.endpoints.metal.signatures import SEEN, signatures
from imgtool.model.metal import PhysicalDisk
from imgtool.model.partitions import Table
from imgtool.partitions import read_table

Read = Callable[[int, int], bytes | bytearray]
PART_SEEN = 264 << 10
"""Bytes of a partition that are looked at, at either end: the last label of ZFS is the farthest of all that is known."""
MOST = 128
"""Partitions."""
TABLES = ("MBR", "GPT", "backup GPT")


@dataclass(frozen=True, kw_only=True)
class Contents:
    lines: tuple[str, ...]
    members: tuple[str, ...]
    """Signatures of RAID, LVM, ZFS, bcache: only ``--wipe`` may write over them."""


def contents(read: Read, disk: PhysicalDisk) -> Contents:
    """Raises what ``read`` raises."""
    def plain(offset: int, length: int) -> bytes:
        length = min(length, disk.size - offset)
        return bytes(read(offset, length)) if offset >= 0 and length > 0 else b""

    table = read_table(plain, disk.size, disk.sector)
    parts = _partitions(table, disk)
    lines, members = [], []
    if parts:
        lines.append(f"{table.kind.value.upper()} with {len(parts)} partition{'' if len(parts) == 1 else 's'}")
    for name, start, size in [("", 0, disk.size), *parts]:
        most = SEEN if not name else PART_SEEN
        head, tail = plain(start, min(most, size)), plain(start + max(0, size - most), min(most, size))
        found = [one for one in signatures(head, tail, size) if not (parts and one.name in TABLES)]
        members += [f"{one.name} on {name or disk.path}" for one in found if one.member]
        what = ", ".join(dict.fromkeys([*(one.name for one in found if not name or one.name not in TABLES), *_label(head)]))
        if name or what:
            lines.append(f"{name or disk.path}: {size} bytes" + (f", {what}" if what else ""))
    return Contents(lines=tuple(lines), members=tuple(dict.fromkeys(members)))


def _partitions(table: Table, disk: PhysicalDisk) -> list[tuple[str, int, int]]:
    """What the table says, and what the kernel knows beside that."""
    between = "p" if disk.name[-1:].isdigit() else ""
    said = {(entry.start, entry.size): f"{disk.name}{between}{entry.number}" + (f" ({entry.name})" if entry.name else "")
            for entry in table.entries if entry.size > 0 and entry.end <= disk.size}
    for part in disk.partitions:
        said.setdefault((part.start, part.size), part.name)
    return [(name, start, size) for (start, size), name in sorted(said.items())[:MOST]]


def _label(head: bytes) -> Iterator[str]:
    """The labels of file systems: ext (superblock at 1024), XFS, btrfs, FAT, NTFS by name only."""
    raw = b""
    if head[1080:1082] == b"\x53\xef":
        raw = head[1024 + 120:1024 + 136]
    elif head[:4] == b"XFSB":
        raw = head[108:120]
    elif head[65600:65608] == b"_BHRfS_M":
        raw = head[65536 + 0x12b:65536 + 0x12b + 256]
    elif head[510:512] == b"\x55\xaa" and b"FAT" in (head[82:85], head[54:57]):
        yield "FAT"
        raw = head[71:82] if head[82:85] == b"FAT" else head[43:54]  # FAT32; FAT12, FAT16
        raw = b"" if raw == b"NO NAME    " else raw
    elif head[3:11] == b"NTFS    ":
        yield "NTFS"
    if head[4086:4096] == b"SWAPSPACE2":
        yield "swap"
        raw = head[1052:1068]
    text = re.sub(r"[^\x20-\x7e]", "?", raw.split(b"\0")[0].decode("latin-1")).strip()
    if text:
        yield f"label {text}"
