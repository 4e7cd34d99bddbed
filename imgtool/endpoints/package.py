"""A new OVA: the disks are compressed straight into the archive, which gets its name when each was compared in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from imgtool import codec, files
from imgtool.copying.compare import compare
from imgtool.copying.stream import stream
from imgtool.descriptions import ovf
from imgtool.errors import DifferError, RefusedError, UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.measure import data_bytes
from imgtool.formats.vmdk.write import stream_descriptor
from imgtool.model import Allocation, ImageSpec
from imgtool.model.devices import DiskSlot
from imgtool.model.endpoint import NewDisk, Placing
from imgtool.model.machine import Machine
from imgtool.model.package import FileReference
from imgtool.model.situation import TargetState
from imgtool.model.translation import World
from imgtool.ova.disks import open_file
from imgtool.ova.read import read_ova
from imgtool.ova.write import OvaWriter
from imgtool.progress import Control, Named
from imgtool.storage import free_space

STREAM = ImageSpec(format="vmdk", subformat="streamOptimized")
ROOM_FOR_A_DISK = 256
"""Bytes that sizes, known only after packing, add to the description."""


class Package:
    """Implements ``endpoints.FarTarget``: what cannot be written in place is staged."""

    world = World.ESXI
    suffix = ".ovf"
    formats: tuple[str, ...] = ("vmdk",)
    temporary = ""
    sets_uuid = False
    folder: str | None = None

    def __init__(self, path: str) -> None:
        self._path = path
        self._space = ""
        self._stack = ExitStack()

    def look(self, placing: Placing, _control: Control) -> TargetState:
        """Raises UsageError, RefusedError where the file is there."""
        parent = os.path.dirname(self._path)
        if any((placing.storage, placing.pool, placing.folder, placing.host)):
            raise UsageError(f"{self._path} is an OVA: it has no storage, pool or host to choose",
                             "leave --storage, --pool, --folder and --host out")
        if not os.path.isdir(parent):
            raise UsageError(f"the directory {parent} does not exist")
        if os.path.lexists(self._path):
            raise RefusedError(f"{self._path} exists", "name a new file")
        return TargetState(kind="folder", storage=self._path, free=free_space(parent), can_resume=False)

    def send(self, name: str, made: Machine, text: bytes, disks: Sequence[tuple[NewDisk, Disk]], state: str,
             control: Control) -> str:
        """Writes the archive aside; what fails leaves nothing. Raises NoSpaceError, UsageError (thick)."""
        if any(new.allocation != Allocation.THIN for new, _ in disks):
            raise UsageError("the disks in an OVA are compressed, so they are thin", "leave --thick or --eager out")
        self._space = self._stack.enter_context(files.workspace(os.path.dirname(self._path)))
        slots = tuple(_described(slot, new, disk) for slot, (new, disk) in zip(made.disks, disks, strict=True))
        text = ovf.render(replace(made, disks=slots)).text
        room = len(text) + ROOM_FOR_A_DISK * (len(disks) + 1)
        packed = []
        with OvaWriter(self._space, os.path.basename(self._path), stem=files.file_name(name), room=room,
                       disks=[new.name for new, _ in disks]) as ova:
            for new, disk in disks:
                own = replace(control, progress=Named(control.progress, new.name))
                packed.append(ova.add(new.name, stream(disk, stream_descriptor(STREAM, new.name, disk.virtual_size), own,
                                                       level=codec.DEFAULT_LEVEL, counted=[])))
            ova.finish(ovf.sized(text, packed))
        return self._path

    def compare(self, machine: str, disks: Sequence[tuple[NewDisk, Disk]], control: Control) -> None:
        """Reads the archive as anybody would. Raises DifferError."""
        package = read_ova(self._aside)
        for new, disk in disks:
            with open_file(package, FileReference(href=new.name), self._space, control.stop) as copy:
                if (found := compare(disk, copy, control).first_difference) is not None:
                    raise DifferError(f"{new.name} in {machine} differs from what was packed at byte {found}")

    @property
    def _aside(self) -> str:
        return os.path.join(self._space, os.path.basename(self._path))

    def rename(self, machine: str, name: str) -> None:
        """The archive gets its name. Raises RefusedError where another has come meanwhile."""
        files.publish(self._space, [os.path.basename(machine)], replace=False)

    def discard(self, disks: Sequence[NewDisk], state: str) -> None:
        """A stopped run leaves nothing that the next one would go on with."""

    def start(self, machine: str) -> None:
        raise AssertionError  # steps/migrate/look has refused

    def watch(self, machine: str, _control: Control) -> str:
        raise AssertionError  # as start

    def remove(self, machine: str) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()


def _described(slot: DiskSlot, new: NewDisk, disk: Disk) -> DiskSlot:
    return replace(slot, path=new.name, format="vmdk", capacity=disk.virtual_size, populated=data_bytes(disk))
