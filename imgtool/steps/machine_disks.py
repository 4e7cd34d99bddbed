"""The disks and the network cards of a machine, from what the user named: images, or a description that names them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from imgtool.descriptions import DESCRIPTIONS, description
from imgtool.errors import ImgtoolError, RefusedError, UsageError
from imgtool.model.machine import Machine

MAX_DESCRIPTION = 16 << 20
"""Bytes."""


def machine_disks(named: Sequence[str], roots: Sequence[str] = ()) -> tuple[str, ...]:
    """Paths of images. What a description names must lie below its folder, or below one of ``roots``.

    Raises UsageError, DamagedError, RefusedError.
    """
    if not describes(named[0]):
        return tuple(named)
    if len(named) > 1:
        raise UsageError(f"{named[0]} describes a machine: name it alone, or name its disks")
    machine = _machine(named[0])
    folder = os.path.dirname(os.path.realpath(named[0]))
    paths = [os.path.join(folder, disk.path) for disk in machine.disks if disk.path]
    allowed = [folder, *map(os.path.realpath, roots)]
    for path in paths:
        if not any(os.path.commonpath([os.path.realpath(path), root]) == root for root in allowed):
            raise RefusedError(f"{named[0]} names {path!r}, which leads outside its directory",
                               "--disk-root DIR, if you trust it")
    if not paths:
        raise UsageError(f"{named[0]} names no disk that is a file")
    return tuple(paths)


def describes(path: str) -> bool:
    """The name is one of a machine's description."""
    return os.path.splitext(path)[1].lower() in DESCRIPTIONS


def machine_nics(path: str) -> tuple[str, ...]:
    """MAC addresses of the network cards of a machine, in its order, by its description.

    None at all if one of them has no address yet: then nobody can say which card is which. Raises UsageError, DamagedError.
    """
    if not describes(path):
        raise UsageError(f"{path} is no description of a machine", f"one of {', '.join(DESCRIPTIONS)}")
    nics = sorted(_machine(path).nics, key=lambda nic: nic.number)
    macs = tuple(nic.mac for nic in nics if nic.mac)
    return macs if len(macs) == len(nics) else ()


def _machine(path: str) -> Machine:
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_DESCRIPTION)
    except OSError as error:
        raise ImgtoolError(f"cannot read {path}: {error.strerror}") from error
    return description(os.path.splitext(path)[1].lower()).parse(text).machine
