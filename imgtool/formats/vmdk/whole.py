"""Gives every grain of an existing sparse VMDK its place in the file, without touching what is there.

Space first, flushed; then the entries of the grain tables, each of which is valid by itself. A crash leaves some grains without a
place, and the same guest bytes. Source: VMware, *Virtual Disk Format 5.0*.
"""

from __future__ import annotations

import os
import re
import struct

from imgtool import storage
from imgtool.errors import UsageError
from imgtool.files import replacing
from imgtool.formats.layer import SECTOR, Layer
from imgtool.formats.vmdk import sparse
from imgtool.formats.vmdk.descriptor import MAX_DESCRIPTOR
from imgtool.formats.vmdk.write import MAX_SECTOR
from imgtool.model import ImageFile

REDUNDANT_FIELD = struct.Struct("<Q")
REDUNDANT_AT = 48
HINT = "imgtool convert --thick makes a thick copy"


def sparse_files(layer: Layer) -> list[ImageFile]:
    """The files of a layer that are sparse extents."""
    return [file for file in layer.files if os.pread(file.fd, 4, 0) == sparse.KDMV]


def check_whole(layer: Layer) -> None:
    """Raises UsageError where this cannot be done in place."""
    if layer.backing:
        raise UsageError(f"{layer.path} cannot be made thick in place: it is a delta", HINT)
    if layer.compressed or layer.subformat in ("vmfsSparse", "seSparse"):
        raise UsageError(f"{layer.path} cannot be made thick in place: it is {layer.subformat}", HINT)
    for file in sparse_files(layer):
        if not all(_directory(file, sparse.read_header(file).directory)):
            raise UsageError(f"{file.path} cannot be made thick in place: grain tables are missing", HINT)


def _directory(file: ImageFile, offset: int) -> list[int]:
    """Offsets of the grain tables."""
    header = sparse.read_header(file)
    count = -(-header.size // header.covered)
    return [sector * SECTOR for sector in struct.unpack(f"<{count}I", os.pread(file.fd, count * 4, offset))]


def map_whole(file: ImageFile, fd: int) -> None:
    """After this every grain has a place; the new ones are reserved and read as zeros. Raises NoSpaceError, UsageError."""
    import numpy as np

    header = sparse.read_header(file)
    tables = _directory(file, header.directory)
    step, first = header.grain // SECTOR, -(-file.size // header.grain) * header.grain // SECTOR
    missing, grains = 0, -(-header.size // header.grain)
    for number, offset in enumerate(tables):
        missing += int(np.count_nonzero(_wanting(_table(file, header, offset), header, grains, number)))
    if first + missing * step > MAX_SECTOR:
        raise UsageError(f"{file.path} would need more than 2 TiB: a sparse VMDK cannot", HINT)
    storage.reserve(fd, first * SECTOR, missing * header.grain)
    os.ftruncate(fd, max(file.size, (first + missing * step) * SECTOR))
    os.fsync(fd)
    copies = _redundant(file, header)
    for number, offset in enumerate(tables):
        entries = _table(file, header, offset)
        fresh = np.flatnonzero(_wanting(entries, header, grains, number))
        entries[fresh] = first + np.arange(len(fresh), dtype=np.int64) * step
        first += len(fresh) * step
        for place in (copies[number] if copies else 0, offset):
            if place:
                os.pwrite(fd, entries.astype("<u4").tobytes(), place)
    os.fsync(fd)


def _table(file: ImageFile, header: sparse.SparseHeader, offset: int):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.frombuffer(os.pread(file.fd, header.table_entries * 4, offset), "<u4").astype(np.int64)


def _wanting(entries, header: sparse.SparseHeader, grains: int, number: int):  # type: ignore[no-untyped-def]
    """Entries without a grain, those behind the end of the disk left out."""
    import numpy as np

    wanting = entries <= (1 if header.flags & sparse.FLAG_ZERO_GRAIN else 0)
    return wanting & (np.arange(len(entries)) + number * header.table_entries < grains)


def _redundant(file: ImageFile, header: sparse.SparseHeader) -> list[int]:
    if not header.flags & sparse.FLAG_REDUNDANT:
        return []
    (sector,) = REDUNDANT_FIELD.unpack(os.pread(file.fd, 8, REDUNDANT_AT))
    return _directory(file, sector * SECTOR) if 0 < sector * SECTOR < file.size else []


def say_thin(layer: Layer, *, thin: bool) -> None:
    """``ddb.thinProvisioned`` of a vmfs descriptor is there only when it is true."""
    file = layer.files[0]
    if layer.subformat != "vmfs" or layer.details.get("thin_provisioned") == thin:
        return
    raw = os.pread(file.fd, MAX_DESCRIPTOR, 0)
    without = re.sub(rb'(?mi)^ddb\.thinProvisioned\s*=.*\r?\n?', b"", raw)
    with replacing(file.path) as out:
        out.write(without.rstrip(b"\n") + b'\nddb.thinProvisioned = "1"\n' if thin else without)
