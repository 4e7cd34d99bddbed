"""Whose knowledge a guest needs: Linux, Windows, or nobody's here."""

from __future__ import annotations

from dataclasses import replace

from imgtool.guests import linux, other, windows
from imgtool.guests.appliance import LONG, Handle
from imgtool.guests.inside import Inside
from imgtool.guests.volumes import Volumes
from imgtool.model.guest import AdaptRequest, AdaptResult, Change, GuestInfo, OsInfo

NOT_ADAPTED = "is left as it is: imgtool adapts Linux and Windows"


def describe(inside: Inside) -> GuestInfo:
    """What the mounted guest is. Raises DamagedError."""
    if inside.root.family == "windows":
        return windows.inspect(inside.handle, inside.tree, inside.filesystems)
    return linux.inspect(inside.tree, inside.filesystems)


def change(inside: Inside, request: AdaptRequest) -> AdaptResult:
    """Adapts the guest, which is mounted to be written. Raises DamagedError, RefusedError, ImgtoolError."""
    if inside.root.family == "windows":
        return windows.adapt(inside.handle, inside.tree, inside.filesystems, request)
    result = linux.adapt(inside.tree, inside.filesystems, request)
    return _rebuilt(inside, request, result) if request.rebuild_initramfs else result


def _rebuilt(inside: Inside, request: AdaptRequest, before: AdaptResult) -> AdaptResult:
    """The guest's own tool makes each initramfs anew; what it leaves out is added to it."""
    ran = []
    for argv in linux.commands(inside.tree, request.platform):
        inside.handle.call("command", list(argv), seconds=LONG)
        ran.append(Change(what="initramfs made anew", where=" ".join(argv), why="--rebuild-initramfs"))
    after = linux.adapt(inside.tree, inside.filesystems, replace(request, rebuild_initramfs=False))
    return replace(after, changes=(*before.changes, *ran, *after.changes),
                   warnings=tuple(dict.fromkeys((*before.warnings, *after.warnings))))


def stranger(handle: Handle, volumes: Volumes) -> GuestInfo:
    """A system that nobody here knows: its file systems, and a warning that it is not adapted."""
    family = other.family(handle, volumes)
    name = "the guest" if family == "unknown" else f"the guest ({family})"
    return GuestInfo(os=OsInfo(family=family), filesystems=volumes.filesystems, warnings=(f"{name} {NOT_ADAPTED}",))
