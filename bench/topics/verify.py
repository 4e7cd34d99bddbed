"""Two images compared, and conversion that proves its result."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Bound, Case, Contender
from bench.measure import GIB, IMGTOOL
from bench.mounts import call, mounted
from bench.programs import KINDS, Source, ours, qemu
from bench.sources import as_kind, raw
from bench.topics import Settings

EQUAL = 1.5
CLONED = 0.5
"""Seconds."""


def cases(settings: Settings) -> Iterator[Case]:
    data = settings.data
    with mounted(settings.place, "ext4", 4 * data) as place, raw(place, "full", data, data, "full") as disk:
        for kind in ("qcow2", "sparse"):
            with as_kind(disk, kind) as other:
                yield _compare(f"ext4: verify raw, {kind}; {data / GIB:g} GiB without holes", disk, other,
                               (Bound("qemu-img", EQUAL),))
        yield _convert("ext4: convert and verify, raw → qcow2", disk)
    with mounted(settings.place, "xfs", 4 * data) as place, raw(place, "full", data, data, "full") as disk:
        copy = disk.path.with_name("clone.raw")
        call("cp", "--reflink=always", disk.path, copy)
        clone = Source(disk.kind, copy, (copy,))
        yield _compare(f"xfs: verify a raw clone, {data / GIB:g} GiB", disk, clone, (), CLONED)
        copy.unlink()
        yield _convert("xfs: convert and verify, raw → qcow2", disk)


def _compare(name: str, one: Source, other: Source, bounds: tuple[Bound, ...], seconds: float | None = None) -> Case:
    theirs = ("qemu-img", "compare", "-f", one.kind.format, "-F", other.kind.format, one.path, other.path)
    return Case(name, Contender("imgtool", "imgtool", ((*IMGTOOL, "verify", one.path, other.path),)),
                (Contender("qemu-img", "qemu-img", (theirs,)),), one.files + other.files, bounds, seconds)


def _convert(name: str, source: Source) -> Case:
    work, to = source.path.parent, KINDS["qcow2"]
    return Case(name, ours(source, to, work, "--verify"), qemu(source, to, work, compare=True), source.files,
                (Bound("qemu-img", 1.0),))
