"""What a disk image is, in every format.

::

    guest's disk     0 ─────────────────────────────────────────────▶ virtual_size
                     │ DATA │ UNALLOCATED │ ZERO │ DATA             │     ranges: Extent
                        │                          │
    layer (top)      x-000001.vmdk ──────────── (this one has it)
    layer (base)     x.vmdk: UNALLOCATED in the top layer is looked for here
                        │
    files            x-flat.vmdk at byte 65536                            payload: (file, offset)

A *disk* is a chain of *layers*; a layer is one image with one or more files. All offsets and lengths are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """What a layer knows about a range of the guest's disk."""

    DATA = 0
    """Payload is stored; it may still be zeros."""
    ZERO = 1
    """The layer says: zeros, whatever is below."""
    UNALLOCATED = 2
    """The layer says nothing: the layer below, or zeros where there is none."""


class ImageFile(NamedTuple):
    """An open file (or block device) of an image, or the range of an archive that is one. Offsets of extents are the file's."""

    path: str
    """Of a member of an archive: ``ARCHIVE/MEMBER``, which nothing can open."""
    fd: int
    size: int
    """Bytes of the image, as it was when opened."""
    base: int = 0
    """Where in the file the image begins: not 0 in an archive only."""


class Extent(NamedTuple):
    """A range of the guest's disk. A NamedTuple, since a disk may have millions of them."""

    start: int
    length: int
    kind: Kind
    file: ImageFile | None = None
    """Holds the payload of DATA; None where only the image itself can read it (formats read through qemu)."""
    offset: int = 0
    """Where in ``file`` the payload begins."""
    coded: int = 0
    """Bytes of compressed payload at ``offset``; 0 where it is stored as it is."""
    layer: int = 0
    """Which layer of the chain it is from; 0 is the top."""

    @property
    def end(self) -> int:
        return self.start + self.length

    def part(self, start: int, end: int) -> Extent:
        """The guest bytes [start, end) of it. What is compressed stays whole: ``offset`` does not move."""
        offset = self.offset if self.coded or self.kind != Kind.DATA else self.offset + start - self.start
        return self._replace(start=start, length=end - start, offset=offset)


class Allocation(Enum):
    """Space on the storage, in the words of the field; always measured, never read from a header."""

    THIN = "thin"
    """Taken when written."""
    THICK = "thick"
    """All reserved now (VMware: thick, lazily zeroed): unwritten extents."""
    EAGER = "eager"
    """Reserved and written with zeros now (VMware: eager zeroed thick): written extents."""


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One file of an image."""

    path: str
    size: int
    """Length of the file in bytes, holes included."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """An internal snapshot of a qcow2 image."""

    id: str
    name: str
    virtual_size: int
    vm_state_size: int
    date: str
    """RFC 3339, UTC."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What ``imgtool info`` says of one image: the contract's JSON, field by field."""

    path: str
    format: str
    subformat: str | None
    virtual_size: int
    allocated_size: int
    """Bytes that the files of this image (not of its backing chain) occupy on the storage."""
    allocation: str
    cluster_size: int | None
    """Cluster (qcow2), grain (VMDK) or block; None where the payload is one range."""
    backing: str | None
    extents: tuple[FileInfo, ...] = ()
    chain: tuple[str, ...] = ()
    """All layers below, nearest first."""
    snapshots: tuple[Snapshot, ...] = ()
    encrypted: bool = False
    compressed: bool = False
    details: dict[str, object] = field(default_factory=dict)
    """What is particular to the format: compat, CID, adapter type, ..."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What an image shall be that is to be written."""

    format: str
    subformat: str | None = None
    allocation: Allocation = Allocation.THIN
    compress: bool = False
    compress_type: str | None = None
    """Of a compressed qcow2: zlib or zstd."""
    compress_level: int | None = None
    """1 (fast) to 9 (small); None: the codec's own."""
    options: tuple[tuple[str, str], ...] = ()
    """``-o KEY=VALUE``, in the words of qemu-img."""

    def option(self, key: str, default: str | None = None) -> str | None:
        return dict(self.options).get(key, default)
