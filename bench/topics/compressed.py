"""Compressed qcow2 of a real Debian disk."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Bound, Case
from bench.measure import GIB
from bench.mounts import mounted
from bench.programs import KINDS, ours, qemu
from bench.sources import debian
from bench.topics import Settings


def cases(settings: Settings) -> Iterator[Case]:
    with mounted(settings.place, "ext4", 8 * settings.small + 2 * GIB) as place, debian(place, settings.small // 4) as disk:
        for kind in ("qcow2, zlib", "qcow2, zstd"):
            yield Case(f"Debian root → {kind}", ours(disk, KINDS[kind], place), qemu(disk, KINDS[kind], place), disk.files,
                       (Bound("qemu-img", 1.0),))
