"""Partition tables of disks that strangers wrote: read, and made to fit another disk. Pure: bytes in, bytes out.

``gpt`` and ``mbr`` read and write the tables (UEFI 2.10, chapter 5; the MBR as Linux reads it); ``fit`` decides what a larger or
smaller disk, or one with other sectors, needs; ``filesystems`` knows which file systems can live with larger sectors.
"""

from __future__ import annotations

from imgtool.model.partitions import Table, TableKind
from imgtool.partitions import gpt, mbr
from imgtool.partitions.gpt import Read

SECTORS = (512, 4096)


def read_table(read: Read, size: int, sector: int | None = None) -> Table:
    """The table of a disk of ``size`` bytes. ``read(offset, length)`` gives what is there, or less at its end.

    ``sector``: of the disk, where it is known; else the one that a GPT is found with. A table that cannot be believed is
    ``damaged``: such a disk is copied as it is, but not made to fit another.
    """
    boot = bytes(read(0, 512)).ljust(512, b"\0")
    records = mbr.records(boot)
    if records is None:
        return Table(kind=TableKind.NONE, sector=sector or 512, size=size, boot_sector=boot)
    if any(record.type == mbr.PROTECTIVE for record in records):
        return gpt.table(read, size, boot, records, (sector,) if sector else SECTORS)
    return mbr.table(read, size, boot, records, sector or 512)
