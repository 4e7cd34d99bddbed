"""ext4, no reflinks: every byte is copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import product

from bench.case import Bound, Case
from bench.measure import GIB
from bench.mounts import mounted
from bench.programs import KINDS, Source, cp, nbdcopy, ours, qemu
from bench.sources import as_kind, raw
from bench.topics import Settings

OF_CP, OF_QEMU = 0.95, 1.2
"""Of the speed of cp, and of qemu-img without options."""
COPIED, CALLED = 0.97, 0.9
"""Of the speed of qemu-img's best options: where imgtool copies, and where it calls qemu-img."""
WITHOUT = "qemu-img without options"
CHOSEN = (("sparse", "qcow2"), ("qcow2", "raw"), ("qcow2", "vhdx"))
EVERY = tuple(product(("sparse", "qcow2"), ("raw", "flat", "sparse", "qcow2", "vhdx", "vdi")))


def cases(settings: Settings) -> Iterator[Case]:
    data = settings.data
    with mounted(settings.place, "ext4", 4 * data + 2 * GIB) as place, ExitStack() as disks:
        disk = disks.enter_context(raw(place, "plain", data * 3 // 2, data))
        for kind in ("raw", "flat") if settings.every else ("raw",):
            with as_kind(disk, kind) as source:
                yield _plain(f"{kind} → {kind}, {data / GIB:g} GiB", source, disk)
        for kind in ("sparse", "qcow2"):
            with as_kind(disk, kind) as source:
                for _, to in (pair for pair in (EVERY if settings.every else CHOSEN) if pair[0] == kind):
                    yield _other(f"{kind} → {to}, {data / GIB:g} GiB", source, to)


def _plain(name: str, source: Source, disk: Source) -> Case:
    work = disk.path.parent
    without, *best = qemu(source, source.kind, work)
    rivals = (cp(disk.path, work, "--sparse=always"), *nbdcopy(disk.path, work), replace(without, family=WITHOUT), *best)
    return Case(name, ours(source, source.kind, work), rivals, source.files,
                (Bound("cp", OF_CP), Bound(WITHOUT, OF_QEMU), Bound("qemu-img", COPIED)))


def _other(name: str, source: Source, to: str) -> Case:
    work = source.path.parent
    bound = Bound("qemu-img", CALLED if to in ("vhdx", "vdi") else COPIED)
    return Case(name, ours(source, KINDS[to], work), qemu(source, KINDS[to], work), source.files, (bound,))
