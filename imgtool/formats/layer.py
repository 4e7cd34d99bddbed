"""One opened image of a chain, whatever its format: facts as data, two functions to reach the guest's bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imgtool import storage
from imgtool.model import Extent, ImageFile, Snapshot

if TYPE_CHECKING:
    from imgtool.formats.opener import Opener

SECTOR = 512

ExtentsOf = Callable[[int, int], Iterator[Extent]]
"""(start, end) → the extents of that range of the guest's disk: sorted, complete, cut to the range."""
BytesOf = Callable[[Extent], bytes | bytearray]
"""An extent that has no plain payload in a file (compressed, or behind qemu) → its bytes."""


@dataclass(frozen=True)
class Backing:
    """The image below, as this one names it."""

    name: str
    format: str | None = None
    cid: int | None = None
    """VMDK: the content id that the parent must have."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One image. The fields are those of ``model.ImageInfo``, plus the way to the data."""

    path: str
    format: str
    subformat: str | None = None
    virtual_size: int
    files: tuple[ImageFile, ...]
    """All files of this image; the first is the one that ``path`` names."""
    extents: ExtentsOf
    folded: ExtentsOf | None = None
    """As ``extents``, with ZERO for UNALLOCATED: for the lowest layer of a chain, where a guest reads the same. Where a format
    has both in turn, that saves an extent for each."""
    decode: BytesOf
    cluster_size: int | None = None
    backing: Backing | None = None
    cid: int | None = None
    snapshots: tuple[Snapshot, ...] = ()
    encrypted: bool = False
    compressed: bool = False
    details: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


OpenFormat = Callable[[ImageFile, "Opener"], Layer]
"""What each format module gives: an opened file → its layer. Raises DamagedError, RefusedError."""


def read_at(file: ImageFile, length: int, offset: int) -> bytes:
    """``length`` bytes of the image from its byte ``offset`` on. What lies outside is left out, and takes no memory."""
    inside = min(length, file.size - offset)
    return storage.read(file.fd, inside, file.base + offset) if offset >= 0 and inside > 0 else b""


def no_decode(extent: Extent) -> bytes:
    """For formats whose payload is always plain."""
    raise AssertionError(f"{extent} has plain payload")
