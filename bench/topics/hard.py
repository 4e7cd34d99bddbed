"""Disks that are hard for memory: long chains, many extents, whole allocation. Time is shown, memory is what is required."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.case import Case, Contender
from bench.measure import GIB, IMGTOOL, MIB
from bench.mounts import call
from bench.programs import KINDS, Source, ours, qemu
from bench.sources import fragmented, raw
from bench.topics import Settings

PIECE = 64 * MIB


def cases(settings: Settings) -> Iterator[Case]:
    place = settings.place
    with raw(place, "plain", 4 * settings.small, settings.small) as disk:
        for kind in ("qcow2, thick", "qcow2, eager", "vhdx"):
            yield _case(f"raw → {kind}, {settings.small / GIB:g} GiB of data", disk, kind)
        yield _allocate(disk, place)
    with raw(place, "full", settings.small, settings.small, "full") as disk:
        yield _case(f"incompressible, {settings.small / GIB:g} GiB → streamOptimized", disk, "stream")
    with chain(place, settings.layers, settings.small) as top:
        yield _case(f"a chain of {settings.layers} layers → qcow2", top, "qcow2")
        yield _case(f"a chain of {settings.layers} layers → monolithicSparse", top, "sparse")
    size = settings.thin if settings.every else settings.thin // 8
    with fragmented(place, size, settings.small) as source:
        for kind in ("qcow2", "sparse", "raw"):
            yield _case(f"{size / GIB:g} GiB, another extent each 64 KiB → {kind}", source, kind, 1)


def _case(name: str, source: Source, to: str, runs: int | None = None) -> Case:
    kind = replace(KINDS[to], variants=KINDS[to].variants[:1]) if runs else KINDS[to]
    work = source.path.parent
    return Case(name, ours(source, kind, work), qemu(source, kind, work), source.files, runs=runs)


def _allocate(disk: Source, work: Path) -> Case:
    """In place; the making of the image that it works on counts, too, and qemu-img can only copy."""
    folder = work / "imgtool"
    image, kind = folder / "x.qcow2", KINDS["qcow2, thick"]
    make = (*IMGTOOL, "convert", disk.path, image, "--to", "qcow2", "--no-clone", "--no-verify")
    commands = (make, (*IMGTOOL, "allocate", image, "--thick"))
    return Case("convert to qcow2, then allocate --thick in place", Contender("imgtool", "imgtool", commands, folder),
                qemu(disk, kind, work), disk.files)


@contextmanager
def chain(place: Path, layers: int, data: int) -> Iterator[Source]:
    """qcow2 images, each on top of the one before; each holds pieces that others do not."""
    names = [place / f"chain{number}.qcow2" for number in range(layers)]
    size = max(data, layers * PIECE)
    part = max(MIB, min(PIECE, data // layers))
    try:
        for number, name in enumerate(names):
            backing = ("-b", names[number - 1], "-F", "qcow2") if number else ()
            call("qemu-img", "create", "-q", "-f", "qcow2", *backing, name, size)
            call("qemu-io", "-f", "qcow2", "-c", f"write -q -P {number + 1} {number * PIECE} {part}", name)
        yield Source(KINDS["qcow2"], names[-1], tuple(names))
    finally:
        for name in names:
            name.unlink(missing_ok=True)
