"""streamOptimized VMDK of a real Debian disk: written, and read."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Bound, Case
from bench.measure import GIB
from bench.mounts import mounted
from bench.programs import KINDS, ours, qemu
from bench.sources import as_kind, debian
from bench.topics import Settings

WRITE, READ = 10.0, 2.0
LARGER = 1.1
"""Size of our file over that of qemu-img."""


def cases(settings: Settings) -> Iterator[Case]:
    with mounted(settings.place, "ext4", 8 * settings.small + 2 * GIB) as place, debian(place, settings.small) as disk:
        stream = KINDS["stream"]
        yield Case("write streamOptimized, a Debian root", ours(disk, stream, place), qemu(disk, stream, place), disk.files,
                   (Bound("qemu-img", WRITE),), growth=LARGER)
        with as_kind(disk, "stream") as source:
            for to in ("raw", "qcow2"):
                yield Case(f"read streamOptimized → {to}", ours(source, KINDS[to], place), qemu(source, KINDS[to], place),
                           source.files, (Bound("qemu-img", READ),))
