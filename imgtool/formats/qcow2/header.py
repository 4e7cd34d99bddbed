"""The header of a qcow2 image, its extensions and its table of snapshots.

Specification: docs/interop/qcow2.txt of QEMU. All numbers big-endian.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from imgtool.errors import DamagedError
from imgtool.formats.layer import read_at
from imgtool.model import ImageFile, Snapshot

MAGIC = b"QFI\xfb"
V2 = struct.Struct(">4sIQIIQIIQQIIQ")
V3 = struct.Struct(">QQQII")
V2_LENGTH = V2.size
V3_LENGTH = 112
"""With the compression type and its padding; 104 without."""

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
LAZY_REFCOUNTS = 1

EXT_END = 0
EXT_BACKING_FORMAT = 0xE2792ACA
EXT_BITMAPS = 0x23852875
EXT_DATA_FILE = 0x44415441

MAX_L1 = 32 << 20
"""Bytes, as in QEMU."""
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE = 16 << 20
CRYPT = {0: None, 1: "aes", 2: "luks"}
COMPRESSION_TYPES = {0: "zlib", 1: "zstd"}


@dataclass(frozen=True, kw_only=True)
class Header:
    version: int
    backing: str | None
    backing_format: str | None
    data_file: str | None
    cluster_bits: int
    virtual_size: int
    encryption: str | None
    l1_size: int
    """Entries."""
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshot_count: int
    snapshot_offset: int
    incompatible: int
    compatible: int
    autoclear: int
    refcount_bits: int
    compression: str
    bitmaps: bool

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def extended(self) -> bool:
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def l2_entry_size(self) -> int:
        return 16 if self.extended else 8

    @property
    def l2_entries(self) -> int:
        return self.cluster_size // self.l2_entry_size


def read_header(file: ImageFile) -> Header:
    """Raises DamagedError for whatever is out of range."""
    head = read_at(file, 4096, 0)
    if len(head) < V2_LENGTH or head[:4] != MAGIC:
        raise DamagedError(f"{file.path} has no qcow2 header")
    (_, version, backing_at, backing_length, cluster_bits, size, crypt, l1_size, l1_offset, refcount_offset,
     refcount_clusters, snapshot_count, snapshot_offset) = V2.unpack_from(head)
    if version not in (2, 3):
        raise DamagedError(f"{file.path}: qcow version {version} is not supported", "qcow2 has versions 2 and 3")
    incompatible = compatible = autoclear = 0
    refcount_order, header_length, compression = 4, V2_LENGTH, 0
    if version == 3:
        if len(head) < V2_LENGTH + V3.size:
            raise DamagedError(f"{file.path}: the header is cut off")
        incompatible, compatible, autoclear, refcount_order, header_length = V3.unpack_from(head, V2_LENGTH)
        if incompatible & COMPRESSION and len(head) > 104:
            compression = head[104]
    _check(file, cluster_bits, incompatible, refcount_order, header_length, crypt, compression)
    _check_tables(file, cluster_bits, incompatible, size, l1_size, l1_offset, snapshot_count)
    backing = _text(file, backing_at, backing_length, "backing file name") if backing_at else None
    extensions = _extensions(file, header_length, backing_at or (1 << cluster_bits))
    return Header(
        version=version, backing=backing or None,
        backing_format=extensions.get(EXT_BACKING_FORMAT, b"").decode("ascii", "replace") or None,
        data_file=_data_file(file, incompatible, extensions), cluster_bits=cluster_bits, virtual_size=size,
        encryption=CRYPT[crypt], l1_size=l1_size, l1_offset=l1_offset, refcount_offset=refcount_offset,
        refcount_clusters=refcount_clusters, snapshot_count=snapshot_count, snapshot_offset=snapshot_offset,
        incompatible=incompatible, compatible=compatible, autoclear=autoclear, refcount_bits=1 << refcount_order,
        compression=COMPRESSION_TYPES[compression], bitmaps=EXT_BITMAPS in extensions)


def _check(file: ImageFile, cluster_bits: int, incompatible: int, refcount_order: int, header_length: int, crypt: int,
           compression: int) -> None:
    if not 9 <= cluster_bits <= 21:
        raise DamagedError(f"{file.path}: a cluster of 2^{cluster_bits} bytes is impossible")
    if incompatible & ~KNOWN_INCOMPATIBLE:
        raise DamagedError(f"{file.path} uses features that imgtool does not know (bits {incompatible & ~KNOWN_INCOMPATIBLE:#x})",
                           "convert it with the qemu-img that made it")
    if incompatible & EXTENDED_L2 and cluster_bits < 14:
        raise DamagedError(f"{file.path}: subclusters need clusters of at least 16 KiB")
    if refcount_order > 6 or not V2_LENGTH <= header_length <= 1 << cluster_bits:
        raise DamagedError(f"{file.path}: the header is damaged")
    if crypt not in CRYPT:
        raise DamagedError(f"{file.path}: unknown encryption method {crypt}")
    if compression not in COMPRESSION_TYPES:
        raise DamagedError(f"{file.path}: unknown compression type {compression}")


def _check_tables(file: ImageFile, cluster_bits: int, incompatible: int, size: int, l1_size: int, l1_offset: int,
                  snapshot_count: int) -> None:
    entry = 16 if incompatible & EXTENDED_L2 else 8
    covered = (1 << cluster_bits) // entry << cluster_bits
    if size >= 1 << 63 or size % 512 or l1_size * 8 > MAX_L1:
        raise DamagedError(f"{file.path}: a virtual size of {size} bytes with {l1_size} L1 entries is impossible")
    if l1_size * covered < size:
        raise DamagedError(f"{file.path}: the L1 table is too small for {size} bytes")
    if l1_size and (l1_offset % (1 << cluster_bits) or l1_offset + l1_size * 8 > file.size):
        raise DamagedError(f"{file.path}: the L1 table lies outside the file", "the file may be cut off")
    if snapshot_count > MAX_SNAPSHOTS:
        raise DamagedError(f"{file.path}: {snapshot_count} snapshots are impossible")


def _text(file: ImageFile, offset: int, length: int, what: str) -> str:
    if length > 1023:
        raise DamagedError(f"{file.path}: the {what} is too long")
    data = read_at(file, length, offset)
    if len(data) < length:
        raise DamagedError(f"{file.path}: the {what} lies outside the file")
    return os.fsdecode(data)


def _extensions(file: ImageFile, offset: int, end: int) -> dict[int, bytes]:
    """Header extensions: type, length, data padded to 8. They end before the backing file's name."""
    found: dict[int, bytes] = {}
    area = read_at(file, min(end, 1 << 16) - offset, offset)
    position = 0
    while position + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, position)
        if kind == EXT_END:
            break
        if position + 8 + length > len(area):
            raise DamagedError(f"{file.path}: a header extension is longer than its room")
        found[kind] = area[position + 8:position + 8 + length]
        position += 8 + -(-length // 8) * 8
    return found


def _data_file(file: ImageFile, incompatible: int, extensions: dict[int, bytes]) -> str | None:
    if not incompatible & DATA_FILE:
        return None
    name = os.fsdecode(extensions.get(EXT_DATA_FILE, b""))
    if not name:
        raise DamagedError(f"{file.path}: its data is in an external data file, whose name is missing")
    return name


def read_snapshots(file: ImageFile, header: Header) -> tuple[Snapshot, ...]:
    """The internal snapshots. Raises DamagedError if the table is cut off."""
    if not header.snapshot_count:
        return ()
    table = read_at(file, MAX_SNAPSHOT_TABLE, header.snapshot_offset)
    fixed = struct.Struct(">QIHHIIQII")
    position, found = 0, []
    for _ in range(header.snapshot_count):
        if position + fixed.size > len(table):
            raise DamagedError(f"{file.path}: the snapshot table is cut off")
        _, _, id_length, name_length, seconds, nanos, _, state_size, extra = fixed.unpack_from(table, position)
        text = position + fixed.size + extra
        end = text + id_length + name_length
        if end > len(table):
            raise DamagedError(f"{file.path}: the snapshot table is cut off")
        size = header.virtual_size
        if extra >= 8:
            state_size = int.from_bytes(table[text - extra:text - extra + 8], "big")
        if extra >= 16:
            size = int.from_bytes(table[text - extra + 8:text - extra + 16], "big")
        found.append(Snapshot(
            id=table[text:text + id_length].decode(errors="replace"),
            name=table[text + id_length:end].decode(errors="replace"), virtual_size=size, vm_state_size=state_size,
            date=datetime.fromtimestamp(seconds + nanos // 10**9, UTC).isoformat().replace("+00:00", "Z")))
        position = -(-end // 8) * 8
    return tuple(found)
