"""A nearly empty disk of 1 TiB next to one of 4 times its data: cost follows the data, not the size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product

from bench.case import Bound, Case
from bench.measure import GIB
from bench.mounts import mounted
from bench.programs import KINDS, Source, ours
from bench.sources import as_kind, raw
from bench.topics import Settings

GROWTH = 1.2
"""Our time with the large disk, over that with the small one."""
SOURCES = ("raw", "flat", "sparse", "qcow2")
TARGETS = ("raw", "flat", "sparse", "qcow2", "stream", "vhdx", "vdi")
CHOSEN = (("raw", "qcow2"), ("flat", "flat"), ("sparse", "raw"), ("qcow2", "sparse"), ("qcow2", "stream"), ("qcow2", "vhdx"))


def cases(settings: Settings) -> Iterator[Case]:
    pairs = list(product(SOURCES, TARGETS)) if settings.every else CHOSEN
    with mounted(settings.place, "ext4", 8 * settings.small + 4 * GIB) as place, ExitStack() as disks:
        large = disks.enter_context(raw(place, "large", settings.thin, settings.small))
        small = disks.enter_context(raw(place, "small", 4 * settings.small, settings.small))
        for kind in SOURCES:
            with as_kind(large, kind) as wide, as_kind(small, kind) as narrow:
                for _, to in (pair for pair in pairs if pair[0] == kind):
                    yield _case(f"{kind} → {to}, {settings.thin / GIB:g} GiB with {settings.small / GIB:g} GiB", wide, narrow, to)


def _case(name: str, wide: Source, narrow: Source, to: str) -> Case:
    work = wide.path.parent
    rival = ours(narrow, KINDS[to], work, name="imgtool, small disk", family="imgtool, small disk")
    return Case(name, ours(wide, KINDS[to], work), (rival,), wide.files + narrow.files, (Bound(rival.family, 1 / GROWTH),))
