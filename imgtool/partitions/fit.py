"""A table made to fit another disk: larger, smaller, or with other sectors. File systems are never made smaller."""

from __future__ import annotations

from dataclasses import replace

from imgtool.errors import DamagedError, RefusedError
from imgtool.model.partitions import Entry, Fit, Patch, Table, TableKind
from imgtool.partitions import gpt, mbr
from imgtool.partitions.filesystems import obstacle
from imgtool.partitions.gpt import Read

ALIGN = 1 << 20
MBR_REACH = 2 << 40
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"


def fit(table: Table, read: Read, size: int, sector: int, *, grow: bool = False) -> Fit:
    """What a disk of ``size`` bytes in sectors of ``sector`` bytes needs. ``read`` reads the old disk.

    Raises RefusedError where it cannot be (with by how much it is too small), DamagedError where the table is not sound.
    """
    if sector > table.sector:
        _refuse_sectors(table, read, sector)
    if table.kind is TableKind.GPT and sector != table.sector and table.damaged:
        raise DamagedError(f"the GPT cannot be written for sectors of {sector} bytes: {table.damaged}")
    if size == table.size and not (table.kind is TableKind.GPT and sector != table.sector):
        return Fit(backup=_backup(table, size))
    if table.kind is TableKind.GPT:
        return _fit_gpt(table, size, sector, grow=grow)
    _refuse_short(table.end if table.kind is TableKind.MBR and not table.damaged else table.size, size)
    if table.kind is TableKind.NONE:
        return Fit(notes=("there is no partition table: the rest of the disk stays unused",) if size > table.size else ())
    return _fit_mbr(table, size, grow=grow)


def _backup(table: Table, size: int) -> tuple[int, int] | None:
    if table.kind is not TableKind.GPT or table.gpt is None:
        return None
    return size // table.sector * table.sector - gpt.backup_bytes(table.gpt, table.sector), size


def _refuse_short(needed: int, size: int) -> None:
    if needed > size:
        raise RefusedError(f"the disk is {needed - size} bytes too small: {needed} are needed, it has {size}",
                           "take a larger disk, or make the last partition and its file system smaller in the machine first")


def _refuse_sectors(table: Table, read: Read, sector: int) -> None:
    """512 → 4096."""
    words = f"the disk has sectors of {sector} bytes, the image was made for {table.sector}"
    if table.kind is TableKind.MBR:
        raise RefusedError(f"{words}: an MBR counts in sectors, and its boot loader reads by them",
                           "take a disk that shows sectors of 512 bytes (512e)")
    if table.kind is TableKind.NONE:
        why = obstacle(read, 0, table.size, sector)
        if why:
            raise RefusedError(f"{words}: there is {why}", "take a disk that shows sectors of 512 bytes (512e)")
    for entry in table.entries:
        why = "is not aligned to them" if entry.start % sector or entry.size % sector else None
        if entry.type == BIOS_BOOT:
            why = "holds a boot loader that reads sectors of 512 bytes"
        elif why is None and (found := obstacle(read, entry.start, entry.size, sector)):
            why = f"holds {found}"
        if why:
            raise RefusedError(f"{words}: partition {entry.number} {why}",
                               "take a disk that shows sectors of 512 bytes (512e); file systems are not made anew")


def _fit_gpt(table: Table, size: int, sector: int, *, grow: bool) -> Fit:
    if table.damaged or table.gpt is None:
        raise DamagedError(f"the GPT cannot be made to fit a disk of another size: {table.damaged}",
                           "repair it in the machine (gdisk, option r), or take a disk of exactly the image's size")
    if table.hybrid and sector != table.sector:
        raise RefusedError("a hybrid MBR cannot be written for other sectors", "take a disk with the same sectors")
    backup = gpt.backup_bytes(table.gpt, sector)
    whole = size // sector * sector
    _refuse_short(table.end + backup, whole)
    entries, grown = list(table.entries), None
    if grow and (grown := _grown(table, (whole - backup) // ALIGN * ALIGN)):
        entries = [grown if one.number == grown.number else one for one in entries]
    header = gpt.moved(table.gpt, sector, entries)
    if header.first_usable * sector > min((one.start for one in entries), default=whole):
        raise RefusedError(f"the table does not fit before the first partition with sectors of {sector} bytes")
    boot = gpt.protective(table.boot_sector, table.size // table.sector, size // sector)
    found = [*_cleared(table, whole - backup, sector), *gpt.patches(header, size), Patch(0, boot)]
    notes = [f"the backup GPT is written at the end of the disk, byte {whole - backup}"]
    if sector != table.sector:
        notes.append(f"the GPT is written for sectors of {sector} bytes instead of {table.sector}")
    if table.hybrid:
        notes.append("the hybrid MBR keeps its own partitions as they are")
    return Fit(patches=tuple(found), notes=tuple(notes), grown=grown, backup=(whole - backup, size))


def _cleared(table: Table, limit: int, sector: int) -> list[Patch]:
    """What the old table leaves behind where the new one does not stand: a stale copy would be found by somebody, some day."""
    assert table.gpt is not None  # noqa: S101 - the caller has looked
    begin = max(table.end, table.size // table.sector * table.sector - gpt.backup_bytes(table.gpt, table.sector))
    end = min(table.size, limit)
    found = [Patch(begin, bytes(end - begin))] if begin < end else []
    if sector != table.sector:
        stop = min((entry.start for entry in table.entries), default=table.sector * 2 + len(table.gpt.array))
        head = min(stop, max(table.gpt.array_lba * table.sector * (table.gpt.lba == 1), 2 * table.sector) + len(table.gpt.array))
        found.append(Patch(512, bytes(max(head, 2 * sector) - 512)))
    return found


def _grown(table: Table, end: int) -> Entry | None:
    """The last partition, up to ``end``; None where it reaches that far already."""
    last = table.last
    return replace(last, size=end - last.start) if last and end > last.end else None


def _fit_mbr(table: Table, size: int, *, grow: bool) -> Fit:
    if table.damaged:
        raise DamagedError(f"the partition table cannot be made to fit a disk of another size: {table.damaged}",
                           "take a disk of exactly the image's size")
    notes = []
    if size > MBR_REACH:
        notes.append("an MBR reaches the first 2 TiB of a disk: the rest stays unused")
    if not grow:
        return Fit(notes=tuple(notes))
    last = table.last
    if last and (last.number > mbr.COUNT or int(last.type, 16) in mbr.EXTENDED):
        raise RefusedError("--grow does not extend logical partitions, and the last one is one",
                           "leave --grow out, and extend it in the machine")
    most = min(size, MBR_REACH - table.sector)
    grown = _grown(table, most // ALIGN * ALIGN)
    if grown is None:
        return Fit(notes=tuple(notes))
    return Fit(patches=(Patch(0, mbr.resized(table.boot_sector, grown.number, grown.size // table.sector)),), notes=tuple(notes),
               grown=grown)
