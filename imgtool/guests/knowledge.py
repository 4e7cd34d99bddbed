"""Whose knowledge a guest needs: Linux, Windows, or nobody's here."""

from __future__ import annotations

from imgtool.guests import linux, other, windows
from imgtool.guests.appliance import Handle
from imgtool.guests.inside import Inside
from imgtool.guests.volumes import Volumes
from imgtool.model.guest import AdaptRequest, AdaptResult, GuestInfo, OsInfo

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
    return linux.adapt(inside.tree, inside.filesystems, request)


def stranger(handle: Handle, volumes: Volumes) -> GuestInfo:
    """A system that nobody here knows: its file systems, and a warning that it is not adapted."""
    family = other.family(handle, volumes)
    name = "the guest" if family == "unknown" else f"the guest ({family})"
    return GuestInfo(os=OsInfo(family=family), filesystems=volumes.filesystems, warnings=(f"{name} {NOT_ADAPTED}",))
