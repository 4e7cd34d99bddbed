"""To a target far away: the bytes that travel are the adapted ones.

::

    source in place, or a staged copy ◀── overlay, adapted ──▶ send ─▶ compare ─▶ rename
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import cast

from imgtool.copying.pool import disks_together
from imgtool.endpoints import FarTarget, Reader
from imgtool.endpoints.uri import shown
from imgtool.errors import DifferError, ImgtoolError
from imgtool.formats.disk import Disk, laid_over, open_disk
from imgtool.formats.locks import hold, refuse_if_used
from imgtool.journal import PARTIAL, Journal
from imgtool.model import ImageSpec
from imgtool.model.endpoint import NewDisk
from imgtool.model.guest import NOTHING_CHANGED, AdaptResult
from imgtool.model.migration import Migrated, MovedDisk
from imgtool.progress import Control, Stop, together
from imgtool.steps.adapt import adapt_overlays
from imgtool.steps.migrate.describe import Identity, describe
from imgtool.steps.migrate.fetch import Wish, fetch
from imgtool.steps.migrate.host import adapt_request
from imgtool.steps.migrate.look import Move, disk_format, disk_names, placed
from imgtool.steps.migrate.work import Work

STAGED = ImageSpec(format="qcow2")


def move(move: Move, work: Work, book: Journal, control: Control, keys: Sequence[str]) -> Migrated:
    """Stages what cannot be read in place, adapts overlays, sends, compares, renames. Raises what those raise."""
    target = cast("FarTarget", move.target)
    slots = move.seen.parsed.machine.disks
    with ExitStack() as stack:
        readers = [stack.enter_context(move.source.reader(move.seen, number, control)) for number in range(len(slots))]
        staged = _stage(move, readers, work, book, control)
        bases = [stack.enter_context(_base(move, reader, number, work, control)) for number, reader in enumerate(readers)]
        identity = work.identity(move.preview.machine, move.identity_of)
        of = [[dict(reader.state) for reader in readers], list(identity.macs)]
        changed = _adapt(move, bases, of, identity, work, book, control, keys)
        disks = bases
        if move.adapts:
            disks = [stack.enter_context(laid_over(_overlay(work, number), base, control.stop))
                     for number, base in enumerate(bases)]
        new = new_disks(move, [[dict(reader.state), _stamp(work, number, adapted=move.adapts)]
                               for number, reader in enumerate(readers)])
        pairs = list(zip(new, disks, strict=True))
        files = placed(move.seen, target, [one.name for one in new], new[0].format if new else None)
        made = describe(move.request, move.seen, target, move.state, files=files, capabilities=changed.capabilities,
                        sizes=[disk.virtual_size for disk in disks], identity=identity, suffix=target.temporary)
        book.event("described", lines=made.lines)
        with book.step("send", machine=made.machine.name) as told:
            machine = target.send(made.machine.name, made.machine, made.rendered.text, pairs, str(work.path), control)
            told["id"] = machine
        if move.request.verify:
            with book.step("compare", id=machine):
                _compare(target, machine, pairs, work, control)
        for number, one in enumerate(staged):
            control.disks.whole(number, one)
        with book.step("rename", id=machine, machine=move.name):
            target.rename(machine, move.name)
    return Migrated(machine=move.name, id=machine, source="", target="", changes=changed.changes, warnings=changed.warnings,
                    disks=tuple(replace(one, destination=name.name) for one, name in zip(staged, new, strict=True)))


def _compare(target: FarTarget, machine: str, pairs: Sequence[tuple[NewDisk, Disk]], work: Work, control: Control) -> None:
    """What differs is removed there: the next run must not take it for whole. Raises DifferError."""
    try:
        target.compare(machine, pairs, control)
    except DifferError:
        target.remove(machine)
        target.discard([new for new, _ in pairs], str(work.path))
        raise


def discard(move: Move, work: Work) -> list[str]:
    """Removes what a stopped run has left at the target."""
    target, new = cast("FarTarget", move.target), new_disks(move, [{} for _ in move.seen.parsed.machine.disks])
    target.discard(new, str(work.path))
    return [f"{shown(move.request.target)}: {one.name}" for one in new]


def _stage(move: Move, readers: Sequence[Reader], work: Work, book: Journal, control: Control) -> list[MovedDisk]:
    """Copies here what cannot be read where it lies."""
    stop = Stop(control.stop)
    slots = move.seen.parsed.machine.disks

    def one(number: int) -> MovedDisk:
        reader, name = readers[number], slots[number].path
        if reader.disk is not None:
            return MovedDisk(source=name, destination="", virtual_size=reader.size, engine="in place")
        own = replace(control, stop=stop, progress=progress.of(number, f"disk {number}"))
        wish = Wish(path=_staged(work, number), spec=STAGED, verify=move.request.verify)
        with book.step("stage", disk=name) as told:
            done = fetch(reader, name, wish, own)
            told["result"] = done
        return done

    with together(control.progress, lambda number: 0 if readers[number].disk else move.bytes_of(number), len(slots)) as progress:
        return disks_together(one, len(slots), stop)


def _staged(work: Work, number: int) -> str:
    return work.file(f"{number}.base.qcow2")


def _overlay(work: Work, number: int) -> str:
    return work.file(f"{number}.qcow2")


@contextmanager
def _base(move: Move, reader: Reader, number: int, work: Work, control: Control) -> Iterator[Disk]:
    """What is only read from here on."""
    if reader.disk is None:
        with open_disk(_staged(work, number) + PARTIAL, source_format=STAGED.format, stop=control.stop) as disk:
            yield disk
        return
    reader.disk.refuse_encrypted()
    hold(reader.disk)
    if not move.request.ignore_lock:
        refuse_if_used(reader.disk)
    yield reader.disk


def _adapt(move: Move, bases: Sequence[Disk], of: object, identity: Identity, work: Work, book: Journal, control: Control,
           keys: Sequence[str]) -> AdaptResult:
    """In overlays that stay until all is done: what was sent must be the same after a stop. ``of``: of what they are."""
    if not move.adapts:
        return NOTHING_CHANGED
    if done := work.adapted(of):
        return done
    for number in range(len(bases)):
        if os.path.lexists(_overlay(work, number)):
            os.unlink(_overlay(work, number))
    with book.step("adapt") as told:
        done = adapt_overlays(bases, str(work.path), adapt_request(move, identity), control, keys=keys)
        if done.unlisted and not move.request.guest.rebuild_initramfs:
            raise ImgtoolError(f"the guest has files that were written, and that no change names: {', '.join(done.unlisted[:5])}",
                               "nothing was sent; this is a bug of imgtool. --no-adapt sends the guest as it is")
        told["changes"] = done.changes
    work.set_adapted(of, done)
    return done


def new_disks(move: Move, states: Sequence[object]) -> list[NewDisk]:
    names = disk_names(move.request, move.seen, move.target)
    form = disk_format(move.request, move.target)
    return [NewDisk(name=name, format=form, allocation=move.request.allocation, state={"of": state})
            for name, state in zip(names, states, strict=True)]


def _stamp(work: Work, number: int, *, adapted: bool) -> list[int]:
    """Tells this overlay from any other."""
    if not adapted:
        return []
    status = os.stat(_overlay(work, number))
    return [status.st_ino, status.st_size, status.st_mtime_ns]
