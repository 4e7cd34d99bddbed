"""Who else has an image open.

QEMU takes shared locks on single bytes of the file (its manual, "image locking"; block/file-posix.c): byte 100 + n says
"I use permission n", byte 200 + n "nobody else may have permission n". VMware's hosts put ``.lck`` files or folders beside
the file that they have open.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress

from imgtool.errors import RefusedError
from imgtool.formats.disk import Disk
from imgtool.model import ImageFile

F_OFD_GETLK, F_OFD_SETLK = 36, 37
_FLOCK = struct.Struct("hhqqi")
PERMISSION_WRITE = 101
HELD = (100, 201)
"""What a reader holds that wants nobody to write: "I use consistent reads", "nobody else may write"."""
PERMISSIONS = (100, 204)
"""First byte and the one behind the last."""
REDO = ".imgtool-adapt"
DEVICES = "/var/tmp"  # noqa: S108 - only a folder of our own is believed
_NFS_LOCK = re.compile(r"^\.lck-[0-9a-f]{8,}$")


def refuse_if_used(disk: Disk, *, writing: bool = False, finishing: bool = False) -> None:
    """Raises RefusedError if a machine may run on the disk; ``writing`` if anybody at all has it open through QEMU.

    Also if an ``adapt`` was killed while it wrote it, except for ``finishing`` that.
    """
    if not finishing and os.path.isdir(redo_path(disk.path)):
        raise RefusedError(f"{disk.path} is half written: an adapt was killed while it changed it",
                           "run the same imgtool adapt again: it finishes the change")
    for reason in reasons(disk, writing=writing):
        raise RefusedError(reason, "power the machine off, or let the other imgtool end; if you know that neither runs: "
                                   "--ignore-lock")


def reasons(disk: Disk, *, writing: bool = False) -> Iterator[str]:
    """Why the disk counts as in use, one sentence each."""
    for file in disk.files:
        if qemu_uses(file, writing=writing):
            yield f"{file.path} is in use by a running QEMU, or by another imgtool"
    vmware = (layer.path for layer in disk.layers
              if (layer.format == "vmdk" or _is_flat(layer.path)) and not any(file.base for file in layer.files))
    for directory in dict.fromkeys(os.path.dirname(path) for path in vmware):
        names = {os.path.basename(file.path) for file in disk.files}
        yield from _vmware(directory, names | {re.sub(r"-flat(\.vmdk)$", r"\1", name, flags=re.IGNORECASE) for name in names})


def hold(disk: Disk, *, writing: bool = False) -> None:
    """While the disk is open, QEMU refuses to start a machine that would write to it. Best effort: not each storage has locks.

    ``writing``: nor does it, or another imgtool, begin to read it.
    """
    for file in disk.files:
        hold_file(file, writing=writing)


def hold_file(file: ImageFile, *, writing: bool = False) -> None:
    """``hold`` of one file."""
    for byte in (*HELD, PERMISSION_WRITE) if writing else HELD:
        with suppress(OSError):
            fcntl.fcntl(file.fd, F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))


def release_extents(disk: Disk) -> None:
    """Lets go of the extents that lie beside a descriptor: QEMU opens them itself, with its locks. The descriptor stays held."""
    for file in (file for layer in disk.layers for file in layer.files[1:]):
        for byte in (*HELD, PERMISSION_WRITE):
            with suppress(OSError):
                fcntl.fcntl(file.fd, F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))


def redo_path(path: str) -> str:
    """The folder that is there while ``adapt`` writes its changes into this image and others."""
    real = os.path.realpath(path)
    name = os.path.basename(real) if os.path.isfile(real) else real.strip("/").replace("/", "_")
    return os.path.join(place_of(path), name + REDO)


def place_of(path: str) -> str:
    """The folder that an image lies in; for a disk of this host one that outlives a reboot."""
    real = os.path.realpath(path)
    return os.path.dirname(real) if os.path.isfile(real) else DEVICES


def _is_flat(path: str) -> bool:
    return path.lower().endswith("-flat.vmdk")


def qemu_uses(file: ImageFile, *, writing: bool) -> bool:
    """Whether another process holds QEMU's locks on the file."""
    start, end = PERMISSIONS if writing else (PERMISSION_WRITE, PERMISSION_WRITE + 1)
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
    try:
        kind = _FLOCK.unpack(fcntl.fcntl(file.fd, F_OFD_GETLK, asked))[0]
    except OSError:
        return False
    return bool(kind != fcntl.F_UNLCK)


def _vmware(directory: str, names: set[str]) -> Iterator[str]:
    """Locks of a disk that bear its name, and those of a machine in the same folder."""
    for entry in sorted(os.listdir(directory)):
        stem, suffix = os.path.splitext(entry)
        if suffix.lower() == ".lck" and (stem in names or stem.lower().endswith(".vmx")):
            yield f"{os.path.join(directory, entry)} says that the machine runs"
        elif _NFS_LOCK.match(entry):
            yield f"{os.path.join(directory, entry)} says that a host has a file of this folder open"
