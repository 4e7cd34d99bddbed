"""Which ranges of a disk the guest's file systems use: ``--only-used``.

The source is not written. A throw-away qcow2 overlay over it goes into the libguestfs appliance; there each file system discards
its own free space (``fstrim``), and the overlay remembers what was discarded as zero clusters. A journal that is replayed on the
way stays in the overlay too: free blocks are free in both. Not so with btrfs, which moves what it writes: it is only read.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec

from imgtool import proc, qemu
from imgtool.errors import ImgtoolError, MissingToolError
from imgtool.formats.disk import Disk
from imgtool.formats.layer import Layer
from imgtool.formats.opener import Opener
from imgtool.formats.qcow2.read import open_qcow2
from imgtool.formats.runs import cut, merged
from imgtool.guests import trim
from imgtool.kvm import kvm_state
from imgtool.model import Extent, Kind
from imgtool.progress import Stop

LIMITS = proc.Limits(seconds=1800, memory=16 << 30)
"""The appliance is a guest of its own with half a GiB; under emulation it starts in 10 to 30 s."""


@contextmanager
def only_used(disk: Disk, stop: Stop) -> Iterator[tuple[Disk, tuple[str, ...]]]:
    """The disk with what its file systems do not use as zeros, and warnings. Raises MissingToolError, ImgtoolError."""
    if find_spec("guestfs") is None:
        raise MissingToolError("the Python binding of libguestfs is not installed", "apt-get install python3-guestfs")
    with tempfile.TemporaryDirectory(prefix="imgtool-used-") as folder, closing(Opener(stop=stop)) as opener:
        overlay = os.path.join(folder, "overlay.qcow2")
        with qemu.nbd_server(disk.graph(locking=False), stop=stop) as socket:
            qemu.create_overlay(overlay, f"nbd+unix:///?socket={socket}", disk.virtual_size, stop=stop)
            warnings = tuple(_trim(overlay, stop))
        yield _masked(disk, open_qcow2(opener.user(overlay), opener)), warnings


def _trim(overlay: str, stop: Stop) -> Iterator[str]:
    settings = [] if kvm_state()[0] else ["force_tcg"]
    done = proc.run([sys.executable, trim.__file__, overlay, *settings], stop=stop, limits=LIMITS)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise ImgtoolError(f"the libguestfs appliance failed: {last}", "libguestfs-test-tool says why; or leave --only-used out")
    for found in json.loads(done.stdout)["filesystems"]:
        if not found["trimmed"]:
            yield f"{found['device']} ({found['type']}) is copied whole: {found['why']}"


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
