"""What ``--dry-run`` prints: the steps in their order, with bytes and seconds from a short measurement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from imgtool.endpoints.uri import shown
from imgtool.errors import ImgtoolError
from imgtool.plan import Plan, Step
from imgtool.progress import Control
from imgtool.steps.migrate.host import disk_paths
from imgtool.steps.migrate.look import Move

SAMPLE = 64 << 20
"""Bytes that are read to learn how fast that is."""
ADAPT_SECONDS = 30.0
"""The start of the appliance, mostly: 15 s where it must be emulated."""


def plan_of(move: Move, control: Control) -> Plan:
    """Measures only where nothing is fatal."""
    fatal = any(one.fatal for one in move.problems)
    rate = None if fatal else _rate(move, control)
    return Plan(machine=move.name, steps=tuple(_steps(move, rate)), problems=move.problems)


def _rate(move: Move, control: Control) -> float | None:
    """Bytes a second of the first disk; None where it cannot be read like that."""
    with suppress(ImgtoolError), move.source.reader(move.seen, 0, control) as reader:
        sink, end = _Sink(), min(SAMPLE, reader.size)
        if not reader.resumes or not end:
            return None
        began = time.monotonic()
        reader.read([(0, end)], sink, control)
        return end / max(time.monotonic() - began, 1e-3)
    control.stop.check()
    return None


class _Sink:
    """Forgets everything."""

    def write(self, offset: int, data: memoryview) -> None:
        pass

    def zero(self, offset: int, length: int) -> None:
        pass


def _steps(move: Move, rate: float | None) -> Iterator[Step]:
    total, request = 0, move.request
    near = move.target.folder is not None
    places = disk_paths(move) if near else [shown(request.target) for _ in move.seen.parsed.machine.disks]
    for number, disk in enumerate(move.seen.parsed.machine.disks):
        count = move.bytes_of(number)
        total += count
        yield Step(verb="copy" if near else "stage", request=[move.seen.found.id, disk.path], bytes=count,
                   estimate_seconds=round(count / rate, 3) if rate else None, summary=f"{disk.path} → {places[number]}",
                   notes=("compared with what was read",) if request.verify and near else ())
    if move.adapts:
        yield Step(verb="adapt", request=[move.seen.found.id, move.target.world], estimate_seconds=ADAPT_SECONDS,
                   summary=f"the guest gets what it needs on {move.target.world}", notes=() if near else ("in overlays",))
    if near:
        yield Step(verb="define", request=[shown(request.target), move.name], summary=f"{move.name} on {shown(request.target)}")
    else:
        yield Step(verb="send", request=[shown(request.target), move.name], bytes=total,
                   summary=f"to {shown(request.target)} as {move.name}{move.target.temporary}")
        if request.verify:
            yield Step(verb="compare", request=[shown(request.target), move.name], bytes=total,
                       summary="read back, or hashed there")
        yield Step(verb="rename", request=[shown(request.target), move.name], summary=f"{move.name} gets its name")
    if request.start:
        yield Step(verb="start", request=[shown(request.target), move.name], summary=f"{move.name}, and a look at it")
