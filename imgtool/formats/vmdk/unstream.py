"""streamOptimized, read from its beginning to its end as it comes: over a network, without a file. See ``stream``."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from imgtool import codec
from imgtool.errors import DamagedError
from imgtool.formats.layer import SECTOR
from imgtool.formats.vmdk import sparse
from imgtool.formats.vmdk.stream import END

Take = Callable[[int], bytes]
"""Gives exactly so many of the bytes that come next, or raises."""
_KIND = struct.Struct("<QII")
LARGEST_GRAIN = 1 << 20
MAX_METADATA = sparse.MAX_DIRECTORY // SECTOR


def grains(take: Take, size: int, name: str) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of what is stored, in ascending order; all else is zeros. ``size``: of the disk. Raises DamagedError."""
    grain, position = _begin(take, size, name), 0
    while True:
        sector = take(SECTOR)
        value, length, kind = _KIND.unpack_from(sector)
        if not length:
            if kind == END:
                return
            if value > MAX_METADATA:
                raise DamagedError(f"{name}: a marker claims {value} sectors of metadata")
            for _ in range(value):
                take(SECTOR)
            continue
        start, data = value * SECTOR, _grain(take, sector, length, grain, name)
        if start < position or start >= size or start % grain:
            raise DamagedError(f"{name}: the grain for byte {start} is out of order")
        if not min(grain, size - start) <= len(data) <= grain:
            raise DamagedError(f"{name}: the grain for byte {start} does not unpack to its size")
        position = start + grain
        yield start, data[:size - start]


def _begin(take: Take, size: int, name: str) -> int:
    """Reads what comes before the first grain; the bytes of a grain."""
    head = take(SECTOR)
    magic, _, flags, sectors, grain, _, _, _, _, _, overhead, _, _, packed = sparse.HEADER.unpack_from(head)
    if magic != sparse.KDMV or not flags & sparse.FLAG_MARKERS or packed != sparse.DEFLATE:
        raise DamagedError(f"{name} is no streamOptimized VMDK")
    if sectors * SECTOR != size:
        raise DamagedError(f"{name} has {sectors * SECTOR} bytes, and the disk {size}")
    if not 0 < grain * SECTOR <= LARGEST_GRAIN or grain & (grain - 1) or not 0 < overhead <= MAX_METADATA:
        raise DamagedError(f"{name}: its header is damaged")
    for _ in range(overhead - 1):
        take(SECTOR)
    return int(grain) * SECTOR


def _grain(take: Take, sector: bytes, length: int, grain: int, name: str) -> memoryview:
    """What is unpacked of it."""
    if length > sparse.MAX_CODED_GRAIN:
        raise DamagedError(f"{name}: a compressed grain of {length} bytes is impossible")
    first, whole = sparse.MARKER.size, -(-(sparse.MARKER.size + length) // SECTOR) * SECTOR
    raw = sector + take(whole - SECTOR) if whole > SECTOR else sector
    return memoryview(codec.inflate(raw[first:first + length], grain + 1))  # one more than there may be: all of it is checked
