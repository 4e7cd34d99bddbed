"""Writes qcow2 images. Specification: docs/interop/qcow2.txt of QEMU.

Layout: header | L1 | for each L2 table that is needed: the table, then its clusters, as they come | refcount blocks | refcount
table. All clusters but the ends of the file are used, once: every refcount is 1.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgtool import storage
from imgtool.errors import UsageError
from imgtool.formats.qcow2 import header as spec
from imgtool.formats.qcow2.read import COPIED, SUBCLUSTERS
from imgtool.formats.target import Payload, Place, create, flag, seats
from imgtool.model import Allocation, ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

OPTIONS = ("compat", "cluster_size", "extended_l2", "lazy_refcounts", "refcount_bits", "compression_type")
UNITS = {"": 1, "k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "m": 1 << 20}
SECTOR = 512


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What ``-o`` says of a qcow2 image."""

    version: int
    cluster: int
    extended: bool
    lazy: bool
    refcount_bits: int

    @property
    def l2_entries(self) -> int:
        return self.cluster // (16 if self.extended else 8)

    @property
    def covered(self) -> int:
        """Guest bytes of one L2 table."""
        return self.l2_entries * self.cluster


def shape(image: ImageSpec) -> Shape:
    """Raises UsageError for what a qcow2 image cannot be."""
    for key, _ in image.options:
        if key not in OPTIONS:
            hint = "--thin, --thick or --eager say it" if key == "preallocation" else f"known: {', '.join(OPTIONS)}"
            raise UsageError(f"-o {key}: not an option of qcow2 here", hint)
    compat = image.option("compat", "1.1")
    version = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}.get(str(compat))
    extended = flag(image.option("extended_l2", "off") or "", "extended_l2")
    lazy = flag(image.option("lazy_refcounts", "off") or "", "lazy_refcounts")
    cluster = _size(image.option("cluster_size", "128k" if extended else "64k") or "", "cluster_size")
    bits = _size(image.option("refcount_bits", "16") or "", "refcount_bits")
    if version is None:
        raise UsageError(f"-o compat={compat}: 0.10 or 1.1")
    if cluster & (cluster - 1) or not 1 << 9 <= cluster <= 1 << 21:
        raise UsageError(f"-o cluster_size={cluster}: a power of two from 512 to 2M")
    if extended and cluster < 1 << 14:
        raise UsageError("-o extended_l2=on needs clusters of at least 16k")
    if bits not in (1, 2, 4, 8, 16, 32, 64):
        raise UsageError(f"-o refcount_bits={bits}: a power of two up to 64")
    if version == 2 and (extended or lazy or bits != 16 or image.option("compression_type", "zlib") != "zlib"):
        raise UsageError("compat 0.10 has no extended L2, lazy refcounts, other refcount bits or zstd", "use compat=1.1")
    return Shape(version=version, cluster=cluster, extended=extended, lazy=lazy, refcount_bits=bits)


def _size(text: str, key: str) -> int:
    number, unit = text.rstrip("kKmM"), text[len(text.rstrip("kKmM")):]
    if not number.isdecimal() or unit not in UNITS or len(number) > 12:
        raise UsageError(f"-o {key}={text}: not a size")
    return int(number) * UNITS[unit]


def l1_entries(size: int, form: Shape) -> int:
    """Entries of the L1 table. Raises UsageError where the clusters are too small for the disk."""
    count = -(-size // form.covered)
    if count * 8 > spec.MAX_L1:
        raise UsageError(f"{size} bytes are too many for clusters of {form.cluster}", "choose a larger -o cluster_size")
    return max(1, count)


WAITING = 16 << 20
"""Bytes of L2 tables that are written together: one that goes through the page cache waits for all writes past it."""


class Qcow2Target:
    """A new qcow2 image."""

    def __init__(self, folder: str, name: str, size: int, image: ImageSpec) -> None:
        import numpy as np

        self.members = [name]
        self._name, self._size, self._form = name, size, shape(image)
        self.window = self._form.covered
        self._whole = image.allocation != Allocation.THIN
        self._l1 = np.zeros(l1_entries(size, self._form), ">u8")
        self._table: npt.NDArray[np.uint64] | None = None
        self._table_index = -1
        self._next = self._form.cluster + self._clusters(self._l1.nbytes) * self._form.cluster
        self._waiting: list[tuple[int, bytes]] = []
        self.fd = create(folder, name)
        if self._whole:
            storage.reserve(self.fd, 0, size, keep_size=True)

    def _clusters(self, length: int) -> int:
        return -(-length // self._form.cluster)

    def expect(self, start: int, length: int) -> None:
        """Where it will stand is not known yet."""

    def place(self, start: int, length: int) -> Iterator[Place]:
        covered, end = self._form.covered, start + length
        while start < end:
            stop = min(end, (start // covered + 1) * covered)
            yield from self._place_in_table(start, stop)
            start = stop

    def _place_in_table(self, start: int, end: int) -> Iterator[Place]:
        table, covered = self._use_table(start // self._form.covered), self._form.covered
        places, self._next = seats(table, self._form.cluster, self.fd, start, end, self._next)
        if self._form.extended:
            self._mark(start % covered, (end - 1) % covered + 1)
        yield from places

    def _use_table(self, index: int) -> npt.NDArray[np.uint64]:
        """The offsets in the L2 table ``index``; an earlier table is left for good."""
        import numpy as np

        if index != self._table_index or self._table is None:
            self._flush_table()
            self._table_index = index
            self._table = np.zeros(self._form.l2_entries, np.uint64)
            self._bitmaps = np.zeros(self._form.l2_entries if self._form.extended else 0, np.uint64)
            self._l1[index] = self._next | COPIED
            self._next += self._form.cluster
        return self._table

    def _mark(self, low: int, high: int) -> None:
        """Sets the 'allocated' bits of the subclusters of a range of the current table."""
        import numpy as np

        unit = self._form.cluster // SUBCLUSTERS
        first, last = low // unit, -(-high // unit)
        if self._whole:
            first, last = first - first % SUBCLUSTERS, -(-last // SUBCLUSTERS) * SUBCLUSTERS
        bits = np.zeros(self._form.l2_entries * SUBCLUSTERS, np.uint8)
        bits[first:last] = 1
        self._bitmaps |= np.packbits(bits, bitorder="little").view("<u4").astype(np.uint64)

    def _flush_table(self) -> None:
        import numpy as np

        if self._table is None:
            return
        entries = np.where(self._table == 0, self._table, self._table | np.uint64(COPIED))
        if self._form.extended:
            entries = np.column_stack((entries, self._bitmaps)).reshape(-1)
        self._waiting.append((int(self._l1[self._table_index]) & ~COPIED, entries.astype(">u8").tobytes()))
        if len(self._waiting) * self._form.cluster >= WAITING:
            self._write_tables()

    def _write_tables(self) -> None:
        for offset, table in self._waiting:
            storage.write_all(self.fd, table, offset)
        self._waiting.clear()

    def finish(self) -> None:
        self._flush_table()
        self._write_tables()
        form = self._form
        storage.write_all(self.fd, self._l1.tobytes(), form.cluster)
        used = self._next // form.cluster
        blocks, table = refcount_room(used, form.cluster, form.refcount_bits)
        total = used + blocks + table
        offsets = [self._next + index * form.cluster for index in range(blocks)]
        per_block = form.cluster * 8 // form.refcount_bits
        for index, offset in enumerate(offsets):
            storage.write_all(self.fd, refcounts(min(per_block, total - index * per_block), form.refcount_bits), offset)
        table_offset = self._next + blocks * form.cluster
        storage.write_all(self.fd, struct.pack(f">{blocks}Q", *offsets), table_offset)
        storage.write_all(self.fd, self._header(table_offset, table), 0)
        os.ftruncate(self.fd, total * form.cluster)

    def _header(self, refcount_offset: int, refcount_clusters: int) -> bytes:
        form = self._form
        head = spec.V2.pack(spec.MAGIC, form.version, 0, 0, form.cluster.bit_length() - 1, self._size, 0, len(self._l1),
                            form.cluster, refcount_offset, refcount_clusters, 0, 0)
        if form.version == 3:
            head += spec.V3.pack(spec.EXTENDED_L2 if form.extended else 0, spec.LAZY_REFCOUNTS if form.lazy else 0, 0,
                                 form.refcount_bits.bit_length() - 1, spec.V3_LENGTH)
            head = head.ljust(spec.V3_LENGTH, b"\0")
        return head + struct.pack(">II", spec.EXT_END, 0)

    def payload(self) -> list[Payload]:
        return [Payload(self._name, self.fd)]

    def close(self) -> None:
        os.close(self.fd)


def refcount_room(used: int, cluster: int, bits: int) -> tuple[int, int]:
    """Clusters for refcount blocks and for their table, when ``used`` clusters and these themselves are to be counted."""
    per_block, blocks, table = cluster * 8 // bits, 0, 0
    while True:
        wanted = -(-(used + blocks + table) // per_block)
        wanted_table = -(-wanted * 8 // cluster)
        if (wanted, wanted_table) == (blocks, table):
            return blocks, table
        blocks, table = max(blocks, wanted), max(table, wanted_table)


def refcounts(count: int, bits: int) -> bytes:
    """``count`` reference counts of 1, packed as the specification says: below a byte from its lowest bit on, else big-endian."""
    if bits >= 8:
        return (1).to_bytes(bits // 8, "big") * count
    per_byte = 8 // bits
    full = sum(1 << (index * bits) for index in range(per_byte))
    rest = sum(1 << (index * bits) for index in range(count % per_byte))
    return bytes([full]) * (count // per_byte) + (bytes([rest]) if rest else b"")
