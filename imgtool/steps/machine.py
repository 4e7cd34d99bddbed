"""convert MACHINE DIR: all disks of a machine, and its description for the other side beside them, pointing to them.

::

    DIR's parent/.imgtool-XXXX/DIR/    disks, two at a time ─▶ description ─▶ flushed ─▶ renamed to DIR

An OVA as the destination is in ``machine_ova``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from imgtool import files
from imgtool.copying.pool import disks_together
from imgtool.endpoints.local import LocalMachine, disk_file, load, refuse_if_running
from imgtool.errors import DamagedError, RefusedError, UsageError
from imgtool.formats.disk import Disk, open_given
from imgtool.formats.measure import work as moved_bytes
from imgtool.model import ConvertResult, SourceOptions
from imgtool.model.devices import DiskSlot
from imgtool.model.package import FileReference
from imgtool.model.translation import MachineRequest, MachineResult, PlacedFile, Translation
from imgtool.ova.disks import open_file
from imgtool.ova.manifest import check_manifest
from imgtool.plan import Plan, Step
from imgtool.progress import Control, Stop, together
from imgtool.steps.convert import convert_disk, prepare_disk, refuse_without_room, room_needed
from imgtool.steps.names import disk_names
from imgtool.steps.translate import refuse_losses, translation


@dataclass(frozen=True)
class Work:
    """A machine, and what becomes of each of its disks."""

    machine: LocalMachine
    disks: tuple[DiskSlot, ...]
    names: tuple[str, ...]
    """Of the new images, beside each other."""
    translation: Translation
    description: str
    """Name of the new description."""


def prepare(request: MachineRequest, control: Control) -> Plan:
    """Everything that can be refused, and what cannot be carried over. What gzip packed is unpacked for a moment."""
    work = look(request)
    destination = request.convert.destination
    _check_destination(request)
    parent = os.path.dirname(destination)
    notes, total, room = [], 0, 0
    for disk, name in zip(work.disks, work.names, strict=True):
        asked = replace(request.convert, destination=os.path.join(parent, f".imgtool-plan-{name}"))
        with open_disk_of(work.machine, disk, request, parent, control) as opened:
            asked = replace(asked, source=opened.path)
            step = prepare_disk(asked, opened)
            room += room_needed(asked, opened)
        notes += [f"{disk.path} → {name}: {step.notes[0]}", *(note for note in step.notes[1:-1])]
        total += step.bytes
    refuse_without_room(parent, room)
    notes += [f"{work.machine.path} → {work.description}", "each disk is compared with its source" if request.convert.verify else
              "not compared (--no-verify)"]
    spec = request.convert.spec
    kind = f"{spec.allocation.value} {spec.subformat or spec.format}"
    step = Step(verb="machine", request=request, bytes=total, notes=tuple(notes),
                summary=f"{work.machine.path} → {destination}, {len(work.disks)} disks, {kind}")
    return Plan(steps=(step,), problems=work.translation.problems)


def look(request: MachineRequest) -> Work:
    """Reads the description and makes the new one. Raises RefusedError, DamagedError; with ``strict`` ImgtoolError."""
    machine = load(request.convert.source)
    if not request.convert.reading.ignore_lock:
        refuse_if_running(machine)
    disks = machine.parsed.machine.disks
    names = disk_names([disk.path for disk in disks], request.convert.spec.format)
    folder = _home(request)
    stem = files.file_name(request.translate.name or machine.parsed.machine.name)
    described = f"{stem}{request.translate.suffix}"
    placed = tuple(PlacedFile(disk.path, os.path.join(folder, name), request.convert.spec.format)
                   for disk, name in zip(disks, names, strict=True))
    asked = replace(request.translate, source=request.convert.source, destination=os.path.join(folder, described), placed=placed)
    done = translation(asked, machine)
    refuse_losses(asked, done)
    return Work(machine, disks, tuple(names), done, described)


def _home(request: MachineRequest) -> str:
    """The folder in which the new files will stand at last."""
    destination = request.convert.destination
    return os.path.dirname(destination) if is_package(request) else destination


def is_package(request: MachineRequest) -> bool:
    return request.translate.suffix == ".ovf"


def _check_destination(request: MachineRequest) -> None:
    """DIR must be new or empty; an archive is replaced only with ``force``."""
    path = request.convert.destination
    if not os.path.isdir(os.path.dirname(path)):
        raise UsageError(f"the directory {os.path.dirname(path)} does not exist", "mkdir -p makes it")
    if not os.path.lexists(path):
        return
    if is_package(request):
        if not os.path.isfile(path) or not request.convert.force:
            raise RefusedError(f"{path} exists", "use --force to replace it")
    elif not os.path.isdir(path) or os.path.islink(path):
        raise RefusedError(f"{path} exists and is no directory", "name a new directory")
    elif os.listdir(path):
        raise RefusedError(f"{path} is not empty", "name a new directory: all files of the machine go there at once")


def open_disk_of(machine: LocalMachine, disk: DiskSlot, request: MachineRequest, folder: str,
                 control: Control) -> AbstractContextManager[Disk]:
    """``open_slot`` in the words of a request."""
    return open_slot(machine, disk, request.convert.reading, request.translate.disk_roots, folder, control.stop)


@contextmanager
def open_slot(machine: LocalMachine, disk: DiskSlot, reading: SourceOptions, roots: tuple[str, ...], folder: str,
              stop: Stop) -> Iterator[Disk]:
    """A disk of a machine, read where it lies; only what an OVF has packed with gzip is unpacked in ``folder``."""
    with ExitStack() as stack:
        opener: AbstractContextManager[Disk]
        if machine.package is None:
            path = disk_file(machine, disk.path, disk.backing, roots)
            form = reading.format or (disk.format if disk.format == "raw" else None)
            opener = open_given(path, replace(reading, format=form), stop)
        else:
            space = stack.enter_context(files.workspace(folder))
            opener = open_file(machine.package, _reference(machine, disk), space, stop, source_format=reading.format)
        yield stack.enter_context(opener)


def _reference(machine: LocalMachine, disk: DiskSlot) -> FileReference:
    from imgtool.descriptions import ovf

    for reference in ovf.files(machine.text):
        if reference.href == disk.path:
            return reference
    raise DamagedError(f"{machine.path} has a disk without a file: {disk.path!r}", "make an empty disk on the other side")


def convert_machine(request: MachineRequest, control: Control) -> MachineResult:
    """Raises what ``convert`` of a disk and ``translate`` raise; then nothing is left behind."""
    began = time.monotonic()
    work = look(request)
    _check_destination(request)
    warnings = check_manifest(work.machine.package, control) if work.machine.package and request.convert.verify else ()
    if is_package(request):
        from imgtool.steps.machine_ova import write_ova

        disks = write_ova(request, work, control)
    else:
        disks = _write_folder(request, work, control)
    home = _home(request)
    package = work.machine.package
    return MachineResult(
        source=work.machine.path, destination=request.convert.destination, name=work.translation.machine.name, disks=tuple(disks),
        description=work.description if is_package(request) else os.path.join(home, work.description),
        format=request.convert.spec.format, problems=work.translation.problems, seconds=round(time.monotonic() - began, 3),
        verified=request.convert.verify,
        warnings=(*(package.warnings if package else ()), *warnings, *(text for disk in disks for text in disk.warnings)))


def _write_folder(request: MachineRequest, work: Work, control: Control) -> list[ConvertResult]:
    parent, name = os.path.split(request.convert.destination)
    with files.workspace(parent) as space:
        folder = os.path.join(space, name)
        os.mkdir(folder)
        results = _disks(request, work, folder, control)
        path = os.path.join(folder, work.description)
        with open(path, "xb") as file:
            file.write(work.translation.rendered.text)
        files.sync(path)
        control.stop.check()
        files.publish(space, [name], replace=os.path.isdir(request.convert.destination))
    home = request.convert.destination
    return [replace(one, destination=os.path.join(home, os.path.basename(one.destination)),
                    files=tuple(os.path.join(home, os.path.basename(file)) for file in one.files)) for one in results]


def _disks(request: MachineRequest, work: Work, folder: str, control: Control) -> list[ConvertResult]:
    """All disks, a few at a time. The first failure stops the others, and is what is told."""
    stop = Stop(control.stop)

    def one(number: int) -> ConvertResult:
        disk, name = work.disks[number], work.names[number]
        own = replace(control, stop=stop, progress=progress.of(number, name))
        with open_disk_of(work.machine, disk, request, folder, own) as opened:
            asked = replace(request.convert, source=opened.path, destination=os.path.join(folder, name), force=False)
            return convert_disk(asked, opened, own)

    with together(control.progress, lambda number: moved(request, work, number, folder, control), len(work.disks)) as progress:
        return disks_together(one, len(work.disks), stop)


def moved(request: MachineRequest, work: Work, number: int, folder: str, control: Control) -> int:
    """Bytes that copying a disk will move, nearly. What gzip packed is not unpacked for that."""
    disk = work.disks[number]
    if work.machine.package is not None and _reference(work.machine, disk).gzip:
        return disk.capacity or 0
    with open_disk_of(work.machine, disk, request, folder, control) as opened:
        return moved_bytes(opened)
