"""Whose knowledge a guest needs: Linux, Windows, or nobody's here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from imgtool.errors import ImgtoolError
from imgtool.guests import linux, other, windows
from imgtool.guests.appliance import LONG, Handle
from imgtool.guests.inside import Inside
from imgtool.guests.volumes import Volumes
from imgtool.model.guest import AdaptRequest, AdaptResult, Change, GuestInfo, OsInfo
from imgtool.progress import Progress

NOT_ADAPTED = "is left as it is: imgtool adapts Linux and Windows"


def describe(inside: Inside) -> GuestInfo:
    """What the mounted guest is. Raises DamagedError."""
    if inside.root.family == "windows":
        return windows.inspect(inside.handle, inside.tree, inside.filesystems)
    return linux.inspect(inside.tree, inside.filesystems)


def change(inside: Inside, request: AdaptRequest, progress: Progress) -> AdaptResult:
    """Adapts the guest, which is mounted to be written. Raises DamagedError, RefusedError, ImgtoolError."""
    if inside.root.family == "windows":
        return windows.adapt(inside.handle, inside.tree, inside.filesystems, request)
    result = linux.adapt(inside.tree, inside.filesystems, request)
    if not (request.rebuild_initramfs and result.changes):
        return result
    ran = tuple(_rebuilt(inside, request, progress))
    after = linux.adapt(inside.tree, inside.filesystems, replace(request, rebuild_initramfs=False))  # what the tool left out
    return replace(after, changes=(*result.changes, *ran, *after.changes),
                   warnings=tuple(dict.fromkeys((*result.warnings, *after.warnings))))


def _rebuilt(inside: Inside, request: AdaptRequest, progress: Progress) -> Iterator[Change]:
    """Runs the guest's own tool: in the appliance, with the guest's root as its root. Raises ImgtoolError."""
    with linux.commands(inside.tree, request.platform) as commands:
        for argv in commands:
            line = shlex.join(argv)
            try:
                with progress.bar(0, f"the guest's own tool: {line}"):
                    inside.handle.call("command", list(argv), seconds=LONG)
            except OSError as error:
                raise ImgtoolError(f"the guest's own tool failed: {line}: {error.strerror}",
                                   "leave --rebuild-initramfs out: then its initramfs is extended") from error
            yield Change(what=f"ran {line}", where="initramfs", why="the guest's own tool makes it anew")


def stranger(handle: Handle, volumes: Volumes) -> GuestInfo:
    """A system that nobody here knows: its file systems, and a warning that it is not adapted."""
    bitlocker = [one.device for one in volumes.filesystems if one.type == "BitLocker"]
    if bitlocker:
        return GuestInfo(os=OsInfo(family="windows", distro="windows"), filesystems=volumes.filesystems,
                         details={"bitlocker": bitlocker})
    family = other.family(handle, volumes)
    name = "the guest" if family == "unknown" else f"the guest ({family})"
    return GuestInfo(os=OsInfo(family=family), filesystems=volumes.filesystems, warnings=(f"{name} {NOT_ADAPTED}",))
