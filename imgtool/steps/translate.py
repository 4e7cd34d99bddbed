"""translate: a machine description of one format becomes one of another. Disks stay as they are: see ``machine``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from imgtool import files
from imgtool.descriptions import description
from imgtool.endpoints.local import LocalMachine, load, locate, read_text
from imgtool.errors import ImgtoolError, RefusedError, UsageError
from imgtool.formats.disk import open_disk
from imgtool.kvm import kvm_state
from imgtool.model.description import Parsed, Rendered
from imgtool.model.devices import Backing
from imgtool.model.machine import Machine
from imgtool.model.problem import Problem
from imgtool.model.translation import (
    Line,
    Note,
    PlacedFile,
    Retargeted,
    TranslateRequest,
    TranslateResult,
    Translation,
    Wishes,
    World,
)
from imgtool.plan import Plan, Step
from imgtool.progress import Control
from imgtool.retarget import retarget, world

WORLDS = {".xml": World.KVM, ".vmx": World.ESXI, ".ovf": World.ESXI}
NO_PASSWORD = Problem(what="the password of the screen is not carried over", hint="set a new one at the target")
"""Of a description that is changed, not written anew: it keeps all but this."""


def prepare(request: TranslateRequest, control: Control) -> Plan:
    """What would be written, and what would be lost. Raises what ``translate`` would refuse."""
    done = translation(request)
    _check(request, done)
    step = Step(verb="translate", request=request, summary=f"{request.source} → {request.destination or 'stdout'}",
                bytes=len(done.rendered.text), notes=tuple(f"{line.field}: {line.why}" for line in done.lines if line.why))
    return Plan(steps=(step,), problems=done.problems)


def translate(request: TranslateRequest, control: Control) -> TranslateResult:
    """Raises RefusedError, UsageError, DamagedError; with ``strict`` ImgtoolError if anything is lost."""
    done = translation(request)
    _check(request, done)
    if request.destination:
        control.stop.check()
        files.put(request.destination, done.rendered.text, replace=request.force)
    return TranslateResult(
        source=request.source, destination=request.destination, format=request.suffix.removeprefix("."), name=done.machine.name,
        problems=done.problems, fields=done.lines, text=done.rendered.text.decode("utf-8", "replace"))


def refuse_losses(request: TranslateRequest, done: Translation) -> None:
    """Raises RefusedError for what makes the machine useless; with ``strict`` ImgtoolError for anything that is lost."""
    for one in done.problems:
        if one.fatal:
            raise RefusedError(one.what, one.hint)
    if request.strict and done.problems:
        raise ImgtoolError(f"--strict: {len(done.problems)} settings of {request.source} are not carried over, or need a hand; "
                           f"the first: {done.problems[0].what}", "imgtool translate --dry-run lists them all")


def _check(request: TranslateRequest, done: Translation) -> None:
    refuse_losses(request, done)
    path = request.destination
    if path and os.path.lexists(path):
        if os.path.realpath(path) == os.path.realpath(request.source):
            raise UsageError(f"{path} is the source itself", "name another destination")
        if not os.path.isfile(path) or not request.force:
            raise RefusedError(f"{path} exists", "use --force to replace it")


def translation(request: TranslateRequest, source: LocalMachine | None = None) -> Translation:
    """The description in the other format; nothing is written. ``source``: it was read already."""
    source = source or load(request.source)
    home = os.path.dirname(os.path.abspath(request.destination or request.source))
    whose = world_of(source.suffix, source.parsed.machine)
    wishes = Wishes(
        to=WORLDS[request.suffix], whose=whose,
        accelerator="kvm" if kvm_state()[0] else "qemu", networks=request.networks,
        storage=request.storage, files=(*_files(source, request.disk_roots), *request.placed), origin=source.directory, home=home,
        name=request.name, new_identity=request.new_identity, draw=f"{request.source}\0{request.destination}",
        hardware_version=request.hardware_version)
    machine = _with_capacity(source, request.disk_roots) if request.suffix == ".ovf" else source.parsed.machine
    target, parsed = retarget(machine, wishes), source.parsed
    onto = read_text(request.onto) if request.onto else None
    if onto is None and request.suffix == source.suffix and whose is wishes.to:
        onto = description(source.suffix).without_secrets(source.text)
        parsed = replace(parsed, problems=(*_unreadable(request, parsed), *(() if onto == source.text else (NO_PASSWORD,))))
    return rendered(parsed, target, request.suffix, onto=onto)


def world_of(suffix: str, machine: Machine) -> World | None:
    """Whose hardware the machine of a description has; None: of a physical machine, or nobody knows."""
    return World.ESXI if suffix == ".vmx" else world(machine)


def _unreadable(request: TranslateRequest, parsed: Parsed) -> tuple[Problem, ...]:
    """What has no field stays in a text that is changed; not so where all disks are converted, since some cannot be read."""
    converted = request.placed and {disk.path for disk in parsed.machine.disks} <= {one.named for one in request.placed}
    return tuple(one for one in parsed.problems if one.fatal and converted)


def rendered(parsed: Parsed, target: Retargeted, suffix: str, *, onto: bytes | None = None) -> Translation:
    """A retargeted machine as text, with all that was said on the way."""
    machine = _for_package(target.machine) if suffix == ".ovf" else _without_capacity(target.machine)
    text = description(suffix).render(machine, onto=onto)
    problems = tuple(dict.fromkeys((*parsed.problems, *target.problems, *text.problems)))
    return Translation(machine=machine, rendered=text, problems=problems, lines=tuple(_lines(parsed, target, text)))


def _files(source: LocalMachine, roots: tuple[str, ...]) -> Iterable[PlacedFile]:
    """The disks and images of the machine that are there."""
    disks = [(disk.path, disk.format) for disk in source.parsed.machine.disks if disk.backing is not Backing.NETWORK]
    images = [(drive.path, None) for drive in source.parsed.machine.drives if drive.backing is Backing.FILE and drive.path]
    for name, form in (*disks, *images):
        if found := locate(source, name, roots):
            yield PlacedFile(name, found, form)


def placed(request: TranslateRequest, image: str, new: str, form: str) -> PlacedFile:
    """The disk of a description that is the file ``image``, at its new place. Raises UsageError if none is."""
    source = load(request.source)
    for disk in source.parsed.machine.disks:
        found = locate(source, disk.path, request.disk_roots)
        if found and os.path.samefile(found, image):
            return PlacedFile(disk.path, new, form)
    names = ", ".join(repr(disk.path) for disk in source.parsed.machine.disks) or "none"
    raise UsageError(f"{request.source} has no disk {image}", f"its disks are: {names}")


def _with_capacity(source: LocalMachine, roots: tuple[str, ...]) -> Machine:
    """An OVF tells how large each disk is: read from those that are there."""
    disks = []
    for disk in source.parsed.machine.disks:
        size, found = disk.capacity, locate(source, disk.path, roots)
        if size is None and found:
            with suppress(ImgtoolError), open_disk(found) as opened:
                size = opened.virtual_size
        disks.append(replace(disk, capacity=size))
    return replace(source.parsed.machine, disks=tuple(disks))


def _for_package(machine: Machine) -> Machine:
    """How VMware calls an address is for a ``.vmx``; who imports a package finds that out."""
    return replace(machine, nics=tuple(replace(nic, mac_kind=None, mac_check=None) for nic in machine.nics))


def _without_capacity(machine: Machine) -> Machine:
    """Other formats leave that to the disk."""
    return replace(machine, disks=tuple(replace(disk, capacity=None, populated=None) for disk in machine.disks))


def _lines(parsed: Parsed, target: Retargeted, text: Rendered) -> Iterable[Line]:
    """Each field: the key on this side and on that, and why it is another value."""
    moved, used = dict(target.moved), set[str]()
    there = {trace.field: trace for trace in reversed(text.trace)}
    for trace in parsed.trace:
        field = _moved(trace.field, moved)
        found = next((there[one] for one in _upwards(field) if one in there), None)
        used.update([found.field] if found else [])
        yield Line(trace.key, trace.value, field, found.key if found else "", found.value if found else "",
                   _why(trace.field, target.notes))
    back = {new: old for old, new in moved.items()}
    for field, trace in sorted(there.items()):
        if field not in used:
            yield Line("", "", field, trace.key, trace.value, _why(_moved(field, back), target.notes))


def _upwards(field: str) -> Iterable[str]:
    """The field, then what it is a part of: one element of an OVF says several fields."""
    while field:
        yield field
        field = field.rpartition(".")[0]


def _moved(field: str, moved: dict[str, str]) -> str:
    head, dot, rest = field.partition(".")
    return moved.get(head, head) + dot + rest


def _why(field: str, notes: tuple[Note, ...]) -> str:
    return next((note.why for note in notes if field == note.field or field.startswith((f"{note.field}.", f"{note.field}["))), "")
