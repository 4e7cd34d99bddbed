"""Where the data of a qcow2 image lies. Specification: docs/interop/qcow2.txt of QEMU."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress, pairwise
from operator import add, ne
from typing import TYPE_CHECKING

from imgtool import codec
from imgtool.errors import DamagedError
from imgtool.formats.layer import Backing, Layer, read_at
from imgtool.formats.opener import Opener
from imgtool.formats.qcow2.header import CORRUPT, DIRTY, Header, read_header, read_snapshots
from imgtool.formats.runs import cut, table_extents
from imgtool.model import Extent, ImageFile, Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Table = npt.NDArray[np.uint64]

OFFSET_MASK = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
ENTRY = 8
"""Bytes of a table's entry."""
SUBCLUSTERS = 32


def open_qcow2(file: ImageFile, opener: Opener) -> Layer:
    """The layer of a qcow2 image; its backing file is only named."""
    header = read_header(file)
    files = [file]
    if header.data_file and not header.encryption:
        files.append(opener.named(header.data_file, file))
    reader = _Reader(header, file, files[-1])
    return Layer(
        path=file.path, format="qcow2", virtual_size=header.virtual_size, cluster_size=header.cluster_size,
        files=tuple(files), extents=reader.extents, folded=replace(reader, gap=Kind.ZERO).extents, decode=reader.decode,
        backing=Backing(header.backing, header.backing_format) if header.backing else None,
        snapshots=read_snapshots(file, header), encrypted=bool(header.encryption), details=_details(header),
        compressed=reader.first_is_compressed(), warnings=tuple(_warnings(header)))


def _details(header: Header) -> dict[str, object]:
    return {
        "compat": "0.10" if header.version == 2 else "1.1", "extended_l2": header.extended,
        "compression_type": header.compression, "refcount_bits": header.refcount_bits,
        "lazy_refcounts": bool(header.compatible & 1), "data_file": header.data_file, "bitmaps": header.bitmaps,
        "encryption": header.encryption,
    }


def _warnings(header: Header) -> Iterator[str]:
    if header.incompatible & CORRUPT:
        yield "the image is marked as corrupt: run qemu-img check"
    if header.incompatible & DIRTY:
        yield "the image was not closed cleanly: its reference counts may be stale"
    if header.backing and not header.backing_format:
        yield "the format of the backing file is not recorded: taken from its header"
    if header.snapshot_count:
        yield f"{header.snapshot_count} internal snapshot(s): only the present state is converted"


@dataclass(frozen=True)
class _Reader:
    header: Header
    file: ImageFile
    data: ImageFile
    gap: Kind = Kind.UNALLOCATED
    """What a cluster without a place is."""

    @property
    def _coded_shift(self) -> int:
        return 62 - (self.header.cluster_bits - 8)

    def _l1(self, first: int, count: int) -> list[int]:
        raw = read_at(self.file, count * 8, self.header.l1_offset + first * 8)
        return [int.from_bytes(raw[i:i + 8], "big") & OFFSET_MASK for i in range(0, count * 8, 8)]

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        covered = self.header.l2_entries << self.header.cluster_bits
        batch = 1 << 16
        position = start
        while position < end:
            index = position // covered
            offsets = self._l1(index, min(batch, -(-end // covered) - index))
            if not any(offsets):
                stop = min(end, (index + len(offsets)) * covered)
                yield Extent(position, stop - position, self.gap)
                position = stop
                continue
            for offset in offsets:
                stop = min(end, (index + 1) * covered)
                if offset:
                    yield from cut(self._l2_extents(index * covered, offset, position, stop), position, stop)
                else:
                    yield Extent(position, stop - position, self.gap)
                index, position = index + 1, stop

    def _l2_extents(self, first: int, offset: int, start: int, end: int) -> Iterator[Extent]:
        """Extents of the part of one L2 table that covers [start, end)."""
        bits, size = self.header.cluster_bits, self.header.l2_entry_size
        low, high = (start - first) >> bits, -(-(end - first) // (1 << bits))
        if offset % self.header.cluster_size:
            raise DamagedError(f"{self.file.path}: an L2 table is not aligned to a cluster")
        raw = read_at(self.file, (high - low) * size, offset + low * size)
        if len(raw) < (high - low) * size:
            raise DamagedError(f"{self.file.path}: an L2 table lies outside the file", "the file may be cut off")
        base = first + (low << bits)
        if (runs := self._runs(raw)) is None:
            yield from self._mixed(base, raw)
            return
        for place, count in runs:
            yield Extent(base, count << bits, Kind.DATA, self.data, self.data.base + place) if place else \
                Extent(base, count << bits, self.gap)
            base += count << bits

    def _runs(self, raw: bytes) -> list[tuple[int, int]] | None:
        """(place in the file or 0 for nothing, clusters) of a table; None if it is not a plain one.

        Numpy is no quicker at that, and takes as long to load as a GiB to read.
        """
        if self.header.extended:
            return None
        size, count = self.header.cluster_size, len(raw) // ENTRY
        after = -(-len(raw.rstrip(b"\0")) // ENTRY)
        before = min(after, (len(raw) - len(raw.lstrip(b"\0"))) // ENTRY)
        entries = struct.unpack_from(f">{after - before}Q", raw, before * ENTRY)
        next_ones = map(add, entries, map(size.__mul__, map(bool, entries)))
        starts = [0, *compress(range(1, len(entries)), map(ne, entries[1:], next_ones))] if entries else []
        odd = ~(COPIED | OFFSET_MASK) | (size - 1)
        if any(entries[start] & odd or entries[start] == COPIED for start in starts):
            return None
        runs = [(entries[start] & OFFSET_MASK, end - start) for start, end in pairwise([*starts, len(entries)])]
        if any(place + (length - 1) * size >= self.data.size for place, length in runs if place):
            return None
        return [run for run in ((0, before), *runs, (0, count - after)) if run[1]]

    def _mixed(self, base: int, raw: bytes) -> Iterator[Extent]:
        import numpy as np

        bits = self.header.cluster_bits
        table = np.frombuffer(raw, ">u8").astype(np.uint64)
        bitmaps = table[1::2] if self.header.extended else None
        entries = table[::2] if self.header.extended else table
        coded = np.flatnonzero(entries & np.uint64(COMPRESSED)).tolist()
        position = 0
        for index in [*coded, len(entries)]:
            part = slice(position, index)
            yield from self._plain(base + (position << bits), entries[part], None if bitmaps is None else bitmaps[part])
            if index < len(entries):
                yield self._coded(base + (index << bits), int(entries[index]))
            position = index + 1

    def _plain(self, first: int, entries: Table, bitmaps: Table | None) -> Iterator[Extent]:
        import numpy as np

        offsets = (entries & np.uint64(OFFSET_MASK)).astype(np.int64)
        stored = offsets != 0
        if self.header.data_file:
            stored |= (entries & np.uint64(COPIED)) != 0
        if np.any(offsets % self.header.cluster_size):
            raise DamagedError(f"{self.file.path}: a cluster is not aligned")
        if bitmaps is not None:
            yield from self._subclusters(first, offsets, stored, bitmaps)
            return
        zero = (entries & np.uint64(ZERO)) != 0
        if self.header.version == 2 and np.any(zero):
            raise DamagedError(f"{self.file.path}: a zero cluster in an image of version 2")
        kinds = np.where(zero, Kind.ZERO, np.where(stored, Kind.DATA, self.gap)).astype(np.uint8)
        yield from table_extents(first, self.header.cluster_size, kinds, offsets, self.data)

    def _subclusters(self, first: int, offsets: npt.NDArray[np.int64], stored: npt.NDArray[np.bool_],
                     bitmaps: Table) -> Iterator[Extent]:
        """Extended L2: 32 bits 'allocated' below, 32 bits 'zero' above, a pair for each 1/32 of a cluster."""
        import numpy as np

        unit = self.header.cluster_size // SUBCLUSTERS
        shifts = np.arange(SUBCLUSTERS, dtype=np.uint64)
        allocated = ((bitmaps[:, None] >> shifts) & np.uint64(1)).astype(bool)
        zero = ((bitmaps[:, None] >> (shifts + np.uint64(SUBCLUSTERS))) & np.uint64(1)).astype(bool)
        if np.any(allocated & zero) or np.any(allocated & ~stored[:, None]):
            raise DamagedError(f"{self.file.path}: the bits of a subcluster contradict each other")
        kinds = np.where(zero, Kind.ZERO, np.where(allocated, Kind.DATA, self.gap)).astype(np.uint8)
        places = offsets[:, None] + np.arange(SUBCLUSTERS, dtype=np.int64) * unit
        yield from table_extents(first, unit, kinds.reshape(-1), places.reshape(-1), self.data)

    def _coded(self, start: int, entry: int) -> Extent:
        offset = entry & ((1 << self._coded_shift) - 1)
        sectors = ((entry & ~(COPIED | COMPRESSED)) >> self._coded_shift) + 1
        length = sectors * 512 - (offset & 511)
        if offset >= self.file.size:
            raise DamagedError(f"{self.file.path}: a compressed cluster lies outside the file")
        return Extent(start, self.header.cluster_size, Kind.DATA, self.file, self.file.base + offset, length)

    def decode(self, extent: Extent) -> bytes | bytearray:
        """The bytes of (a part of) one compressed cluster."""
        size = self.header.cluster_size
        payload = read_at(self.file, extent.coded, extent.offset - self.file.base)
        zstd = self.header.compression == "zstd"
        cluster = codec.unzstd(payload, size) if zstd else codec.inflate(payload, size, bare=True)
        if len(cluster) != size:
            raise DamagedError(f"{self.file.path}: the compressed cluster at {extent.offset} does not unpack")
        skip = extent.start % size
        return cluster if extent.length == size else cluster[skip:skip + extent.length]

    def first_is_compressed(self) -> bool:
        """Whether a cluster in the first L2 table that there is is compressed; a hint for ``info``, and cheap."""
        if self.header.encryption or not self.header.l1_size:
            return False
        offset = next(filter(None, self._l1(0, min(self.header.l1_size, 1 << 12))), 0)
        if not offset:
            return False
        raw = read_at(self.file, self.header.cluster_size, offset)
        return any(raw[at] & 0x40 for at in range(0, len(raw), self.header.l2_entry_size))
