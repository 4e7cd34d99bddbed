"""Sparse extents of the hosted kind ("KDMV") and of ESXi's redo logs ("COWD", vmfsSparse).

Source: VMware, *Virtual Disk Format 5.0*, sections "Hosted Sparse Extents", "ESXi Host Sparse Extents", "Stream-Optimized
Compressed Sparse Extents". Numbers are little-endian, offsets in sectors of 512 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgtool import codec, storage
from imgtool.errors import DamagedError
from imgtool.formats.layer import SECTOR, read_at
from imgtool.formats.runs import cut, table_extents
from imgtool.model import Extent, ImageFile, Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KDMV = b"KDMV"
COWD = b"COWD"
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
"""magic, version, flags, capacity, grain size, descriptor offset and size, entries a grain table, redundant directory,
directory, overhead, unclean shutdown, the four characters that a text-mode transfer would spoil, compression."""
COWD_HEADER = struct.Struct("<4sIIIIIII")
MARKER = struct.Struct("<QI")

FLAG_NEWLINE, FLAG_REDUNDANT, FLAG_ZERO_GRAIN, FLAG_COMPRESSED, FLAG_MARKERS = 1, 2, 4, 1 << 16, 1 << 17
GD_AT_END = (1 << 64) - 1
LINE_ENDS = b"\n \r\n"
DEFLATE = 1
FOOTER_FROM_END = 2 * SECTOR
MAX_DIRECTORY = 512 << 20
"""Bytes of a grain directory, as in QEMU."""
MAX_GRAIN = 128 << 20
MAX_CODED_GRAIN = 4 << 20
"""Compressed grains are unpacked whole, several at once; all programs write 64 KiB."""
COWD_TABLE = 4096
DIRECTORY_PART = 1 << 16
"""Entries of a directory that are held at once."""
BATCH = 64
"""Grain tables that are read at once where they lie one behind the other."""


@dataclass(frozen=True, kw_only=True)
class SparseHeader:
    version: int
    flags: int
    sectors: int
    grain: int
    """Bytes."""
    descriptor_offset: int
    """Bytes, as all offsets here; 0 is none."""
    descriptor_size: int
    table_entries: int
    directory: int

    @property
    def compressed(self) -> bool:
        return bool(self.flags & FLAG_COMPRESSED)

    @property
    def size(self) -> int:
        return self.sectors * SECTOR

    @property
    def covered(self) -> int:
        """Guest bytes of one grain table."""
        return self.grain * self.table_entries


def read_header(file: ImageFile) -> SparseHeader:
    """Raises DamagedError for whatever is out of range."""
    head = read_at(file, SECTOR, 0)
    if head[:4] not in (KDMV, COWD) or len(head) < HEADER.size:
        raise DamagedError(f"{file.path} has no sparse VMDK header")
    header = _kdmv(file, head) if head[:4] == KDMV else _cowd(file, head)
    if header.directory == GD_AT_END * SECTOR:
        foot = read_at(file, SECTOR, file.size - FOOTER_FROM_END)
        if foot[:4] != KDMV:
            raise DamagedError(f"{file.path}: the footer of the stream is missing", "the file may be cut off")
        header = _kdmv(file, foot)
    if header.directory + -(-header.size // header.covered) * 4 > file.size:
        raise DamagedError(f"{file.path}: the grain directory lies outside the file", "the file may be cut off")
    return header


def _kdmv(file: ImageFile, head: bytes) -> SparseHeader:
    (_, version, flags, capacity, grain, at, length, entries, _, directory, _, _, ends, method) = HEADER.unpack_from(head)
    if version not in (1, 2, 3):
        raise DamagedError(f"{file.path}: VMDK version {version} is not supported")
    if flags & FLAG_NEWLINE and ends != LINE_ENDS:
        raise DamagedError(f"{file.path}: the file was spoilt by a transfer in text mode", "transfer it again, as binary")
    if flags & FLAG_COMPRESSED and method != DEFLATE:
        raise DamagedError(f"{file.path}: unknown compression {method}")
    if method == DEFLATE and not flags & FLAG_COMPRESSED:  # QEMU unpacks such grains; for others they are plain
        raise DamagedError(f"{file.path}: its header says both that grains are compressed and that they are not",
                           "fetch the image again from where it came")
    return _checked(file, SparseHeader(
        version=version, flags=flags, sectors=capacity, grain=grain * SECTOR, table_entries=entries,
        descriptor_offset=at * SECTOR, descriptor_size=length * SECTOR, directory=directory * SECTOR))


def _cowd(file: ImageFile, head: bytes) -> SparseHeader:
    _, version, _, sectors, grain, directory, _, _ = COWD_HEADER.unpack_from(head)
    return _checked(file, SparseHeader(
        version=version, flags=0, sectors=sectors, grain=grain * SECTOR, table_entries=COWD_TABLE,
        descriptor_offset=0, descriptor_size=0, directory=directory * SECTOR))


def _checked(file: ImageFile, header: SparseHeader) -> SparseHeader:
    grain = header.grain
    if not SECTOR <= grain <= (MAX_CODED_GRAIN if header.compressed else MAX_GRAIN) or grain & (grain - 1):
        raise DamagedError(f"{file.path}: a grain of {grain} bytes is impossible")
    if not 1 <= header.table_entries <= 1 << 16:
        raise DamagedError(f"{file.path}: a grain table of {header.table_entries} entries is impossible")
    if header.size >= 1 << 63 or -(-header.size // header.covered) * 4 > MAX_DIRECTORY:
        raise DamagedError(f"{file.path}: a capacity of {header.sectors} sectors is impossible")
    return header


def directory_extents(start: int, end: int, covered: int, entries: Iterator[tuple[int, int]],
                      table: Callable[[int, int, int], Iterator[Extent]]) -> Iterator[Extent]:
    """The walk that all sparse kinds share.

    ``entries`` are (offset of a grain table or 0, how many tables follow it directly), from the table that covers
    ``start`` on; ``table(first, offset, count)`` gives the extents of ``count`` tables.
    """
    position = start - start % covered
    for offset, count in entries:
        stop = position + count * covered
        if offset:
            yield from cut(table(position, offset, count), start, end)
        else:
            yield Extent(max(position, start), min(stop, end) - max(position, start), Kind.UNALLOCATED)
        position = stop


def directory_parts(file: ImageFile, directory: int, low: int, high: int, entry: int) -> Iterator[bytes]:
    """The entries ``low`` to ``high`` of a directory, never many at once: a sparse file may have hundreds of MiB of them."""
    for first in range(low, high, DIRECTORY_PART):
        length = min(DIRECTORY_PART, high - first) * entry
        raw = read_at(file, length, directory + first * entry)
        if len(raw) < length:
            raise DamagedError(f"{file.path}: the grain directory is cut off")
        yield raw


def any_set(raw: bytes) -> bool:
    """False for zeros only."""
    return raw != bytes(len(raw))


def table_runs(offsets: list[int], table_size: int) -> Iterator[tuple[int, int]]:
    """Groups the tables that lie one behind the other, and those that are missing."""
    first = 0
    for index in range(1, len(offsets) + 1):
        step = table_size if offsets[first] else 0
        full = offsets[first] and index - first >= BATCH
        if index == len(offsets) or full or offsets[index] != offsets[first] + (index - first) * step:
            yield offsets[first], index - first
            first = index


@dataclass(frozen=True)
class SparseExtent:
    """One sparse file, as a map of its own guest range [0, header.size)."""

    file: ImageFile
    header: SparseHeader

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        covered = self.header.covered
        yield from directory_extents(start, end, covered, self._directory(start // covered, -(-end // covered)), self._tables)

    def _directory(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        for raw in directory_parts(self.file, self.header.directory, low, high, 4):
            offsets = [sector * SECTOR for (sector,) in struct.iter_unpack("<I", raw)] if any_set(raw) else []
            yield from table_runs(offsets, self.header.table_entries * 4) if offsets else [(0, len(raw) // 4)]

    def _tables(self, first: int, offset: int, count: int) -> Iterator[Extent]:
        header, nothing = self.header, Extent(first, count * self.header.covered, Kind.UNALLOCATED)
        length = count * header.table_entries * 4
        if offset + length <= self.file.size and storage.is_hole(self.file.fd, self.file.base + offset, length):
            yield nothing  # an empty disk of 62 TiB has 4 GiB of such tables
            return
        raw = read_at(self.file, length, offset)
        if len(raw) < length:
            raise DamagedError(f"{self.file.path}: a grain table lies outside the file", "the file may be cut off")
        if any_set(raw):
            yield from self._table(first, raw)
        else:
            yield nothing

    def _table(self, first: int, raw: bytes) -> Iterator[Extent]:
        import numpy as np

        header = self.header
        entries = np.frombuffer(raw, "<u4").astype(np.int64)
        kinds = np.where(entries == 0, Kind.UNALLOCATED, Kind.DATA).astype(np.uint8)
        if header.flags & FLAG_ZERO_GRAIN:
            kinds[entries == 1] = Kind.ZERO
        if header.compressed:
            yield from self._coded(first, kinds, entries * SECTOR)
        else:
            yield from table_extents(first, header.grain, kinds, entries * SECTOR, self.file)

    def _coded(self, first: int, kinds: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Iterator[Extent]:
        import numpy as np

        grain, limit = self.header.grain, _coded_limit(self.header.grain)
        room = np.diff(offsets, append=0)  # up to the next grain, where that follows: no need to read more
        limits = np.where((room > 0) & (room < limit), room, limit)
        data, position = np.flatnonzero(kinds == Kind.DATA), 0
        for index, offset, most in zip(data.tolist(), offsets[data].tolist(), limits[data].tolist(), strict=True):
            yield from self._gap(first, kinds, position, index)
            if offset + MARKER.size > self.file.size:
                raise DamagedError(f"{self.file.path}: a grain lies outside the file", "the file may be cut off")
            yield Extent(first + index * grain, grain, Kind.DATA, self.file, self.file.base + offset, most)
            position = index + 1
        yield from self._gap(first, kinds, position, len(kinds))

    def _gap(self, first: int, kinds: npt.NDArray[np.uint8], low: int, high: int) -> Iterator[Extent]:
        """The entries ``low`` to ``high`` of a table, none of them a grain."""
        if low < high:
            part = kinds[low:high]
            yield from table_extents(first + low * self.header.grain, self.header.grain, part, part.astype("int64"), self.file)

    def decode(self, extent: Extent, base: int) -> bytes | bytearray:
        """(A part of) one compressed grain; ``base`` is the guest offset at which this file begins."""
        grain, start = self.header.grain, extent.start - base
        raw = read_at(self.file, extent.coded, extent.offset - self.file.base)
        payload = raw
        if self.header.flags & FLAG_MARKERS:
            sector, size = MARKER.unpack_from(raw)
            if sector * SECTOR != start - start % grain or size > len(raw) - MARKER.size:
                raise DamagedError(f"{self.file.path}: the marker at {extent.offset} is not that of its grain")
            payload = raw[MARKER.size:MARKER.size + size]
        data = codec.inflate(payload, grain + 1)  # one more than may be there, so that the checksum at the end is looked at, too
        short = min(grain, self.header.size - (start - start % grain))
        if not short <= len(data) <= grain:
            raise DamagedError(f"{self.file.path}: the compressed grain at {extent.offset} does not unpack")
        skip = start % grain
        return data if extent.length == len(data) else data[skip:skip + extent.length]


def _coded_limit(grain: int) -> int:
    """What a grain that does not compress can take: marker, zlib's frame and stored blocks."""
    return MARKER.size + grain + grain // 1000 * 8 + 64 + SECTOR
