"""The disks and the network cards of a machine, from what the user named: images, or a description that names them."""

from __future__ import annotations

from collections.abc import Sequence

from imgtool.endpoints.local import disk_file, load
from imgtool.errors import UsageError
from imgtool.suffixes import MACHINES, is_archive, is_machine


def machine_disks(named: Sequence[str], roots: Sequence[str] = ()) -> tuple[str, ...]:
    """Paths of images. What a description names must lie below its folder, or below one of ``roots``.

    Raises UsageError, DamagedError, RefusedError.
    """
    if not is_machine(named[0]):
        return tuple(named)
    if len(named) > 1:
        raise UsageError(f"{named[0]} describes a machine: name it alone, or name its disks")
    machine = load(named[0])
    if is_archive(machine.path):
        raise UsageError(f"the disks of {machine.path} are packed in it", f"imgtool convert {machine.path} DIR --to qcow2")
    paths = tuple(disk_file(machine, disk.path, disk.backing, tuple(roots)) for disk in machine.parsed.machine.disks if disk.path)
    if not paths:
        raise UsageError(f"{named[0]} names no disk that is a file")
    return paths


def machine_nics(path: str) -> tuple[str, ...]:
    """MAC addresses of the network cards of a machine, in its order, by its description.

    None at all if one of them has no address yet: then nobody can say which card is which. Raises UsageError, DamagedError.
    """
    if not is_machine(path):
        raise UsageError(f"{path} is no description of a machine", f"one of {', '.join(MACHINES)}")
    nics = sorted(load(path).parsed.machine.nics, key=lambda nic: nic.number)
    macs = tuple(nic.mac for nic in nics if nic.mac)
    return macs if len(macs) == len(nics) else ()
