"""Writes compressed qcow2 images from their beginning to their end. Specification: docs/interop/qcow2.txt of QEMU.

Layout: header | L1 | compressed clusters one behind the other, to the byte | after those of each L2 table: the table, aligned | …
| refcount blocks | refcount table. A host cluster counts once for each compressed cluster that touches it.
"""

from __future__ import annotations

import os
import struct
from array import array

from imgtool import storage
from imgtool.formats.qcow2 import header as spec
from imgtool.formats.qcow2.read import COMPRESSED, COPIED
from imgtool.formats.qcow2.write import Shape, l1_entries, refcount_room

SECTOR = 512


def can_pack(form: Shape) -> bool:
    """Other shapes go to qemu-img: their tables of reference counts would not fit in memory, or have other widths."""
    return form.cluster >= 1 << 16 and form.refcount_bits == 16 and not form.extended


class PackedTarget:
    """A new compressed image. ``cluster`` takes the clusters in ascending order."""

    def __init__(self, fd: int, size: int, form: Shape, *, zstd: bool) -> None:
        self.fd, self._size, self._form, self._zstd = fd, size, form, zstd
        self._l1 = [0] * l1_entries(size, form)
        self._table = [0] * form.l2_entries
        self._index = -1
        self._shift = 62 - (form.cluster.bit_length() - 1 - 8)
        self._counts = array("H")
        self._next = 0
        self._take(form.cluster)
        self._take(len(self._l1) * 8)

    def _align(self) -> None:
        self._next = -(-self._next // self._form.cluster) * self._form.cluster

    def _take(self, length: int) -> int:
        """The next ``length`` bytes of the file; each host cluster that they touch counts once more.

        16 bits are enough: of clusters of 2 MiB, which zstd packs to 70 bytes at best, 30000 touch one.
        """
        offset, self._next = self._next, self._next + length
        low, high = offset // self._form.cluster, (self._next - 1) // self._form.cluster
        self._counts.extend([0] * (high + 1 - len(self._counts)))
        for index in range(low, high + 1):
            self._counts[index] += 1
        return offset

    def cluster(self, start: int, payload: bytes) -> None:
        """The cluster at guest offset ``start``: compressed, or all of its bytes where that is no shorter."""
        form = self._form
        if start // form.covered != self._index:
            self._end_table()
            self._index = start // form.covered
        if len(payload) < form.cluster:
            offset = self._take(len(payload))
            sectors = (offset + len(payload) - 1) // SECTOR - offset // SECTOR
            entry = COMPRESSED | sectors << self._shift | offset
            storage.write_all(self.fd, payload, offset)
        else:
            self._align()
            offset = self._take(form.cluster)
            entry = COPIED | offset
            storage.write_all(self.fd, payload, offset)
        self._table[start % form.covered // form.cluster] = entry

    def _end_table(self) -> None:
        if self._index < 0:
            return
        self._align()
        offset = self._take(self._form.cluster)
        storage.write_all(self.fd, struct.pack(f">{len(self._table)}Q", *self._table), offset)
        self._l1[self._index] = offset | COPIED
        self._table = [0] * self._form.l2_entries

    def finish(self) -> int:
        """Writes the metadata; returns the length of the file."""
        self._end_table()
        self._align()
        cluster = self._form.cluster
        blocks, table = refcount_room(self._next // cluster, cluster, 16)
        first = self._next
        for _ in range(blocks + table):
            self._take(cluster)
        counts = array("H", self._counts)
        counts.byteswap()
        storage.write_all(self.fd, counts.tobytes(), first)
        offsets = [first + index * cluster for index in range(blocks)]
        storage.write_all(self.fd, struct.pack(f">{blocks}Q", *offsets), first + blocks * cluster)
        storage.write_all(self.fd, struct.pack(f">{len(self._l1)}Q", *self._l1), cluster)
        storage.write_all(self.fd, self._header(first + blocks * cluster, table), 0)
        os.ftruncate(self.fd, self._next)
        return self._next

    def _header(self, refcount_offset: int, refcount_clusters: int) -> bytes:
        form = self._form
        head = spec.V2.pack(spec.MAGIC, form.version, 0, 0, form.cluster.bit_length() - 1, self._size, 0, len(self._l1),
                            form.cluster, refcount_offset, refcount_clusters, 0, 0)
        if form.version == 3:
            incompatible = spec.COMPRESSION if self._zstd else 0
            head += spec.V3.pack(incompatible, spec.LAZY_REFCOUNTS if form.lazy else 0, 0, 4, spec.V3_LENGTH)
            head = (head + bytes([1 if self._zstd else 0])).ljust(spec.V3_LENGTH, b"\0")
        return head + struct.pack(">II", spec.EXT_END, 0)
