"""Reads a streamOptimized VMDK from its first byte to its last, without its tables: an independent second reader for tests.

Source: VMware, *Virtual Disk Format 5.0*, "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents": the
structures SparseExtentHeader, GrainMarker, MetaDataMarker, EOSMarker. Numbers are little-endian, places in sectors of 512 bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

SECTOR, GRAIN, ENTRIES = 512, 128, 512
"""Bytes; sectors; entries of a grain table."""
GRAIN_BYTES = GRAIN * SECTOR
END, TABLE, DIRECTORY, FOOTER = range(4)
AT_END = 0xFFFFFFFFFFFFFFFF


class Header(NamedTuple):
    """SparseExtentHeader."""

    magic: int
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    entries: int
    redundant: int
    directory: int
    overhead: int
    unclean: int
    newlines: bytes
    compression: int
    pad: bytes


_HEADER = struct.Struct("<IIIQQQQIQQQB4sH433s")


class Grain(NamedTuple):
    sector: int
    """Where its marker stands."""
    lba: int
    packed: int
    """Bytes."""
    data: bytes


class Metadata(NamedTuple):
    sector: int
    """Where its marker stands; the metadata follows it."""
    kind: int
    raw: bytes


@dataclass
class Streamed:
    header: Header
    descriptor: str
    records: list[Grain | Metadata] = field(default_factory=list)
    """In the order of the file; the end-of-stream marker is the last."""

    @property
    def grains(self) -> list[Grain]:
        return [record for record in self.records if isinstance(record, Grain)]

    def metadata(self, kind: int) -> list[Metadata]:
        return [record for record in self.records if isinstance(record, Metadata) and record.kind == kind]

    @property
    def footer(self) -> Header:
        (found,) = self.metadata(FOOTER)
        return parse_header(found.raw)


def parse_header(raw: bytes) -> Header:
    return Header(*_HEADER.unpack(raw[:SECTOR]))


def numbers(raw: bytes) -> list[int]:
    """Entries of a grain table or directory."""
    return [value for (value,) in struct.iter_unpack("<I", raw)]


def read(raw: bytes) -> Streamed:
    """Fails where bytes are not what the layout says, or are left over."""
    assert len(raw) % SECTOR == 0
    header = parse_header(raw)
    begin, size = header.descriptor * SECTOR, header.descriptor_size * SECTOR
    text = raw[begin:begin + size]
    streamed = Streamed(header, text.rstrip(b"\0").decode())
    assert not raw[begin + size:header.overhead * SECTOR].strip(b"\0"), "something between descriptor and grains"
    sector = header.overhead
    while True:
        record, sector = _record(raw, sector)
        streamed.records.append(record)
        if isinstance(record, Metadata) and record.kind == END:
            assert sector * SECTOR == len(raw), "something behind the end of the stream"
            return streamed


def _record(raw: bytes, sector: int) -> tuple[Grain | Metadata, int]:
    """The record at a sector, and the sector behind it."""
    value, size, kind = struct.unpack_from("<QII", raw, sector * SECTOR)
    if size:
        return _grain(raw, sector, value, size)
    assert not raw[sector * SECTOR + 16:(sector + 1) * SECTOR].strip(b"\0"), "a marker's padding"
    assert kind in (END, TABLE, DIRECTORY, FOOTER), kind
    assert (value == 0) == (kind == END)
    behind = sector + 1 + value
    return Metadata(sector, kind, raw[(sector + 1) * SECTOR:behind * SECTOR]), behind


def _grain(raw: bytes, sector: int, lba: int, size: int) -> tuple[Grain, int]:
    begin = sector * SECTOR + 12
    behind = -(-(begin + size) // SECTOR)
    assert behind * SECTOR <= len(raw), "a grain behind the end of the file"
    assert not raw[begin + size:behind * SECTOR].strip(b"\0"), "a grain's padding"
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(raw[begin:begin + size])
    assert unpacker.eof, f"grain {lba} is cut off"
    assert not unpacker.unused_data, f"grain {lba} has bytes left over"
    return Grain(sector, lba, size, data), behind
