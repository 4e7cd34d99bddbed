"""Gives every cluster of an existing qcow2 image its place in the file, without touching what is there.

All metadata is written anew behind the end of the file; then one write to the first sector switches over. A crash before that
leaves the old image with unused bytes behind it, a crash after it the new one. Specification: docs/interop/qcow2.txt of QEMU.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from imgtool import storage
from imgtool.errors import UsageError
from imgtool.formats.layer import Layer
from imgtool.formats.qcow2.header import CORRUPT, DIRTY, Header, read_header
from imgtool.formats.qcow2.read import COPIED
from imgtool.formats.qcow2.write import refcount_room
from imgtool.model import Extent, Kind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

L1_FIELDS = struct.Struct(">IQQI")
"""l1_size, l1_table_offset, refcount_table_offset, refcount_table_clusters: bytes 36 to 60 of the header."""
L1_FIELDS_AT = 36


def check_whole(layer: Layer) -> None:
    """Raises UsageError where this cannot be done in place."""
    header = read_header(layer.files[0])
    reasons = {
        "it has a backing file": header.backing, "it has internal snapshots": header.snapshot_count,
        "it has dirty bitmaps": header.bitmaps, "its data is in another file": header.data_file,
        "it has subclusters": header.extended, "it has compressed clusters": layer.compressed,
        "it was not closed cleanly": header.incompatible & (DIRTY | CORRUPT),
        f"its refcounts have {header.refcount_bits} bits": header.refcount_bits < 8,
    }
    for reason, holds in reasons.items():
        if holds:
            raise _cannot(layer, reason)


def _cannot(layer: Layer, reason: str) -> UsageError:
    return UsageError(f"{layer.path} cannot be made thick in place: {reason}", "imgtool convert --thick makes a thick copy")


class _Tables:
    """The new metadata: clusters are handed out from the end of the file on."""

    def __init__(self, header: Header, end: int) -> None:
        import numpy as np

        self.cluster = header.cluster_size
        self.first = self.next = -(-end // self.cluster) * self.cluster
        self.used: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
        """Numbers of the clusters that stay in use; the first is the header."""

    def take(self, count: int) -> int:
        offset, self.next = self.next, self.next + count * self.cluster
        return offset


def map_whole(layer: Layer, fd: int) -> None:
    """After this every cluster has a place; the places of the new ones are reserved and read as zeros. Raises NoSpaceError."""
    file = layer.files[0]
    header = read_header(file)
    tables = _Tables(header, file.size)
    missing = 0
    for extent in layer.extents(0, layer.virtual_size):
        if extent.coded:
            raise _cannot(layer, "it has compressed clusters")
        missing += extent.length if extent.kind != Kind.DATA else 0
    try:
        storage.reserve(fd, tables.first, missing, keep_size=True)
        l1 = _write_l2(layer, header, tables, fd)
        l1_offset = tables.take(-(-l1.nbytes // tables.cluster))
        storage.write_all(fd, l1.tobytes(), l1_offset)
        _refuse_shared(layer, tables)
        table_offset, table_clusters = _write_refcounts(tables, header, fd)
        os.ftruncate(fd, tables.next)
        storage.reserve_rest(fd, tables.next)
        os.fsync(fd)
    except BaseException as error:
        os.ftruncate(fd, file.size)
        if isinstance(error, OSError):
            storage.raise_os(error, f"making {file.path} thick")
        raise
    sector = bytearray(os.pread(fd, 512, 0))
    L1_FIELDS.pack_into(sector, L1_FIELDS_AT, len(l1), l1_offset, table_offset, table_clusters)
    storage.write_all(fd, sector, 0)
    os.fsync(fd)


def _refuse_shared(layer: Layer, tables: _Tables) -> None:
    import numpy as np

    kept = np.concatenate(tables.used)
    if len(np.unique(kept)) < len(kept):
        raise _cannot(layer, "it has clusters that are used twice")


def _write_l2(layer: Layer, header: Header, tables: _Tables, fd: int) -> npt.NDArray[np.uint64]:
    import numpy as np

    covered = header.l2_entries * header.cluster_size
    count = -(-layer.virtual_size // covered)
    l1 = np.zeros(max(count, 1), ">u8")
    for index in range(count):
        start = index * covered
        end = min(layer.virtual_size, start + covered)
        clusters = -(-(end - start) // header.cluster_size)
        entries = np.zeros(header.l2_entries, np.int64)
        for extent in layer.extents(start, end):
            _adopt(entries, extent, start, header.cluster_size)
        fresh = np.flatnonzero(entries[:clusters] == 0)
        l1[index] = tables.take(1) | COPIED
        entries[fresh] = tables.take(len(fresh)) + np.arange(len(fresh)) * header.cluster_size
        tables.used.append(entries[:clusters] // header.cluster_size)
        raw = np.where(entries == 0, np.uint64(0), entries.astype(np.uint64) | np.uint64(COPIED))
        storage.write_all(fd, raw.astype(">u8").tobytes(), int(l1[index]) & ~COPIED)
    return l1


def _adopt(entries: npt.NDArray[np.int64], extent: Extent, start: int, cluster: int) -> None:
    import numpy as np

    if extent.kind != Kind.DATA:
        return
    low, high = (extent.start - start) // cluster, -(-(extent.end - start) // cluster)
    entries[low:high] = extent.offset + np.arange(high - low, dtype=np.int64) * cluster


def _write_refcounts(tables: _Tables, header: Header, fd: int) -> tuple[int, int]:
    """Counts what is in use: kept data, and all that is new. Returns offset and clusters of the table."""
    import numpy as np

    cluster, bits = header.cluster_size, header.refcount_bits
    new = tables.first // cluster
    blocks, table = refcount_room(tables.next // cluster, cluster, bits)
    first_block = tables.take(blocks)
    table_offset = tables.take(table)
    per_block = cluster * 8 // bits
    counts = np.zeros(blocks * per_block, np.uint8)
    counts[np.concatenate(tables.used)] = 1
    counts[new:tables.next // cluster] = 1
    for index in range(blocks):
        block = counts[index * per_block:(index + 1) * per_block]
        storage.write_all(fd, block.astype(f">u{bits // 8}").tobytes(), first_block + index * cluster)
    offsets = [first_block + index * cluster for index in range(blocks)]
    storage.write_all(fd, struct.pack(f">{blocks}Q", *offsets).ljust(table * cluster, b"\0"), table_offset)
    return table_offset, table
