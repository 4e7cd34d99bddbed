"""A machine into an OVA: its disks are compressed straight into the archive, one after the other; there is no second copy."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from imgtool import codec, files
from imgtool.copying.stream import stream
from imgtool.descriptions import ovf
from imgtool.formats.disk import Disk
from imgtool.formats.locks import hold
from imgtool.formats.measure import data_bytes
from imgtool.formats.vmdk.write import stream_descriptor
from imgtool.model import ConvertResult
from imgtool.model.devices import DiskSlot
from imgtool.model.package import FileReference, Packed
from imgtool.model.translation import MachineRequest
from imgtool.ova.disks import open_file
from imgtool.ova.read import read_ova
from imgtool.ova.write import OvaWriter
from imgtool.progress import Control, together
from imgtool.steps.convert import check, verify_copy
from imgtool.steps.machine import Work, moved, open_disk_of

ROOM_FOR_A_DISK = 256
"""Bytes that sizes, known only after packing, add to the description."""


def write_ova(request: MachineRequest, work: Work, control: Control) -> list[ConvertResult]:
    """Writes the archive, compares each disk in it with its source, and gives it its name."""
    parent, name = os.path.split(request.convert.destination)
    slots = list(work.translation.machine.disks)
    by_name = {slot.path: index for index, slot in enumerate(slots)}
    text = ovf.render(work.translation.machine).text
    results, packed = [], list[Packed]()
    with files.workspace(parent) as space:
        room = len(text) + ROOM_FOR_A_DISK * (len(slots) + 1)
        with (OvaWriter(space, name, stem=os.path.splitext(work.description)[0], room=room, disks=work.names) as ova,
              together(control.progress, lambda one: moved(request, work, one, space, control), len(work.disks)) as progress):
            for number, (disk, disk_name) in enumerate(zip(work.disks, work.names, strict=True)):
                own = replace(control, progress=progress.of(number, disk_name))
                with open_disk_of(work.machine, disk, request, space, own) as opened:
                    result, file, slot = _add(request, opened, disk_name, ova, slots[by_name[disk_name]], own)
                    slots[by_name[disk_name]] = slot
                    packed.append(file)
                    results.append(result)
            machine = replace(work.translation.machine, disks=tuple(slots))
            ova.finish(ovf.sized(ovf.render(machine).text, packed))
        if request.convert.verify:
            _verify(request, work, os.path.join(space, name), space, control)
        control.stop.check()
        files.publish(space, [name], replace=request.convert.force)
    return results


def _add(request: MachineRequest, disk: Disk, name: str, ova: OvaWriter, slot: DiskSlot,
         control: Control) -> tuple[ConvertResult, Packed, DiskSlot]:
    """One disk into the archive; and what the description must say of it."""
    began, spec = time.monotonic(), request.convert.spec
    disk.refuse_encrypted()
    hold(disk)
    check(replace(request.convert, source=disk.path, destination=f"{request.convert.destination}.{name}"), disk)
    counted: list[int] = []
    level = spec.compress_level or codec.DEFAULT_LEVEL
    pieces = stream(disk, stream_descriptor(spec, name, disk.virtual_size), control, level=level, counted=counted)
    file = ova.add(name, pieces)
    result = ConvertResult(
        source=disk.path, destination=f"{request.convert.destination}/{name}", format="vmdk", subformat="streamOptimized",
        allocation="thin", virtual_size=disk.virtual_size, engine="stream", bytes_read=sum(counted), bytes_written=file.size,
        bytes_cloned=0, detected_zeroes=True, seconds=round(time.monotonic() - began, 3), verified=request.convert.verify,
        files=(request.convert.destination,), warnings=disk.warnings)
    return result, file, replace(slot, capacity=disk.virtual_size, populated=data_bytes(disk))


def _verify(request: MachineRequest, work: Work, path: str, space: str, control: Control) -> None:
    """Reads the archive as anybody would. Raises DifferError."""
    package = read_ova(path)
    for disk, name in zip(work.disks, work.names, strict=True):
        with (open_disk_of(work.machine, disk, request, space, control) as source,
              open_file(package, FileReference(href=name), space, control.stop) as copy):
            verify_copy(source, copy, control)
