"""The disks that are read: of an image, of a machine in a folder, of a machine elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache

from imgtool import endpoints
from imgtool.endpoints import Reader, local, uri
from imgtool.errors import RefusedError, UsageError
from imgtool.formats.disk import Disk, open_disk, open_given
from imgtool.formats.layer import Layer
from imgtool.formats.locks import hold, refuse_if_used
from imgtool.guests.appliance import letters
from imgtool.journal import PARTIAL
from imgtool.model import Extent, ImageSpec, Kind
from imgtool.model.description import Parsed
from imgtool.model.devices import Bus, DiskSlot
from imgtool.model.endpoint import Power, Seen
from imgtool.model.v2p import V2pRequest
from imgtool.progress import Control
from imgtool.steps.machine import open_slot
from imgtool.steps.migrate.fetch import Wish, fetch
from imgtool.suffixes import is_machine

PREFIXES = {Bus.VIRTIO: "vd", Bus.IDE: "hd", Bus.XEN: "xvd"}
"""How a guest's kernel names disks of a bus; others are ``sd``."""
PIECE, PIECES = 1 << 20, 64
"""Bytes that are asked for at once, and how many of these are kept."""
ANY = ("0", "sda", "vda", "hda")
"""Names that the only disk of a bare image may be called by."""


@dataclass(frozen=True, kw_only=True)
class SourceDisk:
    names: tuple[str, ...]
    """That a user may call it by, the best first."""
    disk: Disk
    state: Mapping[str, object]
    """What tells it, in this state, from any other."""


@dataclass(frozen=True, kw_only=True)
class SourceMachine:
    name: str
    disks: tuple[SourceDisk, ...]
    warnings: tuple[str, ...] = ()


@contextmanager
def opened(request: V2pRequest, folder: str, control: Control, *, copying: bool, planning: bool) -> Iterator[SourceMachine]:
    """All disks of the machine, held so that nobody starts it. ``folder``: for disks that cannot be read where they are.

    ``planning``: of such disks only what somebody looks at is read, if that can be. Without ``copying`` they are refused if not.
    Raises UsageError, RefusedError (it runs), UnreachableError, DamagedError.
    """
    with ExitStack() as stack:
        place = uri.parse(request.source) if request.source else None
        if place is not None and place.scheme != "path":
            yield _far(request, folder, control, stack, copying=copying, planning=planning)
            return
        path = place.path if place else request.name
        if is_machine(path):
            yield _described(path, request, folder, control, stack)
        else:
            disk = _held(stack.enter_context(open_given(path, request.reading, control.stop)), request)
            one = SourceDisk(names=(os.path.basename(path), *ANY), disk=disk, state=file_state(disk))
            yield SourceMachine(name=os.path.basename(request.name), disks=(one,), warnings=disk.warnings)


def chosen(machine: SourceMachine, name: str) -> int:
    """The number of the disk with that name; without a name, the only one. Raises UsageError."""
    fitting = [number for number, disk in enumerate(machine.disks) if name in disk.names]
    if not name and len(machine.disks) == 1:
        return 0
    if len(fitting) != 1:
        there = ", ".join(disk.names[0] for disk in machine.disks)
        raise UsageError(f"{machine.name} has no disk {name!r}" if name else f"which disk of {machine.name}?",
                         f"--disk SOURCE=DEVICE; it has: {there}")
    return fitting[0]


def file_state(disk: Disk) -> dict[str, object]:
    """Of a disk that consists of files here."""
    found = []
    for file in disk.files:
        status = os.fstat(file.fd)
        found.append([os.path.realpath(file.path), file.size, status.st_mtime_ns, status.st_ino])
    return {"files": found, "size": disk.virtual_size}


def _held(disk: Disk, request: V2pRequest) -> Disk:
    disk.refuse_encrypted()
    hold(disk)
    if not request.reading.ignore_lock:
        refuse_if_used(disk)
    return disk


def _described(path: str, request: V2pRequest, folder: str, control: Control, stack: ExitStack) -> SourceMachine:
    machine = local.load(path)
    if not request.reading.ignore_lock:
        local.refuse_if_running(machine)
    slots = machine.parsed.machine.disks
    if not slots:
        raise UsageError(f"{path} describes a machine without a disk")
    disks = []
    for names, slot in zip(disk_names(machine.parsed, ()), slots, strict=True):
        disk = stack.enter_context(open_slot(machine, slot, request.reading, request.disk_roots, folder, control.stop))
        disks.append(SourceDisk(names=names, disk=_held(disk, request), state=file_state(disk)))
    warnings = dict.fromkeys(warning for one in disks for warning in one.disk.warnings)
    return SourceMachine(name=machine.parsed.machine.name, disks=tuple(disks), warnings=tuple(warnings))


def disk_names(parsed: Parsed, paths: Sequence[str]) -> list[tuple[str, ...]]:
    """What each disk of a machine may be called, names that would mean two of them left out.

    The name that the description gives (libvirt's ``target``) wins over one that we count.
    """
    said = {int(one.field[6:one.field.index("]")]): one.value for one in parsed.trace
            if one.field.startswith("disks[") and one.key.endswith("target/@dev")}
    found, letter = [], letters(len(parsed.machine.disks))
    counts: dict[str, int] = {}
    for number, slot in enumerate(parsed.machine.disks):
        prefix = PREFIXES.get(slot.bus, "sd")
        counts[prefix] = counts.get(prefix, -1) + 1
        counted = f"{prefix}{letter[counts[prefix]]}" if not said else ""
        path = paths[number] if paths else slot.path
        names = (said.get(number, ""), counted, _address(slot), str(number), os.path.basename(path), path)
        found.append([name for name in dict.fromkeys(names) if name])
    every = [name for names in found for name in names]
    return [tuple(name for name in names if every.count(name) == 1) for names in found]


def _address(slot: DiskSlot) -> str:
    return f"{slot.bus.value}{slot.controller}:{slot.unit}"


def _far(request: V2pRequest, folder: str, control: Control, stack: ExitStack, *, copying: bool, planning: bool) -> SourceMachine:
    place = endpoints.source(uri.parse(request.source or ""), request.credentials, control.stop)
    stack.callback(place.close)
    seen = place.look(place.find(request.name), control)
    if seen.found.power is not Power.OFF and not request.reading.ignore_lock:
        raise RefusedError(f"{seen.found.name} is {seen.found.power.value}: its disks change while they are read",
                           "shut it down first")
    names = disk_names(seen.parsed, [disk.path for disk in seen.disks])
    disks = []
    for number in range(len(seen.parsed.machine.disks)):
        reader = stack.enter_context(place.reader(seen, number, control))
        if reader.disk is not None:
            disk = _held(reader.disk, request)
        elif planning and reader.resumes:
            disk = _asked(reader, seen, number, control)
        elif copying:
            disk = _fetched(reader, seen, os.path.join(folder, f"source-{number}.raw"), control, stack)
        else:
            raise UsageError(f"the disks of {seen.found.name} come only as a whole: there is no plan without copying them here",
                             "leave --dry-run out; or imgtool migrate it into a folder first")
        disks.append(SourceDisk(names=names[number], disk=disk, state=dict(reader.state)))
    warnings = dict.fromkeys(warning for one in disks for warning in one.disk.warnings)
    return SourceMachine(name=seen.found.name, disks=tuple(disks), warnings=tuple(warnings))


def _fetched(reader: Reader, seen: Seen, path: str, control: Control, stack: ExitStack) -> Disk:
    """A copy in our state folder: it can be adapted, and its bytes stay what they are while the disk is written."""
    fetch(reader, seen.found.name, Wish(path=path, spec=ImageSpec(format="raw")), control)
    return stack.enter_context(open_disk(path + PARTIAL, source_format="raw", stop=control.stop))


def _asked(reader: Reader, seen: Seen, number: int, control: Control) -> Disk:
    """The disk where it is; each piece is read when it is looked at, which is enough for a plan."""
    @lru_cache(PIECES)
    def piece(start: int) -> bytes:
        room = _Room(start, bytearray(min(PIECE, reader.size - start)))
        reader.read([(start, start + len(room.data))], room, control)
        return bytes(room.data)

    def extents(start: int, end: int) -> Iterator[Extent]:
        yield Extent(start, end - start, Kind.DATA)

    def decode(extent: Extent) -> bytes:
        first = extent.start // PIECE * PIECE
        return b"".join(map(piece, range(first, extent.end, PIECE)))[extent.start - first:][:extent.length]

    path = (seen.disks or seen.parsed.machine.disks)[number].path or seen.found.name
    layer = Layer(path=path, format="raw", virtual_size=reader.size, files=(), extents=extents, decode=decode)
    return Disk(path=path, layers=(layer,))


@dataclass(frozen=True)
class _Room:
    """Where the bytes of a disk go: memory, from its byte ``start`` on."""

    start: int
    data: bytearray

    def write(self, offset: int, data: memoryview) -> None:
        self.data[offset - self.start:offset - self.start + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        """It has zeros already."""
