"""A VMDK as a layer: one descriptor, one or more extents of any kind.

Source: VMware, *Virtual Disk Format 5.0*.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgtool.errors import DamagedError, RefusedError
from imgtool.formats.layer import SECTOR, Backing, Layer, read_at
from imgtool.formats.opener import Opener
from imgtool.formats.runs import shifted
from imgtool.formats.vmdk import descriptor as text
from imgtool.formats.vmdk.descriptor import Descriptor, ExtentLine
from imgtool.formats.vmdk.sesparse import open_sesparse
from imgtool.formats.vmdk.sparse import COWD, KDMV, SparseExtent, SparseHeader, read_header
from imgtool.model import Extent, ImageFile, Kind

FLAT_NAME = re.compile(r"-flat\.vmdk$", re.IGNORECASE)
PART_NAME = re.compile(r"-([fs]\d{3,}|delta|sesparse|rdm|rdmp|ctk)\.vmdk$", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """One extent line, opened: a range of the disk and where its data is."""

    start: int
    length: int
    extents: Callable[[int, int], Iterator[Extent]]
    file: ImageFile | None = None
    sparse: SparseExtent | None = None


def open_vmdk(file: ImageFile, opener: Opener) -> Layer:
    """The layer of a descriptor, or of a sparse file that has its descriptor in it. Its parent is only named."""
    head = read_at(file, SECTOR, 0)
    if head[:4] in (KDMV, COWD):
        header = read_header(file)
        raw = _embedded(file, header)
        parts = _single(file, header)
    else:
        raw = read_at(file, text.MAX_DESCRIPTOR + 1, 0)
        header, parts = None, []
    described = text.parse(raw, file.path)
    if "encryption.keysafe" in described.pairs or "keysafe" in described.create_type.lower():
        raise RefusedError(f"{file.path} is encrypted", "decrypt the machine on its host first")
    if header is None:
        parts = list(_parts(described, file, opener))
    elif any(line.type == "SPARSE" and line.sectors != header.sectors for line in described.extents[:1]):
        raise DamagedError(f"{file.path}: descriptor and header do not agree on the size")
    return _layer(file, described, parts, header)


def _embedded(file: ImageFile, header: SparseHeader) -> bytes:
    if not header.descriptor_offset or not header.descriptor_size:
        raise RefusedError(f"{file.path} is one extent of a disk, not the disk",
                           "name the descriptor, the small .vmdk that lists its extents")
    return read_at(file, min(header.descriptor_size, text.MAX_DESCRIPTOR), header.descriptor_offset)


def _single(file: ImageFile, header: SparseHeader) -> list[Part]:
    sparse = SparseExtent(file, header)
    return [Part(0, header.size, sparse.extents, file, sparse)]


def _parts(described: Descriptor, file: ImageFile, opener: Opener) -> Iterator[Part]:
    start = 0
    for line in described.extents:
        yield _part(line, start, file, opener)
        start += line.sectors * SECTOR


def _part(line: ExtentLine, start: int, file: ImageFile, opener: Opener) -> Part:
    length = line.sectors * SECTOR
    if line.type == "ZERO":
        return Part(start, length, _constant(Kind.ZERO))
    if line.access == "NOACCESS":
        raise RefusedError(f"{file.path}: the extent {line.name!r} may not be read (NOACCESS)")
    if line.type in text.DEVICE_TYPES:
        raise RefusedError(f"{file.path} is a raw device mapping: its data is on a LUN, not in {line.name!r}",
                           "convert the LUN itself, as a block device")
    if line.name is None or line.type not in (*text.FLAT_TYPES, *text.SPARSE_TYPES):
        raise DamagedError(f"{file.path}: an extent of the unknown type {line.type!r}")
    opened = opener.named(line.name, file, extent=True)
    if line.type in text.FLAT_TYPES:
        if opened.size < line.offset * SECTOR + length:
            raise DamagedError(f"{opened.path} has {opened.size} bytes, {file.path} says {line.offset * SECTOR + length}",
                               "the file may be cut off")
        return Part(start, length, _flat(opened, line.offset * SECTOR), opened)
    sparse = open_sesparse(opened) if line.type == "SESPARSE" else SparseExtent(opened, read_header(opened))
    size = sparse.size if not isinstance(sparse, SparseExtent) else sparse.header.size
    if size < length:
        raise DamagedError(f"{opened.path} holds {size} bytes, {file.path} says {length}")
    return Part(start, length, sparse.extents, opened, sparse if isinstance(sparse, SparseExtent) else None)


def _constant(kind: Kind) -> Callable[[int, int], Iterator[Extent]]:
    def extents(start: int, end: int) -> Iterator[Extent]:
        yield Extent(start, end - start, kind)

    return extents


def _flat(file: ImageFile, offset: int) -> Callable[[int, int], Iterator[Extent]]:
    def extents(start: int, end: int) -> Iterator[Extent]:
        yield Extent(start, end - start, Kind.DATA, file, offset + start)

    return extents


def _layer(file: ImageFile, described: Descriptor, parts: list[Part], header: SparseHeader | None) -> Layer:
    by_file = {id(part.file): part for part in parts if part.sparse}

    starts = [part.start for part in parts]

    def extents(start: int, end: int) -> Iterator[Extent]:
        for part in parts[max(0, bisect_right(starts, start) - 1):bisect_left(starts, end)]:
            low, high = max(start, part.start), min(end, part.start + part.length)
            if low < high:
                yield from shifted(part.extents(low - part.start, high - part.start), part.start)

    def decode(extent: Extent) -> bytes | bytearray:
        part = by_file[id(extent.file)]
        assert part.sparse is not None  # noqa: S101 - only these are in by_file
        return part.sparse.decode(extent, part.start)

    files = list({part.file.path: part.file for part in parts if part.file and part.file is not file}.values())
    sparse = [part.sparse.header for part in parts if part.sparse]
    return Layer(
        path=file.path, format="vmdk", subformat=described.create_type, virtual_size=sum(part.length for part in parts),
        files=(file, *files), extents=extents, decode=decode, cid=described.cid, backing=_backing(file, described),
        cluster_size=sparse[0].grain if sparse else None, compressed=any(header.compressed for header in sparse),
        details=_details(described, header))


def _backing(file: ImageFile, described: Descriptor) -> Backing | None:
    if described.parent_cid == text.NO_PARENT:
        return None
    if not described.parent:
        raise DamagedError(f"{file.path} is a delta, but does not name its parent")
    return Backing(described.parent, "vmdk", described.parent_cid)


def _details(described: Descriptor, header: SparseHeader | None) -> dict[str, object]:
    pairs = described.pairs
    return {
        "cid": f"{described.cid:08x}", "parent_cid": f"{described.parent_cid:08x}",
        "adapter_type": pairs.get("ddb.adaptertype"), "hardware_version": pairs.get("ddb.virtualhwversion"),
        "thin_provisioned": pairs.get("ddb.thinprovisioned") == "1",
        "header_version": header.version if header else None,
        "zero_extents": any(line.type == "ZERO" for line in described.extents),
    }


def descriptor_of(path: str) -> str | None:
    """The descriptor that names the ``-flat.vmdk`` (or other extent) ``path``, if it stands beside it."""
    directory, name = os.path.split(path)
    if not os.path.isdir(directory or "."):  # an archive
        return None
    guesses = [re.sub(r"-[a-z]+\d*\.vmdk$", ".vmdk", name, flags=re.IGNORECASE)]
    others = sorted(entry for entry in os.listdir(directory or ".") if entry.lower().endswith(".vmdk"))
    for guess in dict.fromkeys([*guesses, *others[:1000]]):
        candidate = os.path.join(directory, guess)
        if guess != name and name in _extent_names(candidate):
            return candidate
    return None


def _extent_names(path: str) -> list[str | None]:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > text.MAX_DESCRIPTOR:
            return []
        with open(path, "rb") as file:
            raw = file.read(text.MAX_DESCRIPTOR)
        return [line.name for line in text.parse(raw, path).extents] if text.is_descriptor(raw) else []
    except (OSError, DamagedError):
        return []
