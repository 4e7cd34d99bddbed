"""Which ranges of a disk the guest's file systems use: ``--only-used``.

The source is not written. A throw-away qcow2 overlay over it goes into the libguestfs appliance; there each file system discards
its own free space (``fstrim``), and the overlay remembers what was discarded as zero clusters. What a mount writes stays in the
overlay, too, so it must free nothing that the source still names: file systems that were not left at rest are copied whole, but
for those of ext whose journal is all that is to be done. btrfs moves what it writes: it is only read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from imgtool import files, qemu
from imgtool.formats.disk import Disk
from imgtool.formats.layer import Layer
from imgtool.formats.opener import Opener
from imgtool.formats.qcow2.read import open_qcow2
from imgtool.formats.runs import cut, merged
from imgtool.guests.appliance import appliance, require_guestfs
from imgtool.guests.trim import trim
from imgtool.model import Extent, Kind
from imgtool.model.metal import RawBytes
from imgtool.progress import Stop


@contextmanager
def only_used(disk: Disk, stop: Stop) -> Iterator[tuple[Disk, tuple[str, ...]]]:
    """The disk with what its file systems do not use as zeros, and warnings. Raises MissingToolError, ImgtoolError."""
    require_guestfs()
    with files.scratch("used") as folder, closing(Opener(stop=stop)) as opener:
        overlay = os.path.join(folder, "overlay.qcow2")
        with qemu.nbd_server(disk.graph(locking=False), stop=stop) as socket:
            qemu.create_overlay(overlay, f"nbd+unix:///?socket={socket}", disk.virtual_size, stop=stop)
            warnings = tuple(_trim([overlay], stop))
        yield _masked(disk, open_qcow2(opener.user(overlay), opener)), warnings


def unused(disks: Sequence[RawBytes], stop: Stop) -> tuple[list[list[tuple[int, int]]], tuple[str, ...]]:
    """Ranges [start, end) of each disk that no file system uses, and warnings; all disks of a machine in one appliance.

    Raises MissingToolError, ImgtoolError.
    """
    require_guestfs()
    with files.scratch("used") as folder, closing(Opener(stop=stop)) as opener:
        overlays = [os.path.join(folder, f"overlay{number}.qcow2") for number in range(len(disks))]
        for overlay, disk in zip(overlays, disks, strict=True):
            qemu.create_overlay(overlay, disk.uri, disk.size, stop=stop)
        warnings = tuple(_trim(overlays, stop, [disk.sector for disk in disks]))
        found = [[(extent.start, extent.end) for extent in merged(open_qcow2(opener.user(overlay), opener).extents(0, disk.size))
                  if extent.kind == Kind.ZERO] for overlay, disk in zip(overlays, disks, strict=True)]
    return found, warnings


def _trim(overlays: Sequence[str], stop: Stop, sectors: Sequence[int] = ()) -> Iterator[str]:
    with appliance(overlays, stop=stop, sectors=sectors) as handle:
        for found in trim(handle):
            if found.why:
                yield f"{found.device} ({found.type}) is copied whole: {found.why}"


def hidden_alike(masked: Disk, other: Disk) -> Disk:
    """Another disk, with the same ranges hidden: what is unused need not be equal."""
    return replace(other, layers=(masked.top, *other.layers))


def _masked(disk: Disk, overlay: Layer) -> Disk:
    """A layer over the disk that says ZERO where the overlay does, and nothing else."""

    def extents(start: int, end: int) -> Iterator[Extent]:
        hidden = (Extent(extent.start, extent.length, Kind.ZERO if extent.kind == Kind.ZERO else Kind.UNALLOCATED)
                  for extent in overlay.extents(start, end))
        yield from cut(merged(hidden), start, end)

    return replace(disk, layers=(replace(overlay, files=(), extents=extents), *disk.layers))
