"""Gives every grain of an existing sparse VMDK its place in the file, without touching what is there.

Space first, flushed; then the entries of the grain tables, each of which is valid by itself. A crash leaves some grains without a
place, and the same guest bytes. Source: VMware, *Virtual Disk Format 5.0*.
"""

from __future__ import annotations

import os
import re
import struct
from itertools import pairwise

from imgtool import storage
from imgtool.errors import DamagedError, UsageError
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
    """Raises UsageError, DamagedError where this cannot be done in place."""
    if layer.backing:
        raise UsageError(f"{layer.path} cannot be made thick in place: it is a delta", HINT)
    if layer.compressed or layer.subformat in ("vmfsSparse", "seSparse"):
        raise UsageError(f"{layer.path} cannot be made thick in place: it is {layer.subformat}", HINT)
    for file in sparse_files(layer):
        header = sparse.read_header(file)
        if header.size > MAX_SECTOR * SECTOR:
            raise _too_large(file)
        if not all(_directory(file, header, header.directory)):
            raise UsageError(f"{file.path} cannot be made thick in place: grain tables are missing", HINT)
        _refuse_overlaps(file, header)


def _too_large(file: ImageFile) -> UsageError:
    return UsageError(f"{file.path} would need more than 2 TiB: a sparse VMDK cannot", HINT)


def _count(header: sparse.SparseHeader) -> int:
    """Grain tables."""
    return -(-header.size // header.covered)


def _directory(file: ImageFile, header: sparse.SparseHeader, offset: int) -> list[int]:
    """Offsets of the grain tables."""
    return [sector * SECTOR for (sector,) in struct.iter_unpack("<I", os.pread(file.fd, _count(header) * 4, offset))]


def _refuse_overlaps(file: ImageFile, header: sparse.SparseHeader) -> None:
    """The tables will be written. Nobody reads the redundant ones, so that nobody has noticed if they lie in the guest's data."""
    import numpy as np

    tables, size = _directory(file, header, header.directory), header.table_entries * 4
    copies = _redundant_directory(file, header)
    taken = [(0, SECTOR), (header.descriptor_offset, header.descriptor_size), (header.directory, _count(header) * 4),
             (copies, _count(header) * 4 if copies else 0), *((place, size) for place in tables),
             *((place, size) for place in _redundant(file, header) if place)]
    places = sorted((place, place + length) for place, length in taken if length)
    if places[-1][1] > file.size or any(one[1] > other[0] for one, other in pairwise(places)):
        raise _overlaps(file)
    starts, ends = np.array(places, np.int64).T
    for offset in tables:
        entries = _table(file, header, offset)
        grains = entries[entries > (1 if header.flags & sparse.FLAG_ZERO_GRAIN else 0)] * SECTOR
        inside = np.searchsorted(starts, grains + header.grain) != np.searchsorted(ends, grains, "right")
        if np.any(inside | (grains >= file.size)):
            raise _overlaps(file)


def _overlaps(file: ImageFile) -> DamagedError:
    return DamagedError(f"{file.path} cannot be made thick in place: its grain tables overlap each other or the guest's data, "
                        "or point beyond the end of the file", HINT)


def map_whole(file: ImageFile, fd: int) -> None:
    """After this every grain has a place; the new ones are reserved and read as zeros. Raises NoSpaceError, UsageError."""
    import numpy as np

    header = sparse.read_header(file)
    tables = _directory(file, header, header.directory)
    step, first = header.grain // SECTOR, -(-file.size // header.grain) * header.grain // SECTOR
    missing, grains = 0, -(-header.size // header.grain)
    for number, offset in enumerate(tables):
        missing += int(np.count_nonzero(_wanting(_table(file, header, offset), header, grains, number)))
    if first + missing * step > MAX_SECTOR:
        raise _too_large(file)
    try:
        storage.reserve(fd, first * SECTOR, missing * header.grain)
        os.ftruncate(fd, max(file.size, (first + missing * step) * SECTOR))
        os.fsync(fd)
    except BaseException:  # what there was has been taken
        os.ftruncate(fd, file.size)
        raise
    copies = _redundant(file, header)
    for number, offset in enumerate(tables):
        entries = _table(file, header, offset)
        fresh = np.flatnonzero(_wanting(entries, header, grains, number))
        entries[fresh] = first + np.arange(len(fresh), dtype=np.int64) * step
        first += len(fresh) * step
        for place in (copies[number] if copies else 0, offset):
            if place:
                storage.write_all(fd, entries.astype("<u4").tobytes(), place)
    os.fsync(fd)


def _table(file: ImageFile, header: sparse.SparseHeader, offset: int):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.frombuffer(os.pread(file.fd, header.table_entries * 4, offset), "<u4").astype(np.int64)


def _wanting(entries, header: sparse.SparseHeader, grains: int, number: int):  # type: ignore[no-untyped-def]
    """Entries without a grain, those behind the end of the disk left out."""
    import numpy as np

    wanting = entries <= (1 if header.flags & sparse.FLAG_ZERO_GRAIN else 0)
    return wanting & (np.arange(len(entries)) + number * header.table_entries < grains)


def _redundant_directory(file: ImageFile, header: sparse.SparseHeader) -> int:
    """Its offset; 0 if there is none."""
    (sector,) = REDUNDANT_FIELD.unpack(os.pread(file.fd, 8, REDUNDANT_AT))
    there = header.flags & sparse.FLAG_REDUNDANT and sector * SECTOR + _count(header) * 4 <= file.size
    return sector * SECTOR if there else 0


def _redundant(file: ImageFile, header: sparse.SparseHeader) -> list[int]:
    offset = _redundant_directory(file, header)
    return _directory(file, header, offset) if offset else []


def say_thin(layer: Layer, *, thin: bool) -> None:
    """``ddb.thinProvisioned`` of a vmfs descriptor is there only when it is true."""
    file = layer.files[0]
    if layer.subformat != "vmfs" or layer.details.get("thin_provisioned") == thin:
        return
    raw = os.pread(file.fd, MAX_DESCRIPTOR, 0)
    without = re.sub(rb'(?mi)^ddb\.thinProvisioned\s*=.*\r?\n?', b"", raw)
    with replacing(file.path) as out:
        out.write(without.rstrip(b"\n") + b'\nddb.thinProvisioned = "1"\n' if thin else without)
