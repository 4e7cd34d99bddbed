"""Machines in files of this host: a ``.vmx``, domain ``.xml``, ``.ovf``, ``.ova``; and a folder to put one into."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from imgtool import files
from imgtool.endpoints.in_place import InPlace
from imgtool.endpoints.local import LocalMachine, disk_file, load, refuse_if_running
from imgtool.errors import DamagedError, RefusedError, UsageError
from imgtool.formats.disk import open_given
from imgtool.formats.measure import data_limit
from imgtool.journal import PARTIAL, state_folder
from imgtool.model import SourceOptions
from imgtool.model.devices import DiskSlot
from imgtool.model.endpoint import Credentials, Found, Placing, Power, Seen, Uri
from imgtool.model.situation import SourceDisk, SourceState, TargetState
from imgtool.model.translation import World
from imgtool.ova.disks import open_file
from imgtool.progress import Control, Stop
from imgtool.storage import free_space
from imgtool.suffixes import is_archive, is_machine

if TYPE_CHECKING:
    from imgtool.endpoints.package import Package


def source(uri: Uri, _credentials: Credentials, _stop: Stop) -> MachineFile:
    if not is_machine(uri.path):
        raise UsageError(f"{uri.path} is neither an address nor a machine's description",
                         "esx://USER@HOST/, qemu:///system and the like; or a .vmx, .xml, .ovf or .ova")
    return MachineFile(uri.path)


def target(uri: Uri, _credentials: Credentials, _stop: Stop) -> Folder | Package:
    if is_archive(uri.path):
        from imgtool.endpoints.package import Package

        return Package(os.path.abspath(uri.path))
    if is_machine(uri.path):
        raise UsageError(f"{uri.path}: a machine is written into a folder, or an .ova", "name a folder")
    return Folder(os.path.abspath(uri.path))


class MachineFile:
    """A machine that is described by a file."""

    def __init__(self, path: str) -> None:
        self.machine: LocalMachine = load(path)
        self.roots: tuple[str, ...] = ()
        """Other folders in which its disks may lie (``--disk-root``)."""
        self.reading = SourceOptions()

    def machines(self) -> list[Found]:
        return [Found(name=self.machine.parsed.machine.name, id=self.machine.path, power=Power.OFF)]

    def find(self, name: str) -> Found:
        (only,) = self.machines()
        if name not in (only.name, only.id):
            raise UsageError(f"{self.machine.path} describes {only.name!r}, not {name!r}")
        return only

    def look(self, found: Found, control: Control) -> Seen:
        if not self.reading.ignore_lock:
            refuse_if_running(self.machine)
        disks = tuple(self._state(disk, control.stop) for disk in self.machine.parsed.machine.disks)
        snapshots = tuple(one.name for one in self.machine.parsed.machine.snapshots)
        state = SourceState(running=False, disks=disks, snapshots=snapshots)
        return Seen(found=found, suffix=self.machine.suffix, text=self.machine.text, parsed=self.machine.parsed, state=state)

    def _state(self, disk: DiskSlot, stop: Stop) -> SourceDisk:
        if self.machine.package is not None:
            return SourceDisk(name=disk.path, capacity=disk.capacity or 0, kind="packed")
        path = self._path(disk)
        with open_given(path, self._how(disk), stop) as opened:
            return SourceDisk(name=disk.path, capacity=opened.virtual_size, data=data_limit(opened), kind=opened.top.format,
                              shared=bool(disk.shared), encrypted=opened.top.encrypted)

    def _path(self, disk: DiskSlot) -> str:
        return disk_file(self.machine, disk.path, disk.backing, self.roots)

    def _how(self, disk: DiskSlot) -> SourceOptions:
        """raw is said by the description; what has a header is looked at."""
        raw = disk.format if disk.format == "raw" else None
        return SourceOptions(format=self.reading.format or raw, allow_external=self.reading.allow_external,
                             ignore_lock=self.reading.ignore_lock)

    @contextmanager
    def reader(self, seen: Seen, number: int, control: Control) -> Iterator[InPlace]:
        disk = seen.parsed.machine.disks[number]
        if self.machine.package is None:
            with open_given(self._path(disk), self._how(disk), control.stop) as opened:
                yield InPlace(opened)
            return
        from imgtool.descriptions import ovf

        reference = next((one for one in ovf.files(self.machine.text) if one.href == disk.path), None)
        if reference is None:
            raise DamagedError(f"{self.machine.path} has a disk without a file: {disk.path!r}",
                               "make an empty disk at the target")
        staging = state_folder() / "staging"
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.workspace(str(staging)) as space, open_file(self.machine.package, reference, space, control.stop) as opened:
            yield InPlace(opened)

    def shut_down(self, found: Found, _control: Control) -> None:
        raise AssertionError  # ``look`` has seen no machine that runs

    def close(self) -> None:
        """Nothing is open."""


class Folder:
    """A folder that becomes a machine's: disks and a domain XML beside them."""

    world = World.KVM
    suffix = ".xml"
    formats = ("qcow2", "raw")
    temporary = ""
    """The file has its name when it is there: no other name before."""

    def __init__(self, path: str) -> None:
        self.folder: str = path
        self.finished = False
        """What is in it is what we have put there."""

    def look(self, placing: Placing, _control: Control) -> TargetState:
        """Raises RefusedError where something else is in the folder."""
        if any((placing.storage, placing.pool, placing.folder, placing.host)):
            raise UsageError(f"{self.folder} is a folder: it has no storage, pool or host to choose",
                             "leave --storage, --pool, --folder and --host out")
        parent = self.folder
        while not os.path.isdir(parent):
            if os.path.lexists(parent):
                raise UsageError(f"{parent} is no folder")
            parent = os.path.dirname(parent)
        others = others_in(self.folder) if os.path.isdir(self.folder) and not self.finished else []
        if others:
            raise RefusedError(f"{self.folder} is not empty: {others[0]!r}",
                               "name a new folder: all files of the machine go there")
        return TargetState(kind="folder", storage=self.folder, free=free_space(parent))

    def define(self, name: str, text: bytes, _disks: object) -> str:
        path = self._description(name)
        files.put(_hidden(path), text, replace=True)
        return path

    def _description(self, name: str) -> str:
        return os.path.join(self.folder, f"{files.file_name(name)}{self.suffix}")

    def rename(self, machine: str, name: str) -> None:
        """The description appears last."""
        files.rename(_hidden(machine), machine, replace=True)
        files.sync(self.folder)

    def discard(self, name: str, disks: Sequence[str]) -> tuple[list[str], list[str]]:
        """A description that has its name makes the machine whole: its disks stay."""
        path = self._description(name)
        if os.path.lexists(path):
            return [], []
        hidden = _hidden(path)
        there = os.path.lexists(hidden)
        if there:
            os.unlink(hidden)
        return [hidden] if there else [], [*disks]

    def start(self, machine: str) -> None:
        raise AssertionError  # steps/migrate/look has refused

    def watch(self, machine: str, _control: Control) -> str:
        raise AssertionError  # as start

    def remove(self, machine: str) -> None:
        for path in (machine, _hidden(machine)):
            with suppress(FileNotFoundError):
                os.unlink(path)
        with suppress(OSError):
            os.rmdir(self.folder)

    def close(self) -> None:
        """Nothing is open."""


def _hidden(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".imgtool-{name}")


def others_in(folder: str) -> list[str]:
    """What is in a folder that is not ours. One with a stopped copy was empty when we began."""
    names = sorted(os.listdir(folder))
    return [] if any(PARTIAL in name for name in names) else [name for name in names if not name.startswith(".imgtool-")]
