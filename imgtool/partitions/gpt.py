"""The GUID partition table: header, array of entries, and a copy of both at the end of the disk."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from imgtool.model.partitions import Entry, GptHeader, Patch, Table, TableKind
from imgtool.partitions import mbr

Read = Callable[[int, int], bytes]
SIGNATURE = b"EFI PART"
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
"""Signature, revision, size, CRC, zero, own LBA, the other's, first and last usable, disk, array's LBA, count, size, its CRC."""
ENTRY = struct.Struct("<16s16sQQQ72s")
LARGEST_ARRAY = 1 << 20
MAX_SECTORS = 1 << 55
"""Larger numbers are nonsense, and would not be bytes of a disk."""


def table(read: Read, size: int, boot: bytes, records: tuple[mbr.Record, ...], sectors: Iterable[int]) -> Table:
    """A disk whose MBR is protective."""
    hybrid = sum(bool(record.type and record.count) for record in records) > 1
    sectors = tuple(sectors)
    for backup in (False, True):
        for sector in sectors:
            header = _header(read, size, sector, backup=backup)
            if header is None:
                continue
            warnings = ("the primary GPT is damaged: its backup is used",) if backup else ()
            found = Table(kind=TableKind.GPT, sector=sector, size=size, entries=tuple(entries(header)), boot_sector=boot,
                          gpt=header, hybrid=hybrid, warnings=warnings)
            return replace(found, damaged=_impossible(found))
    return Table(kind=TableKind.GPT, sector=sectors[0], size=size, boot_sector=boot, hybrid=hybrid,
                 damaged="neither of its two copies is sound")


def _header(read: Read, size: int, sector: int, *, backup: bool) -> GptHeader | None:
    """None where it is not there, or is not believed."""
    lba = size // sector - 1 if backup else 1
    data = bytes(read(lba * sector, sector))
    if len(data) < HEADER.size or data[:8] != SIGNATURE:
        return None
    _, _, length, crc, _, own, other, first, last, _, array_lba, count, each, array_crc = HEADER.unpack_from(data)
    if not HEADER.size <= length <= sector or crc != _crc(data[:length]) or own != lba:
        return None
    if each < ENTRY.size or each & (each - 1) or not 0 < count * each <= LARGEST_ARRAY:
        return None
    if max(other, first, last, array_lba) > MAX_SECTORS:
        return None
    array = bytes(read(array_lba * sector, count * each))
    if len(array) != count * each or zlib.crc32(array) != array_crc:
        return None
    return GptHeader(sector=sector, lba=lba, array_lba=array_lba, first_usable=first, entry_size=each, array=array,
                     raw=data[:length])


def _crc(header: bytes) -> int:
    return zlib.crc32(header[:16] + bytes(4) + header[20:])


def entries(header: GptHeader) -> Iterator[Entry]:
    """Those in use. A hostile one may end before it begins: see ``_impossible``."""
    for number in range(len(header.array) // header.entry_size):
        kind, _, first, last, _, name = ENTRY.unpack_from(header.array, number * header.entry_size)
        if any(kind):
            yield Entry(number=number + 1, start=first * header.sector, size=(last + 1 - first) * header.sector,
                        type=str(uuid.UUID(bytes_le=kind)).upper(),
                        name="".join(char for char in name.decode("utf-16-le", "replace").split("\0")[0] if char.isprintable()))


def _impossible(found: Table) -> str | None:
    """Why a table must not be written anew: partitions that overlap, or lie outside of the disk or in the table."""
    assert found.gpt is not None  # noqa: S101 - the caller has it
    free = found.sector * 2 + len(found.gpt.array) if found.gpt.lba != 1 else \
        max(found.sector * 2, found.gpt.array_lba * found.sector + len(found.gpt.array))
    for entry in sorted(found.entries, key=lambda one: one.start):
        if entry.size <= 0 or entry.end > found.size:
            return f"its partition {entry.number} lies outside of the disk"
        if entry.start < free:
            return f"its partition {entry.number} overlaps another, or the table"
        free = entry.end
    return None


def array_sectors(header: GptHeader, sector: int) -> int:
    return -(-len(header.array) // sector)


def backup_bytes(header: GptHeader, sector: int) -> int:
    """What the copy at the end of the disk takes."""
    return (array_sectors(header, sector) + 1) * sector


def moved(header: GptHeader, sector: int, found: Iterable[Entry]) -> GptHeader:
    """The entries with these places (the others as they are), counted in sectors of this size.

    An array that lies where partitions may be (without one it can lie behind the end of the new disk) is put at its usual place.
    """
    array = bytearray(header.array)
    for entry in found:
        at = (entry.number - 1) * header.entry_size
        kind, unique, _, _, flags, name = ENTRY.unpack_from(array, at)
        ENTRY.pack_into(array, at, kind, unique, entry.start // sector, entry.end // sector - 1, flags, name)
    same = sector == header.sector and header.lba == 1 and \
        header.array_lba * sector + len(array) <= header.first_usable * sector
    room = -(-len(array) // sector)
    return replace(header, sector=sector, lba=1, array=bytes(array), array_lba=header.array_lba if same else 2,
                   first_usable=header.first_usable if same else max(2 + room, _scaled(header, sector)))


def _scaled(header: GptHeader, sector: int) -> int:
    """The first usable sector, at the same place where that is a sector's begin."""
    place = header.first_usable * header.sector
    return place // sector if header.sector < sector and not place % sector else 0


def patches(header: GptHeader, size: int) -> Iterator[Patch]:
    """Both copies for a disk of ``size`` bytes; the backup first."""
    sector = header.sector
    last = size // sector - 1
    back = last - array_sectors(header, sector)
    yield Patch(back * sector, header.array.ljust((last - back) * sector, b"\0"))
    yield Patch(last * sector, _written(header, own=last, other=1, array=back, last=back - 1))
    yield Patch(header.array_lba * sector, header.array)
    yield Patch(sector, _written(header, own=1, other=last, array=header.array_lba, last=back - 1))


def _written(header: GptHeader, *, own: int, other: int, array: int, last: int) -> bytes:
    """A header: one sector."""
    raw = header.raw[:header.sector]
    signature, revision, _, _, zero, _, _, _, _, disk, _, _, _, _ = HEADER.unpack_from(raw)
    count = len(header.array) // header.entry_size
    body = HEADER.pack(signature, revision, len(raw), 0, zero, own, other, header.first_usable, last, disk, array, count,
                       header.entry_size, zlib.crc32(header.array)) + raw[HEADER.size:]
    return (body[:16] + struct.pack("<I", zlib.crc32(body)) + body[20:]).ljust(header.sector, b"\0")


def protective(boot: bytes, old_sectors: int, sectors: int) -> bytes:
    """The MBR with a protective record that covers the disk.

    One that covered only a part of it, as in a hybrid MBR before other partitions, stays.
    """
    for number in range(mbr.COUNT):
        at = mbr.AT + number * mbr.RECORD.size
        status, begin, kind, end, start, count = mbr.RECORD.unpack_from(boot, at)
        whole = min(old_sectors - start, mbr.LIMIT - 1)
        if kind == mbr.PROTECTIVE and (count >= whole or count >= mbr.LIMIT - 1) and sectors > start:
            record = mbr.RECORD.pack(status, begin, kind, end, start, min(sectors - start, mbr.LIMIT - 1))
            boot = boot[:at] + record + boot[at + mbr.RECORD.size:]
    return boot
