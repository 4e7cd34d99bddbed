"""A disk: the chain of its layers, and what a guest would read from it.

``open_disk`` is the only way in. ``Disk.content`` is the map that copying and verifying work by: the nearest layer that says
something wins, holes of the files are zeros. The map is lazy; nothing grows with the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imgtool import storage
from imgtool.errors import DamagedError, RefusedError
from imgtool.formats import FORMATS
from imgtool.formats.detect import detect, forced
from imgtool.formats.holes import with_holes
from imgtool.formats.layer import Layer
from imgtool.formats.opener import Opener
from imgtool.formats.runs import merged
from imgtool.model import Extent, ImageFile, Kind, SourceOptions
from imgtool.model.package import Member
from imgtool.progress import Stop

if TYPE_CHECKING:
    from imgtool.qemu import Graph

MAX_CHAIN = 256
Read = Callable[[int, memoryview, int], int]
"""(fd, room, offset) → bytes read: fewer only where the file ends."""
SLACK = 4 << 20
"""Bytes that a layer's last cluster may reach behind the end of its file."""


@dataclass(frozen=True)
class Disk:
    """``layers[0]`` is the image that was named, the others are below it."""

    path: str
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...] = ()

    @property
    def top(self) -> Layer:
        return self.layers[0]

    @property
    def virtual_size(self) -> int:
        return self.top.virtual_size

    @property
    def files(self) -> tuple[ImageFile, ...]:
        return tuple(file for layer in self.layers for file in layer.files)

    def extents(self, start: int = 0, end: int | None = None) -> Iterator[Extent]:
        """What the layers say, top first: sorted, complete, neighbours joined."""
        return merged(self._unmerged(start, end))

    def content(self, start: int = 0, end: int | None = None) -> Iterator[Extent]:
        """As ``extents``; holes and unwritten extents of the files are ZERO, so is what no layer has."""
        return merged(with_holes(self._unmerged(start, end, folded=True)))

    def _unmerged(self, start: int, end: int | None, *, folded: bool = False) -> Iterator[Extent]:
        self.refuse_encrypted()
        layers = (*self.layers[:-1], replace(self.layers[-1], extents=self.layers[-1].folded or self.layers[-1].extents))
        extents = _overlay(layers if folded else self.layers, 0, start, self.virtual_size if end is None else end)
        return _bounded(extents, self.path, sum(file.size for file in self.files) + SLACK * len(self.layers))

    def read(self, extent: Extent) -> bytes | bytearray:
        """The guest's bytes of (a part of) one DATA extent. Short files are padded with zeros."""
        if extent.file is None or extent.coded:
            return self.layers[extent.layer].decode(extent)
        return storage.read(extent.file.fd, extent.length, extent.offset).ljust(extent.length, b"\0")

    def read_into(self, extent: Extent, room: memoryview, read: Read = storage.read_into) -> None:
        """As ``read``, into ``extent.length`` bytes of a buffer. ``read``: how plain bytes are read."""
        if extent.file is None or extent.coded:
            room[:] = self.layers[extent.layer].decode(extent)
            return
        count = read(extent.file.fd, room, extent.offset)
        if count < extent.length:  # the last cluster may reach behind the end of the file
            room[count:] = bytes(extent.length - count)

    def refuse_encrypted(self) -> None:
        """Raises RefusedError."""
        for layer in self.layers:
            if layer.encrypted:
                raise RefusedError(f"{layer.path} is encrypted", "imgtool cannot open it: decrypt it first")

    def qemu_reads(self) -> bool:
        """False where QEMU would not read the same."""
        return all(qemu_reads(layer) for layer in self.layers)

    def graph(self, *, locking: bool = True) -> Graph:
        """The chain in QEMU's words: every format and every file given, nothing left to its probing."""
        from imgtool.qemu import file_node

        below: Graph | None = None
        for layer in reversed(self.layers):
            node: dict[str, object] = {"driver": layer.format, "file": file_node(layer.files[0], locking=locking)}
            if layer.format == "qcow2" or layer.backing:
                node["backing"] = below
            if layer.format == "qcow2" and len(layer.files) > 1:
                node["data-file"] = file_node(layer.files[1], locking=locking)
            below = node
        assert below is not None  # noqa: S101 - a disk has a layer
        return below


def qemu_reads(layer: Layer) -> bool:
    """False where QEMU would silently read something else: it passes over ZERO extents of a VMDK.

    Nor does it find extents beside a descriptor whose name it cannot be told, or know a layer that has no file.
    """
    from imgtool.qemu import is_utf8

    beside = layer.format == "vmdk" and len(layer.files) > 1
    return bool(layer.files) and not layer.details.get("zero_extents") and (is_utf8(layer.path) or not beside)


@contextmanager
def open_disk(path: str, *, source_format: str | None = None, allow_external: bool = False,
              stop: Stop | None = None, member: Member | None = None) -> Iterator[Disk]:
    """Opens an image and all that it stands on, read-only. ``member``: ``path`` is an archive, the image is a range of it.

    Raises UsageError (no such file), DamagedError, RefusedError (leads outside its directory; name and header disagree).
    """
    opener = Opener(allow_external=allow_external, stop=stop)
    try:
        yield _open(opener.member(path, member) if member else opener.user(path), path, opener, source_format)
    finally:
        opener.close()


def open_given(path: str, reading: SourceOptions, stop: Stop) -> AbstractContextManager[Disk]:
    """``open_disk`` in the words of a request."""
    return open_disk(path, source_format=reading.format, allow_external=reading.allow_external, stop=stop)


@contextmanager
def laid_over(path: str, base: Disk, stop: Stop) -> Iterator[Disk]:
    """What a guest reads from the qcow2 overlay ``path``, which we made over ``base``: its own name for that is not followed."""
    opener = Opener(stop=stop)
    try:
        top = replace(FORMATS["qcow2"](opener.user(path), opener), backing=None)
        yield Disk(path, (top, *base.layers), base.warnings)
    finally:
        opener.close()


def _open(file: ImageFile, path: str, opener: Opener, source_format: str | None) -> Disk:
    found, warnings = (forced(file, source_format), ()) if source_format else detect(file)
    layers = [FORMATS[found](file, opener)]
    seen = {_identity(file)}
    while backing := layers[-1].backing:
        if len(layers) >= MAX_CHAIN:
            raise DamagedError(f"{path}: the chain has more than {MAX_CHAIN} images")
        below = opener.named(backing.name, layers[-1].files[0])
        if _identity(below) in seen:
            raise DamagedError(f"{path}: the backing chain is a loop: it comes back to {below.path}")
        seen.add(_identity(below))
        known = backing.format if backing.format in FORMATS else None
        layers.append(FORMATS[forced(below, known) if known else detect(below)[0]](below, opener))
        _check_cid(layers[-2], layers[-1])
    warnings += tuple(warning for layer in layers for warning in layer.warnings)
    return Disk(path, tuple(layers), warnings)


def _identity(file: ImageFile) -> tuple[int, int]:
    status = os.fstat(file.fd)
    return status.st_dev, status.st_ino


def _check_cid(child: Layer, parent: Layer) -> None:
    """A parent that was written since the snapshot has another CID: the delta no longer fits."""
    wanted = child.backing.cid if child.backing else None
    if wanted is not None and parent.cid != wanted:
        has = "none" if parent.cid is None else f"{parent.cid:08x}"
        raise DamagedError(f"{child.path} is a delta on a parent with CID {wanted:08x}, but {parent.path} has {has}",
                           "the parent was changed after the snapshot; restore the one that belongs to it")


def _overlay(layers: tuple[Layer, ...], index: int, start: int, end: int) -> Iterator[Extent]:
    layer = layers[index]
    inside = min(end, layer.virtual_size)
    below = index + 1 < len(layers)
    known = layer.extents(start, inside) if start < inside else iter(())
    for extent in merged(known) if below else known:
        if extent.kind == Kind.UNALLOCATED and below:
            yield from _overlay(layers, index + 1, extent.start, extent.end)
        else:
            yield extent._replace(layer=index) if index else extent
    if inside < end:
        begin = max(start, inside)
        yield Extent(begin, end - begin, Kind.UNALLOCATED, layer=index)


def _bounded(extents: Iterator[Extent], path: str, limit: int) -> Iterator[Extent]:
    """Each range has a place of its own: more data than the files are long means tables that name one place many times."""
    total = 0
    for extent in extents:
        if extent.kind == Kind.DATA and extent.file is not None and not extent.coded:
            total += extent.length
            if total > limit:
                raise DamagedError(f"{path} claims more data than its files hold: its tables point to one place many times")
        yield extent
