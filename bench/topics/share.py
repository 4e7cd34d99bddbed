"""XFS and btrfs: conversion that shares blocks, next to tools that copy them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import product

from bench.case import Bound, Case, Contender
from bench.measure import GIB
from bench.mounts import mounted
from bench.programs import KINDS, Source, cp, ours, qemu
from bench.sources import as_kind, raw, repeated
from bench.topics import Settings

LARGE = 16 * GIB
PART = 2 * GIB
GROWTH = 1.5
"""Our time with the most data, over that with the least."""
KINDS_HERE = ("flat", "sparse", "qcow2", "raw")
CHOSEN = (("flat", "qcow2"), ("sparse", "raw"), ("qcow2", "sparse"))


def required(data: int) -> tuple[Bound, ...]:
    """5 times as fast as qemu-img with 4 GiB of data, 20 times with 16 GiB; with less, the start of Python is measured."""
    return (Bound("qemu-img", 20.0 if data >= LARGE else 5.0),) if data >= 4 * GIB else ()


def cases(settings: Settings) -> Iterator[Case]:
    pairs = [pair for pair in product(KINDS_HERE, repeat=2) if pair != ("raw", "raw")] if settings.every else CHOSEN
    for fs in ("xfs", "btrfs"):
        with mounted(settings.place, fs, 3 * settings.data + 4 * settings.small + 2 * GIB) as place, ExitStack() as disks:
            large = disks.enter_context(raw(place, "large", settings.data * 3 // 2, settings.data))
            small = disks.enter_context(raw(place, "small", settings.small * 3 // 2, settings.small))
            for kind in KINDS_HERE:
                with as_kind(large, kind) as source, as_kind(small, kind) as less:
                    for _, to in (pair for pair in pairs if pair[0] == kind):
                        yield _case(f"{fs}: {kind} → {to}", settings, source, less, to)
            yield _copy(f"{fs}: raw → raw", large)
        if settings.large:
            yield from _large(settings, fs)


def _large(settings: Settings, fs: str) -> Iterator[Case]:
    """With one set of options of qemu-img, as they take minutes: which is best, the smaller disks show.

    The disk is LARGE // PART times the same file, shared, as the space is not there.
    """
    with mounted(settings.place, fs, 2 * LARGE + 4 * PART) as place, ExitStack() as disks:
        part = disks.enter_context(raw(place, "part", PART, PART, "full"))
        small = disks.enter_context(raw(place, "small", settings.small * 3 // 2, settings.small))
        large = disks.enter_context(repeated(part, place / "large.raw", LARGE // PART))
        for kind in {pair[0]: None for pair in CHOSEN}:
            with as_kind(large, kind) as source, as_kind(small, kind) as less:
                for _, to in (pair for pair in CHOSEN if pair[0] == kind):
                    yield _case(f"{fs}: {kind} → {to}", replace(settings, data=LARGE), source, less, to)


def _case(name: str, settings: Settings, source: Source, less: Source, to: str) -> Case:
    work = source.path.parent
    kind = replace(KINDS[to], variants=KINDS[to].variants[1:2]) if settings.data >= LARGE else KINDS[to]
    small = ours(less, KINDS[to], work, name="imgtool, small disk", family="imgtool, small disk")
    bounds = (*required(settings.data), Bound(small.family, 1 / GROWTH))
    return Case(f"{name}, {settings.data / GIB:g} GiB", ours(source, KINDS[to], work), (*qemu(source, kind, work), small),
                source.files + less.files, bounds)


def _copy(name: str, source: Source) -> Case:
    """Nothing to win over cp here: both share all blocks."""
    work = source.path.parent
    rivals: tuple[Contender, ...] = (cp(source.path, work, "--reflink=always"),)
    return Case(name, ours(source, KINDS["raw"], work), rivals, source.files)
