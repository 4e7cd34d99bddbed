"""The MBR: four records, and logical partitions in a chain of extended boot records."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgtool.model.partitions import Entry, Table, TableKind

Read = Callable[[int, int], bytes]
RECORD = struct.Struct("<B3sB3sII")
AT, COUNT = 446, 4
MARK = b"\x55\xaa"
PROTECTIVE = 0xEE
EXTENDED = (0x05, 0x0F, 0x85)
LDM = 0x42
"""Windows' dynamic disks keep their database in the last mebibyte of the disk."""
FILE_SYSTEMS = ((3, b"NTFS    "), (3, b"EXFAT   "), (54, b"FAT12   "), (54, b"FAT16   "), (82, b"FAT32   "))
"""Boot sectors that end in 55 AA, too, but are no partition tables."""
MAX_LOGICAL = 128
LIMIT = 1 << 32
"""Sectors that a record can count."""
FAR = b"\xfe\xff\xff"
"""Cylinder, head, sector of what these cannot reach."""


@dataclass(frozen=True)
class Record:
    status: int
    type: int
    start: int
    """In sectors."""
    count: int


def records(boot: bytes) -> tuple[Record, ...] | None:
    """The four records, empty ones too; None where the first sector holds no table."""
    if boot[510:512] != MARK or any(boot[at:at + len(words)] == words for at, words in FILE_SYSTEMS):
        return None
    found = [RECORD.unpack_from(boot, AT + number * RECORD.size) for number in range(COUNT)]
    if any(status not in (0, 0x80) for status, *_ in found):
        return None
    all_ = tuple(Record(status, kind, start, count) for status, _, kind, _, start, count in found)
    return all_ if any(record.type and record.count for record in all_) else None


def table(read: Read, size: int, boot: bytes, found: tuple[Record, ...], sector: int) -> Table:
    entries = []
    damaged = None
    for number, record in enumerate(found, 1):
        if not record.type or not record.count:
            continue
        entries.append(_entry(number, record.type, record.start * sector, record.count * sector))
        if record.type in EXTENDED:
            try:
                entries += _logical(read, record.start, sector)
            except ValueError as error:
                damaged = str(error)
        if record.type == LDM:
            damaged = "it is a dynamic disk of Windows, whose database stands in the last mebibyte of the disk"
    if any(not entry.start for entry in entries):
        damaged = "a partition of it begins with the disk"
    return Table(kind=TableKind.MBR, sector=sector, size=size, entries=tuple(entries), boot_sector=boot, damaged=damaged)


def _entry(number: int, kind: int, start: int, size: int) -> Entry:
    return Entry(number=number, start=start, size=size, type=f"0x{kind:02x}")


def _logical(read: Read, base: int, sector: int) -> Iterator[Entry]:
    """The chain: the first record of each is a partition, the second the next link, counted from the extended partition."""
    at, number = base, 5
    seen: set[int] = set()
    while True:
        if at in seen or len(seen) >= MAX_LOGICAL:
            raise ValueError("its chain of logical partitions has no end")
        seen.add(at)
        data = bytes(read(at * sector, 512))
        if len(data) < 512 or data[510:512] != MARK:
            raise ValueError(f"its chain of logical partitions is broken at sector {at}")
        parts = [RECORD.unpack_from(data, AT + index * RECORD.size) for index in range(2)]
        _, _, kind, _, start, count = parts[0]
        if kind and count:
            yield _entry(number, kind, (at + start) * sector, count * sector)
            number += 1
        _, _, kind, _, start, count = parts[1]
        if kind not in EXTENDED or not count:
            return
        at = base + start


def resized(boot: bytes, number: int, count: int) -> bytes:
    """The boot sector with record ``number`` (from 1) made ``count`` sectors long."""
    at = AT + (number - 1) * RECORD.size
    status, begin, kind, _, start, _ = RECORD.unpack_from(boot, at)
    return boot[:at] + RECORD.pack(status, begin, kind, FAR, start, count) + boot[at + RECORD.size:]
