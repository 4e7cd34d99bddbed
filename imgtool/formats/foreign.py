"""VHDX, VHD (``vpc``) and VDI: read through qemu-nbd, written through qemu-img.

Only what tells one from another, and what qemu-img does not say, is read here. Sources: MS-VHDX; *Virtual Hard Disk Image Format
Specification* (Microsoft, 2006); VirtualBox' VDICore.h.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

from imgtool.errors import DamagedError, MissingToolError, RefusedError
from imgtool.formats.layer import SECTOR, Layer, read_at
from imgtool.formats.opener import Opener
from imgtool.model import Extent, ImageFile, Kind

VHDX_MAGIC = b"vhdxfile"
VPC_COOKIE = b"conectix"
VHDX_REGIONS_AT = 192 << 10
VHDX_METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
VHDX_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VHDX_FIXED, VHDX_HAS_PARENT = 1, 2
VDI_SIGNATURE = 0xBEDA107F
VDI_SIGNATURE_AT = 64
VPC_FIXED, VPC_DYNAMIC, VPC_DIFFERENCING = 2, 3, 4
VDI_DYNAMIC, VDI_FIXED = 1, 2

STATUS_RANGE = 1 << 30
"""Bytes that one request for the block status covers."""
READ = 32 << 20
NBD_HOLE, NBD_ZERO = 1, 2


def is_vdi(head: bytes) -> bool:
    return len(head) >= 68 and struct.unpack_from("<I", head, VDI_SIGNATURE_AT)[0] == VDI_SIGNATURE


def _vpc_subformat(file: ImageFile) -> str:
    footer = os.pread(file.fd, 512, max(0, file.size - 512))
    if footer[:8] != VPC_COOKIE:
        footer = os.pread(file.fd, 512, 0)
    kind = struct.unpack_from(">I", footer.ljust(64, b"\0"), 60)[0]
    if kind == VPC_DIFFERENCING:
        raise RefusedError(f"{file.path} is a differencing VHD: it needs its parent", "merge it with its parent first")
    if kind not in (VPC_FIXED, VPC_DYNAMIC):
        raise DamagedError(f"{file.path}: VHD type {kind} is impossible")
    return "fixed" if kind == VPC_FIXED else "dynamic"


def _vdi_subformat(file: ImageFile) -> str:
    kind = struct.unpack_from("<I", os.pread(file.fd, 80, 0).ljust(80, b"\0"), 76)[0]
    if kind not in (VDI_DYNAMIC, VDI_FIXED):
        raise RefusedError(f"{file.path} is a VDI of type {kind}: an undo or differencing image needs its parent",
                           "clone it to a full image in VirtualBox first")
    return "static" if kind == VDI_FIXED else "dynamic"


def _vhdx_subformat(file: ImageFile) -> str:
    """By the bits of the file parameters: [MS-VHDX] 2.2.3 (region table), 2.6.1 (metadata table), 2.6.2.1."""
    region = _vhdx_entry(os.pread(file.fd, 1 << 16, VHDX_REGIONS_AT), b"regi", 16, VHDX_METADATA_REGION, "<16xQI")
    item = _vhdx_entry(read_at(file, 1 << 16, region), b"metadata", 32, VHDX_FILE_PARAMETERS, "<16xII") if region else 0
    raw = read_at(file, 8, region + item) if item else b""
    if len(raw) < 8:
        raise DamagedError(f"{file.path}: the VHDX has no file parameters", "the file may be cut off")
    flags = struct.unpack_from("<I", raw, 4)[0]
    if flags & VHDX_HAS_PARENT:
        raise RefusedError(f"{file.path} is a differencing VHDX: it needs its parent", "merge it with its parent first")
    return "fixed" if flags & VHDX_FIXED else "dynamic"


def _vhdx_entry(table: bytes, signature: bytes, first: int, wanted: uuid.UUID, form: str) -> int:
    """The offset that an entry of a VHDX table has; 0 if there is none. Entries have 32 bytes."""
    if not table.startswith(signature):
        return 0
    for at in range(first, len(table) - 31, 32):
        if table[at:at + 16] == wanted.bytes_le:
            return int(struct.unpack_from(form, table, at)[0])
    return 0


def open_vpc(file: ImageFile, opener: Opener) -> Layer:
    return _open(file, opener, "vpc", _vpc_subformat)


def open_vdi(file: ImageFile, opener: Opener) -> Layer:
    return _open(file, opener, "vdi", _vdi_subformat)


def open_vhdx(file: ImageFile, opener: Opener) -> Layer:
    return _open(file, opener, "vhdx", _vhdx_subformat)


def _open(file: ImageFile, opener: Opener, driver: str, subformat: Callable[[ImageFile], str]) -> Layer:
    if file.base:
        raise RefusedError(f"{file.path} is a {driver} image in an archive, where imgtool cannot read it", "unpack the archive")
    kind = subformat(file)
    from imgtool import qemu

    facts = qemu.info(file.path, driver, stop=opener.stop)
    size, cluster = facts.get("virtual-size"), facts.get("cluster-size")
    if not isinstance(size, int):
        raise DamagedError(f"{file.path}: qemu-img does not report its size")
    served = Served(file, driver, size, opener)
    return Layer(path=file.path, format=driver, subformat=kind, virtual_size=size, files=(file,), extents=served.extents,
                 decode=served.read, cluster_size=cluster if isinstance(cluster, int) else None)


class Served:
    """An image behind qemu-nbd, started when the first byte is asked for, ended with its opener."""

    def __init__(self, file: ImageFile, driver: str, size: int, opener: Opener) -> None:
        self._file, self._driver, self._size, self._opener = file, driver, size, opener
        self._handle: Any = None

    def _connected(self) -> Any:
        if self._handle is None:
            from imgtool import qemu  # loads much that other formats do not need

            nbd = load_nbd()
            stack = ExitStack()
            self._opener.on_close(stack.close)
            graph = {"driver": self._driver, "file": qemu.file_node(self._file, locking=False)}
            socket = stack.enter_context(qemu.nbd_server(graph, stop=self._opener.stop))
            handle = nbd.NBD()
            handle.add_meta_context("base:allocation")
            handle.connect_unix(socket)
            stack.callback(handle.shutdown)
            self._handle = handle
        return self._handle

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        position = start
        while position < end:
            for length, flags in self._status(position, min(STATUS_RANGE, end - position)):
                length = min(length, end - position)  # noqa: PLW2901
                kind = Kind.UNALLOCATED if flags & NBD_HOLE else Kind.ZERO
                if not flags & NBD_ZERO:
                    kind = Kind.DATA
                if length > 0:
                    yield Extent(position, length, kind)
                position += length

    def _status(self, offset: int, length: int) -> list[tuple[int, int]]:
        found: list[int] = []

        def on_extents(context: str, _offset: int, entries: list[int], _error: object) -> None:
            if context == "base:allocation":
                found.extend(entries)

        handle = self._connected()
        try:
            handle.block_status(length, offset, on_extents)
        except load_nbd().Error as error:
            raise DamagedError(f"{self._file.path}: {error}") from error
        return list(zip(found[::2], found[1::2], strict=True))

    def read(self, extent: Extent) -> bytes:
        """Asks for whole sectors, as VHDX wants it: odd ranges come of a raw file on the other side of a comparison."""
        handle = self._connected()
        low, high = extent.start // SECTOR * SECTOR, -(-extent.end // SECTOR) * SECTOR
        try:
            parts = [bytes(handle.pread(min(READ, high - at), at)) for at in range(low, high, READ)]
        except load_nbd().Error as error:
            raise DamagedError(f"{self._file.path}: {error}") from error
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data if len(data) == extent.length else data[extent.start - low:][:extent.length]


def load_nbd() -> Any:
    """The libnbd module. Raises MissingToolError."""
    try:
        import nbd
    except ImportError as error:
        raise MissingToolError("the Python binding of libnbd is not installed", "apt-get install python3-libnbd") from error
    return cast("Any", nbd)
