"""What an image is on the storage: measured with stat and FIEMAP, never taken from a header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imgtool import storage
from imgtool.formats.disk import Disk
from imgtool.formats.layer import Layer
from imgtool.model import Allocation, Extent, FileInfo, ImageFile, ImageInfo, Kind, Mapped


def payload_files(layer: Layer) -> tuple[ImageFile, ...]:
    """The files that hold data: without a descriptor that stands alone."""
    return layer.files[1:] if len(layer.files) > 1 and layer.format == "vmdk" else layer.files


def allocated_bytes(layer: Layer) -> int:
    return sum(storage.allocated_bytes(file.fd) for file in layer.files)


def allocation(layer: Layer) -> Allocation:
    """Thin while a range of the disk has no space of its own; thick while some of it is reserved but unwritten."""
    files = payload_files(layer)
    reserved = sum(storage.allocated_bytes(file.fd) for file in files)
    if layer.compressed or layer.encrypted or not layer.virtual_size or reserved < layer.virtual_size:
        return Allocation.THIN
    if not _has_places(layer):
        return Allocation.THIN
    return min((_file_allocation(file) for file in files), key=list(Allocation).index)


def _has_places(layer: Layer) -> bool:
    """Whether each range of the disk has a place of its own in the files."""
    if layer.format in ("vhdx", "vpc", "vdi"):
        return layer.subformat in ("fixed", "static")
    return all(extent.kind == Kind.DATA and not extent.coded for extent in layer.extents(0, layer.virtual_size))


def _file_allocation(file: ImageFile) -> Allocation:
    position, whole = 0, Allocation.EAGER
    try:
        for extent in storage.physical_extents(file.fd, 0, file.size):
            if extent.offset > position or extent.flags & storage.FIEMAP_SHARED:
                return Allocation.THIN
            if extent.flags & storage.FIEMAP_UNWRITTEN:
                whole = Allocation.THICK
            position = extent.offset + extent.length
    except OSError:  # tmpfs: pages that were reserved read as holes
        return Allocation.EAGER if all(piece.data for piece in storage.pieces(file.fd, 0, file.size)) else Allocation.THICK
    return whole if position >= file.size else Allocation.THIN


def describe(disk: Disk) -> ImageInfo:
    """What ``imgtool info`` says of the top image of a disk."""
    layer = disk.top
    kind = allocation(layer).value  # first: it has the file system settle what is not yet on the disk, which takes space
    return ImageInfo(
        path=disk.path, format=layer.format, subformat=layer.subformat, virtual_size=layer.virtual_size,
        allocated_size=allocated_bytes(layer), allocation=kind, cluster_size=layer.cluster_size,
        backing=disk.layers[1].path if len(disk.layers) > 1 else None,
        extents=tuple(FileInfo(path=file.path, size=file.size) for file in layer.files),
        chain=tuple(below.path for below in disk.layers[1:]), snapshots=layer.snapshots, encrypted=layer.encrypted,
        compressed=layer.compressed, details=layer.details, warnings=disk.warnings)


def mapped(disk: Disk) -> Iterator[Mapped]:
    """The map that ``imgtool map`` shows: sorted, without gaps or overlaps, neighbours joined."""
    held: Mapped | None = None
    for start, length, zero, allocated in _mapped(disk):
        if held and (held.zero, held.allocated) == (zero, allocated):
            held = Mapped(start=held.start, length=held.length + length, zero=zero, allocated=allocated)
            continue
        if held:
            yield held
        held = Mapped(start=start, length=length, zero=zero, allocated=allocated)
    if held:
        yield held


def _mapped(disk: Disk) -> Iterator[tuple[int, int, bool, bool]]:
    for extent in disk.extents():
        if extent.kind != Kind.DATA:
            yield extent.start, extent.length, True, False
        elif extent.file is None or extent.coded:
            yield extent.start, extent.length, False, True
        else:
            yield from _mapped_payload(extent, extent.file)


def _mapped_payload(extent: Extent, file: ImageFile) -> Iterator[tuple[int, int, bool, bool]]:
    shift = extent.start - extent.offset
    for piece in storage.pieces(file.fd, extent.offset, extent.offset + extent.length):
        if piece.data:
            yield piece.offset + shift, piece.length, False, True
            continue
        position, end = piece.offset, piece.offset + piece.length
        for begin, length in storage.reserved(file.fd, position, end):
            if begin > position:
                yield position + shift, begin - position, True, False
            yield begin + shift, length, True, True
            position = begin + length
        if position < end:
            yield position + shift, end - position, True, False


def data_length(extents: Iterable[Extent]) -> int:
    """Bytes of these that hold data."""
    return sum(extent.length for extent in extents if extent.kind == Kind.DATA)


def data_bytes(disk: Disk) -> int:
    """Bytes of the guest's disk that hold data, by the map."""
    return data_length(disk.content())


def work(disk: Disk) -> int:
    """Bytes that copying or reading the disk passes on, nearly: what progress is counted by. Holes take no time."""
    if not _told_by_files(disk):
        return data_bytes(disk)
    return data_limit(disk) or disk.virtual_size  # some file systems say 0 of every file


def data_limit(disk: Disk) -> int:
    """No more than this is data: known without the map, unless a layer is compressed."""
    if not _told_by_files(disk):
        return disk.virtual_size
    return min(disk.virtual_size, sum(storage.allocated_bytes(file.fd) for file in disk.files))


def _told_by_files(disk: Disk) -> bool:
    return not any(layer.compressed or layer.format in ("vhdx", "vpc", "vdi") for layer in disk.layers)
