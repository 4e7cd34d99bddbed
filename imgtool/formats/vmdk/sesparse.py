"""seSparse: the redo logs of ESXi 6.5 and later on VMFS 6. Read only.

Source: the structures that QEMU's block driver documents (block/vmdk.c), since VMware has published none. Little-endian, 64 bit;
offsets in sectors.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imgtool.errors import DamagedError
from imgtool.formats.layer import SECTOR, read_at
from imgtool.formats.runs import table_extents
from imgtool.formats.vmdk.sparse import MAX_DIRECTORY, any_set, directory_extents, directory_parts, table_runs
from imgtool.model import Extent, ImageFile, Kind

MAGIC = 0xCAFEBABE
VOLATILE_MAGIC = 0xCAFECAFE
VERSION = 0x0000000200000001
HEADER = struct.Struct("<26Q")
VOLATILE = struct.Struct("<4Q")
GRAIN_SECTORS = 8
TABLE_SECTORS = 64
COVERED = TABLE_SECTORS * SECTOR // 8 * GRAIN_SECTORS * SECTOR
"""Guest bytes of one grain table."""
ALLOCATED_TABLE = 0x10000000
"""The upper half of a directory's entry."""
UNALLOCATED, UNMAPPED, ZERO, ALLOCATED = range(4)
"""The topmost four bits of a grain table's entry."""


@dataclass(frozen=True, kw_only=True)
class SeSparseExtent:
    """One seSparse file, as a map of its own guest range [0, size)."""

    file: ImageFile
    sectors: int
    directory: int
    """Bytes, as the others."""
    tables: int
    grains: int

    @property
    def size(self) -> int:
        return self.sectors * SECTOR

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        table_size = TABLE_SECTORS * SECTOR
        covered = COVERED
        runs = self._directory(start // covered, -(-end // covered), table_size)
        yield from directory_extents(start, end, covered, runs, self._tables)

    def _directory(self, low: int, high: int, table_size: int) -> Iterator[tuple[int, int]]:
        for raw in directory_parts(self.file, self.directory, low, high, 8):
            entries = struct.iter_unpack("<Q", raw) if any_set(raw) else ()
            offsets = [self._table_offset(entry, table_size) for (entry,) in entries]
            yield from table_runs(offsets, table_size) if offsets else [(0, len(raw) // 8)]

    def _table_offset(self, entry: int, table_size: int) -> int:
        if not entry:
            return 0
        if entry >> 32 != ALLOCATED_TABLE:
            raise DamagedError(f"{self.file.path}: an entry of the grain directory is damaged")
        return self.tables + (entry & 0xFFFFFFFF) * table_size

    def _tables(self, first: int, offset: int, count: int) -> Iterator[Extent]:
        import numpy as np

        length = count * TABLE_SECTORS * SECTOR
        raw = read_at(self.file, length, offset)
        if len(raw) < length:
            raise DamagedError(f"{self.file.path}: a grain table lies outside the file", "the file may be cut off")
        entries = np.frombuffer(raw, "<u8").astype(np.uint64)
        types = (entries >> np.uint64(60)).astype(np.uint8)
        if np.any(types > ALLOCATED) or np.any((types == UNALLOCATED) & (entries != 0)):
            raise DamagedError(f"{self.file.path}: an entry of a grain table is damaged")
        low, high = np.uint64(0x0FFF000000000000), np.uint64(0x0000FFFFFFFFFFFF)
        index = ((entries & low) >> np.uint64(48)) | ((entries & high) << np.uint64(12))
        kinds = np.choose(types, [Kind.UNALLOCATED, Kind.ZERO, Kind.ZERO, Kind.DATA]).astype(np.uint8)
        index[types != ALLOCATED] = 0
        if np.any(index > np.uint64(1 << 48)):
            raise DamagedError(f"{self.file.path}: an entry of a grain table is damaged")
        grain = GRAIN_SECTORS * SECTOR
        yield from table_extents(first, grain, kinds, self.grains + index.astype("int64") * grain, self.file)


def open_sesparse(file: ImageFile) -> SeSparseExtent:
    """Raises DamagedError, also where a journal has not been replayed: its data is not where the tables say."""
    head = os.pread(file.fd, SECTOR, 0)
    if len(head) < SECTOR:
        raise DamagedError(f"{file.path}: the header is cut off")
    fields = HEADER.unpack_from(head)
    magic, version, sectors, grain, table = fields[:5]
    if magic != MAGIC or version != VERSION or grain != GRAIN_SECTORS or table != TABLE_SECTORS:
        raise DamagedError(f"{file.path} has no seSparse header that imgtool knows")
    volatile, directory, directory_size, tables, grains = fields[10], fields[16], fields[17], fields[18], fields[24]
    state = os.pread(file.fd, SECTOR, volatile * SECTOR) if volatile < 1 << 48 else b""
    if len(state) < SECTOR or VOLATILE.unpack_from(state)[0] != VOLATILE_MAGIC:
        raise DamagedError(f"{file.path}: the second header is missing")
    if VOLATILE.unpack_from(state)[3]:
        raise DamagedError(f"{file.path}: its journal must be replayed first", "power the machine on and off on its host")
    if sectors >= 1 << 54 or directory_size * SECTOR > MAX_DIRECTORY or max(directory, tables, grains) >= 1 << 54:
        raise DamagedError(f"{file.path}: the header is out of range")
    entries = -(-sectors * SECTOR // COVERED)
    if entries * 8 > MAX_DIRECTORY or directory * SECTOR + entries * 8 > file.size:
        raise DamagedError(f"{file.path}: the grain directory lies outside the file", "the file may be cut off")
    return SeSparseExtent(file=file, sectors=sectors, directory=directory * SECTOR, tables=tables * SECTOR,
                          grains=grains * SECTOR)
