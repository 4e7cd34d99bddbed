"""The disks of a machine, from what the user named: images, or a description that names them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from imgtool.descriptions import DESCRIPTIONS, description
from imgtool.errors import ImgtoolError, RefusedError, UsageError

MAX_DESCRIPTION = 16 << 20
"""Bytes."""


def machine_disks(named: Sequence[str], roots: Sequence[str] = ()) -> tuple[str, ...]:
    """Paths of images. What a description names must lie below its folder, or below one of ``roots``.

    Raises UsageError, DamagedError, RefusedError.
    """
    suffix = os.path.splitext(named[0])[1].lower()
    if suffix not in DESCRIPTIONS:
        return tuple(named)
    if len(named) > 1:
        raise UsageError(f"{named[0]} describes a machine: name it alone, or name its disks")
    try:
        with open(named[0], "rb") as file:
            text = file.read(MAX_DESCRIPTION)
    except OSError as error:
        raise ImgtoolError(f"cannot read {named[0]}: {error.strerror}") from error
    machine = description(suffix).parse(text).machine
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
