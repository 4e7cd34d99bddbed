"""`info` as a whole process: what it costs to start, and to look at a large disk."""

from __future__ import annotations

from collections.abc import Iterator

from bench.case import Case, Contender
from bench.measure import GIB, IMGTOOL
from bench.programs import Source
from bench.sources import as_kind, raw
from bench.topics import Settings

LIMIT = 0.4
"""Seconds."""


def cases(settings: Settings) -> Iterator[Case]:
    with raw(settings.place, "info", 384 * GIB, settings.small // 2) as disk:
        for kind in ("flat", "sparse", "qcow2"):
            with as_kind(disk, kind) as source:
                yield _info(f"info of {kind}, 384 GiB", source)


def _info(name: str, source: Source) -> Case:
    ours = Contender("imgtool", "imgtool", ((*IMGTOOL, "info", source.path),))
    theirs = Contender("qemu-img", "qemu-img", (("qemu-img", "info", source.path),))
    return Case(name, ours, (theirs,), source.files, seconds=LIMIT)
