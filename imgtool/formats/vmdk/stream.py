"""streamOptimized: a sparse extent that is written from its beginning to its end, grain by compressed grain.

Source: VMware, *Virtual Disk Format 5.0*, section "Stream-Optimized Compressed Sparse Extents". Layout: header (version 3, its
grain directory "at the end") | descriptor | for each grain table: its grains, each with a marker, then the table with its
marker | grain directory with its marker | footer with its marker | end-of-stream marker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgtool.errors import UsageError
from imgtool.formats.layer import SECTOR
from imgtool.formats.vmdk import sparse
from imgtool.formats.vmdk.write import COVERED, DESCRIPTOR_SECTORS, GRAIN, MAX_SECTOR, TABLE_ENTRIES

VERSION = 3
OVERHEAD = 128
"""Sectors before the first grain, as VMware's tools have it."""
FLAGS = sparse.FLAG_NEWLINE | sparse.FLAG_COMPRESSED | sparse.FLAG_MARKERS
END, TABLE, DIRECTORY, FOOTER = range(4)
"""Types of metadata markers."""
_METADATA = struct.Struct("<QII")
_PADDING = [bytes(-length % SECTOR) for length in range(SECTOR)]
"""By what a length has over whole sectors."""


class Grains(NamedTuple):
    """Grains behind their markers, padded to sectors: the guest offset of each, and its sector in ``data``."""

    starts: list[int]
    sectors: list[int]
    data: bytes


def joined(packed: Iterable[tuple[int, bytes]]) -> Grains:
    """Of grains by guest offset and compressed bytes; work that needs no order among several."""
    starts, sectors, parts, sector = [], [], [], 0
    for start, payload in packed:
        length = sparse.MARKER.size + len(payload)
        starts.append(start)
        sectors.append(sector)
        parts += [sparse.MARKER.pack(start // SECTOR, len(payload)), payload, _PADDING[length % SECTOR]]
        sector += -(-length // SECTOR)
    return Grains(starts, sectors, b"".join(parts))


class Stream:
    """Turns grains, in ascending order, into the bytes of the file. Knows no file: the bytes may go over a network."""

    def __init__(self, size: int, descriptor: bytes) -> None:
        if len(descriptor) > DESCRIPTOR_SECTORS * SECTOR:
            raise UsageError("the name is too long for a VMDK descriptor")
        self._size, self._descriptor = size, descriptor
        self._directory = [0] * max(1, -(-size // COVERED))
        self._table = [0] * TABLE_ENTRIES
        self._index = -1
        self._sector = 0

    def _take(self, data: bytes) -> bytes:
        """Pads to sectors and counts them."""
        padded = data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")
        self._sector += len(padded) // SECTOR
        if self._sector > MAX_SECTOR:
            raise UsageError("a streamOptimized VMDK holds at most 2 TiB of compressed data", "--subformat monolithicFlat")
        return padded

    def _header(self, directory: int) -> bytes:
        return sparse.HEADER.pack(sparse.KDMV, VERSION, FLAGS, self._size // SECTOR, GRAIN // SECTOR, 1, DESCRIPTOR_SECTORS,
                                  TABLE_ENTRIES, 0, directory, OVERHEAD, 0, sparse.LINE_ENDS, sparse.DEFLATE)

    def begin(self) -> bytes:
        head = self._header(sparse.GD_AT_END).ljust(SECTOR, b"\0") + self._descriptor
        return self._take(head.ljust(OVERHEAD * SECTOR, b"\0"))

    def grains(self, run: Grains) -> Iterator[bytes]:
        """The grains that come next, all of one table."""
        index = run.starts[0] // COVERED
        if index != self._index:
            yield from self._end_table()
            self._index = index
        for start, sector in zip(run.starts, run.sectors, strict=True):
            self._table[start % COVERED // GRAIN] = self._sector + sector
        yield self._take(run.data)

    def _end_table(self) -> Iterator[bytes]:
        if self._index < 0:
            return
        raw = struct.pack(f"<{TABLE_ENTRIES}I", *self._table)
        yield self._metadata(TABLE, raw)
        self._directory[self._index] = self._sector - len(raw) // SECTOR
        self._table = [0] * TABLE_ENTRIES

    def _metadata(self, kind: int, raw: bytes) -> bytes:
        marker = _METADATA.pack(-(-len(raw) // SECTOR), 0, kind).ljust(SECTOR, b"\0")
        return self._take(marker) + (self._take(raw) if raw else b"")

    def end(self) -> Iterator[bytes]:
        yield from self._end_table()
        raw = struct.pack(f"<{len(self._directory)}I", *self._directory)
        yield self._metadata(DIRECTORY, raw)
        directory = self._sector - -(-len(raw) // SECTOR)
        yield self._metadata(FOOTER, self._header(directory))
        yield bytes(SECTOR)
