"""v2p: disks of a virtual machine, or an image, written to physical disks, here or at the far end of ssh.

::

    sources  image, description, endpoint ─▶ disks ─▶ change  overlays: adapted, grown ─▶ patched: the table for this disk
                                                                                                        │
    targets  what is on it, why it must not be written ─▶ hold (O_EXCL, looked at again) ─▶ write ◀─────┘

Nothing is written before all disks were looked at, confirmed and are held. The source is only read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace

from imgtool import files
from imgtool.endpoints import uri
from imgtool.endpoints.far import connected
from imgtool.endpoints.far.wire import Wire
from imgtool.errors import DamagedError, RefusedError, UsageError
from imgtool.formats.disk import Disk, laid_over
from imgtool.formats.patched import patched, reader
from imgtool.journal import journal, progress_path, state_folder
from imgtool.model.endpoint import Uri
from imgtool.model.partitions import Fit
from imgtool.model.problem import Problem
from imgtool.model.v2p import DiskChoice, Planned, V2pPlan, V2pRequest, V2pResult, WrittenDisk
from imgtool.partitions import read_table
from imgtool.partitions.fit import fit
from imgtool.progress import Control, Kept
from imgtool.steps.v2p import boot_entry, change, targets
from imgtool.steps.v2p.sources import SourceDisk, SourceMachine, chosen, opened
from imgtool.steps.v2p.targets import TargetDisk
from imgtool.steps.v2p.write import Work, begun, write


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A disk of the machine, and the physical one that it goes to."""

    number: int
    choice: DiskChoice
    source: SourceDisk
    target: TargetDisk
    map_path: str
    plan: Planned


def prepare(request: V2pRequest, control: Control, *, fetch: bool = False) -> V2pPlan:
    """What would be written where, with what is there now; writes nothing there.

    ``fetch``: disks of which there is all or nothing are copied into the state folder first. Raises UsageError, RefusedError,
    UnreachableError, DamagedError.
    """
    folder = _folder(request)
    with _both(request, folder, control, fetch=fetch) as (machine, wire):
        pairs = _pairs(request, machine, wire, folder)
        return V2pPlan(machine=machine.name, host=wire.name, disks=tuple(pair.plan for pair in pairs),
                       problems=_problems(request, wire, pairs),
                       warnings=(*machine.warnings, *_left_out(machine, pairs)))


def v2p(request: V2pRequest, control: Control, *, keys: Sequence[str] = ()) -> V2pResult:
    """Begins, or goes on where the same command was stopped. ``keys``: passphrases beside those of the key files.

    Raises RefusedError (a disk that must not be written, is too small, or was not confirmed), LockedError, DamagedError,
    DifferError, NoSpaceError, UnreachableError, MissingToolError, StoppedError.
    """
    begin = time.monotonic()
    folder, job = _folder(request), _job(request)
    control = replace(control, progress=Kept(progress_path(job), control.progress))
    places = {"source": uri.shown(uri.parse(request.source)) if request.source else request.name, "target": request.target}
    with (journal(job, "v2p", machine=request.name, **places, disks=[choice.device for choice in request.disks],
                  of=control.of) as book,
          _both(request, folder, control, fetch=True, confirmed=True) as (machine, wire)):
        pairs = _pairs(request, machine, wire, folder)
        targets.require(_problems(request, wire, pairs))
        for pair in pairs:
            targets.require_confirmed(pair.target, request.confirmed)
        changed = change.change(request, machine, _sizes(request, machine, pairs), folder, keys, control) \
            if change.needed(request) else None
        with ExitStack() as stack:
            disks = [stack.enter_context(laid_over(change.overlay_path(folder, pair.number), pair.source.disk, control.stop))
                     if changed else pair.source.disk for pair in pairs]
            works = [_work(request, pair, disk, changed, wire) for pair, disk in zip(pairs, disks, strict=True)]
            held = [stack.enter_context(closing(targets.hold(wire, pair.target, wipe=request.wipe or begun(pair.map_path))))
                    for pair in pairs]
            written: list[WrittenDisk] = []
            control.disks.there(len(works))
            for work, file in zip(works, held, strict=True):
                with book.step("write", disk=work.source, to=work.device, serial=work.disk.serial, size=work.disk.size):
                    written.append(write(work, file, control))
                control.disks.whole(len(written) - 1, written[-1])
            entered = boot_entry.Entered()
            if request.boot_entry:
                entered = boot_entry.add(wire, _place(request), machine.name, [(one.disk, one.content) for one in works],
                                         control.stop)
                book.event("boot entry", made=entered.made, warnings=entered.warnings)
        warnings = (*machine.warnings, *(changed.warnings if changed else ()), *_left_out(machine, pairs), *entered.warnings)
        shutil.rmtree(folder)
        result = V2pResult(
            machine=machine.name, disks=tuple(written), changes=changed.changes if changed else (), boot_entry=entered.made,
            warnings=tuple(dict.fromkeys(warnings)), seconds=round(time.monotonic() - begin, 3))
        book.event("result", result=result)
    return result


def discard(request: V2pRequest) -> bool:
    """``--discard-partial``: forgets a run that was stopped. True if there was one. What is on the disk stays there."""
    folder = _folder(request, make=False)
    if not os.path.isdir(folder):
        return False
    with journal(_job(request), "v2p", discard=True):
        shutil.rmtree(folder)
    return True


def _job(request: V2pRequest) -> str:
    """The same for the same command, whatever its options."""
    what = [request.name, request.source, request.target, [(choice.source, choice.device) for choice in request.disks]]
    if not (request.source and "://" in request.source):
        what.append(os.getcwd())
    return "v2p-" + hashlib.blake2b(json.dumps(what).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _folder(request: V2pRequest, *, make: bool = True) -> str:
    """What a stopped run leaves: block maps, overlays, copies of disks that cannot be read in place."""
    folder = str(state_folder() / "v2p" / _job(request))
    if make:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        files.clean(folder)
    return folder


def _place(request: V2pRequest) -> Uri:
    """The machine that has the disks."""
    return uri.parse(request.target) if request.target else Uri(scheme="metal")


@contextmanager
def _both(request: V2pRequest, folder: str, control: Control, *, fetch: bool,
          confirmed: bool = False) -> Iterator[tuple[SourceMachine, Wire]]:
    """``confirmed``: the physical disks must be by now."""
    try:
        place = _place(request)
        if place.scheme not in ("metal", "metal+ssh") or place.path:
            raise UsageError(f"--to {request.target}: this is not the address of a machine with disks", "--to metal+ssh://USER@HOST")
        if not request.disks:
            raise UsageError("no disk is named", "--disk SOURCE=/dev/disk/by-id/…")
        with connected(place, control.stop) as wire:
            if fetch and request.source and "://" in request.source:
                _look_first(request, wire, confirmed=confirmed)
            with opened(request, folder, control, copying=fetch, planning=not confirmed) as machine:
                yield machine, wire
    finally:
        with suppress(OSError):  # something is in it: a run goes on there
            os.rmdir(folder)


def _look_first(request: V2pRequest, wire: Wire, *, confirmed: bool) -> None:
    """What is refused whatever the source is: to copy its disks here first may take hours. Raises RefusedError."""
    for choice in request.disks:
        target = targets.look(wire, choice.device)
        targets.require(tuple(targets.problems(target, wipe=True)))
        if confirmed:
            targets.require_confirmed(target, request.confirmed)


def _pairs(request: V2pRequest, machine: SourceMachine, wire: Wire, folder: str) -> list[_Pair]:
    found: list[_Pair] = []
    for choice in request.disks:
        number = chosen(machine, choice.source)
        target = targets.look(wire, choice.device)
        for other in found:
            if other.number == number:
                raise UsageError(f"the disk {machine.disks[number].names[0]} is named twice")
            if other.target.disk.name == target.disk.name:
                raise UsageError(f"{other.choice.device} and {choice.device} are one disk, {target.disk.path}")
        map_path = os.path.join(folder, f"{number}.map")
        plan = _planned(request, machine.disks[number], choice, target, resuming=begun(map_path))
        found.append(_Pair(number=number, choice=choice, source=machine.disks[number], target=target, map_path=map_path,
                           plan=plan))
    return found


def _problems(request: V2pRequest, wire: Wire, pairs: Sequence[_Pair]) -> tuple[Problem, ...]:
    found = [problem for pair in pairs for problem in pair.plan.problems]
    if request.boot_entry:
        found += boot_entry.problems(wire, [pair.source.disk for pair in pairs])
    return tuple(found)


def _planned(request: V2pRequest, source: SourceDisk, choice: DiskChoice, target: TargetDisk, *, resuming: bool) -> Planned:
    disk, image = target.disk, source.disk
    found = list(targets.problems(target, wipe=request.wipe or resuming))
    notes: list[str] = []
    try:
        fitted = _fit(request, image, target)
        notes += fitted.notes
        if fitted.grown:
            notes.append(f"partition {fitted.grown.number} is extended to byte {fitted.grown.end}, if what is in it can grow")
    except (RefusedError, DamagedError) as error:
        found.append(Problem(what=f"{image.path} → {disk.path}: {error.message}", hint=error.hint, fatal=True))
    notes.append("holes: " + ("zeroed by the disk itself" if disk.zeroes else "zeros are written"))
    if disk.size > image.virtual_size:
        rest = "zeroed (--wipe)" if request.wipe else "discarded" if disk.discards else "left as it is (--wipe zeroes it)"
        notes.append(f"the {disk.size - image.virtual_size} bytes behind the image: {rest}")
    if resuming:
        notes.append("a run that was stopped is gone on with")
    return Planned(source=source.names[0], image=image.path, image_size=image.virtual_size, device=choice.device, disk=disk,
                   contents=target.contents.lines, confirm=targets.confirmation(disk),
                   confirmed=targets.is_confirmed(target, request.confirmed), notes=tuple(notes), problems=tuple(found))


def _fit(request: V2pRequest, image: Disk, target: TargetDisk) -> Fit:
    """Raises RefusedError, DamagedError."""
    read = reader(image)
    table = read_table(read, image.virtual_size)
    if request.grow and target.disk.sector != table.sector:
        raise RefusedError("--grow cannot be combined with sectors of another size", "leave --grow out")
    return fit(table, read, target.disk.size, target.disk.sector, grow=request.grow)


def _left_out(machine: SourceMachine, pairs: Sequence[_Pair]) -> Iterator[str]:
    named = {pair.number for pair in pairs}
    for number, disk in enumerate(machine.disks):
        if number not in named:
            yield f"{disk.names[0]} of {machine.name} is not written: no --disk names it"


def _sizes(request: V2pRequest, machine: SourceMachine, pairs: Sequence[_Pair]) -> list[int]:
    """Of the overlays."""
    sizes = [one.disk.virtual_size for one in machine.disks]
    for pair in pairs if request.grow else ():
        sizes[pair.number] = max(sizes[pair.number], pair.target.disk.size)
    return sizes


def _work(request: V2pRequest, pair: _Pair, disk: Disk, changed: change.Changed | None, wire: Wire) -> Work:
    target = pair.target.disk
    read = reader(disk)
    fitted = fit(read_table(read, disk.virtual_size), read, target.size, target.sector)
    return Work(source=pair.plan.source, device=pair.choice.device, disk=target, fit=fitted, map_path=pair.map_path,
                content=patched(disk, fitted.patches, target.size), held=pair.source.disk.virtual_size,
                state=_state(pair, changed, fitted, wire), wipe=request.wipe, verify=request.verify)


def _state(pair: _Pair, changed: change.Changed | None, fitted: Fit, wire: Wire) -> Mapping[str, object]:
    target = pair.target.disk
    patches = hashlib.blake2b(repr(fitted.patches).encode(), digest_size=16).hexdigest()
    return {"source": json.loads(json.dumps(dict(pair.source.state), default=str)), "changed": changed.token if changed else None,
            "table": patches, "target": [wire.name, *targets.identity(target)]}
