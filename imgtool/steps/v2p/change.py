"""The guest changed for real hardware, and its last file system grown: on qcow2 overlays over the source, which is only read.

The overlays stay in the job's folder until the disks are written: after a stop the same bytes must go on, and an appliance
does not do the same thing twice byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from imgtool import files
from imgtool.errors import DamagedError, ImgtoolError, RefusedError
from imgtool.formats.disk import Disk
from imgtool.formats.patched import reader
from imgtool.frozen import frozen, thawed
from imgtool.guests import overlay
from imgtool.guests.appliance import LONG, Handle, appliance, letters, require_guestfs
from imgtool.guests.keys import read_keys
from imgtool.model.guest import AdaptRequest, Change, Platform
from imgtool.model.partitions import Entry, TableKind
from imgtool.model.v2p import V2pRequest
from imgtool.partitions import read_table
from imgtool.partitions.fit import fit
from imgtool.progress import Control
from imgtool.steps.adapt import change_guest
from imgtool.steps.v2p.sources import SourceMachine

RECORD = "changed.json"
Grow = Callable[[Handle, str], None]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What became of the disks of a machine."""

    token: str
    """Tells these bytes from those of any other run."""
    sizes: tuple[int, ...]
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()


def needed(request: V2pRequest) -> bool:
    return request.adapt or request.grow


def change(request: V2pRequest, machine: SourceMachine, sizes: Sequence[int], folder: str, keys: Sequence[str],
           control: Control) -> Changed:
    """Makes the overlays, or finds those of a run that was stopped. ``sizes``: of each disk, larger where it shall be grown.

    Raises MissingToolError, LockedError, RefusedError, DamagedError, ImgtoolError.
    """
    about = _about(request, machine, sizes)
    path = os.path.join(folder, RECORD)
    with suppress(FileNotFoundError):
        return _found(path, about)
    require_guestfs()
    for one in machine.disks:
        if not one.disk.qemu_reads():
            raise RefusedError(f"{one.disk.path}: QEMU and imgtool do not read the same in this image",
                               "imgtool convert it first")
    for number in range(len(machine.disks)):
        with suppress(FileNotFoundError):
            os.unlink(overlay_path(folder, number))
    disks = [one.disk for one in machine.disks]
    with (overlay.overlays(disks, folder, stop=control.stop, sizes=sizes) as made,
          appliance(made, stop=control.stop) as handle):
        warnings = [warning for number, disk in enumerate(disks) if sizes[number] > disk.virtual_size
                    for warning in _grow(handle, number, disk, sizes[number])]
        result = change_guest(handle, _adapt(request, machine), (*read_keys(request.key_files), *keys), control.progress) \
            if request.adapt else None
    control.stop.check()
    for one_path in made:
        files.sync(one_path)
    found = Changed(token=os.urandom(8).hex(), sizes=tuple(sizes), changes=result.changes if result else (),
                    warnings=(*warnings, *(result.warnings if result else ())))
    files.put(path, json.dumps({"about": about, "changed": frozen(found)}).encode(), replace=True)
    return found


def _about(request: V2pRequest, machine: SourceMachine, sizes: Sequence[int]) -> str:
    """What the overlays depend on."""
    what = [[dict(one.state) for one in machine.disks], list(sizes), request.adapt, request.macs, request.drivers]
    text = json.dumps(what, default=str, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _found(path: str, about: str) -> Changed:
    try:
        with open(path, "rb") as file:
            said = json.load(file)
        known, changed = said["about"], thawed(Changed, said["changed"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged", "--discard-partial removes it, and the copy begins anew") from error
    if known != about:
        raise RefusedError("the source, the disk or the options have changed since the run that was stopped",
                           "--discard-partial removes what it left, and the copy begins anew")
    return changed


def overlay_path(folder: str, number: int) -> str:
    """Where the overlay of a disk is."""
    return os.path.join(folder, f"{number}.qcow2")


def _adapt(request: V2pRequest, machine: SourceMachine) -> AdaptRequest:
    return AdaptRequest(images=tuple(one.disk.path for one in machine.disks), platform=Platform.METAL, macs=request.macs,
                        drivers=request.drivers, backup=True)


def _grow(handle: Handle, number: int, disk: Disk, size: int) -> Iterator[str]:
    """The last partition and its file system reach to the end of a larger disk; warnings where they do not."""
    read = reader(disk)
    table = read_table(read, disk.virtual_size)
    device = f"/dev/sd{letters(number + 1)[number]}"
    if table.kind is TableKind.NONE:
        inside, entry = device, None
    else:
        entry = table.last
        inside = _node(device, entry) if entry else device
    step = _growing(handle, inside)
    if step is None or (table.kind is not TableKind.NONE and entry is None):
        yield f"{inside} is not extended: {handle.call('vfs_type', inside) or 'nothing known'} cannot grow here"
    fitted = fit(table, read, size, table.sector, grow=step is not None)
    if fitted.patches:
        _write_table(handle, device, [(patch.offset, patch.data) for patch in fitted.patches])
    if step is not None and (fitted.grown or table.kind is TableKind.NONE):
        try:
            step(handle, inside)
        except OSError as error:
            raise ImgtoolError(f"{inside} cannot be extended: {error.strerror}", "leave --grow out") from error


def _node(device: str, entry: Entry) -> str:
    return f"{device}{entry.number}"


def _write_table(handle: Handle, device: str, pieces: Sequence[tuple[int, bytes]]) -> None:
    """Volume groups are let go of first: the kernel reads no table of a disk that is in use."""
    handle.call("vg_activate_all", False)
    for offset, data in pieces:
        handle.call("pwrite_device", device, data, offset)
    handle.call("blockdev_rereadpt", device)
    handle.call("lvm_scan", True)


def _growing(handle: Handle, device: str) -> Grow | None:
    kind = handle.call("vfs_type", device)
    return {"ext2": _grow_ext, "ext3": _grow_ext, "ext4": _grow_ext, "xfs": _grow_xfs, "btrfs": _grow_btrfs,
            "LVM2_member": _grow_volume}.get(kind)


def _grow_ext(handle: Handle, device: str) -> None:
    handle.call("e2fsck", device, correct=True, seconds=LONG)
    handle.call("resize2fs", device, seconds=LONG)


def _grow_xfs(handle: Handle, device: str) -> None:
    handle.call("mount", device, "/")
    handle.call("xfs_growfs", "/", seconds=LONG)
    handle.call("umount_all")


def _grow_btrfs(handle: Handle, device: str) -> None:
    handle.call("mount", device, "/")
    handle.call("btrfs_filesystem_resize", "/", seconds=LONG)
    handle.call("umount_all")


def _grow_volume(handle: Handle, device: str) -> None:
    """The group gets the room; which of its volumes shall have it is for the machine's administrator to say."""
    handle.call("pvresize", device, seconds=LONG)


