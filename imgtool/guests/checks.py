"""Are the guest's file systems sound? Asked before and after a change, of their own checkers, which only look."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from contextlib import suppress

from imgtool.errors import DamagedError, ImgtoolError
from imgtool.guests.appliance import LONG, Handle, device_node
from imgtool.guests.mounts import Mount

CHECKERS = {"ext2": "e2fsck -fn", "ext3": "e2fsck -fn", "ext4": "e2fsck -fn", "btrfs": "btrfs check --readonly",
            "vfat": "fsck.vfat -n"}
UNMOUNTED = re.compile(
    r"fsck\.fat .*|There are differences between boot sector and its backup\.|This is mostly harmless\. Differences: .*"
    r"|(?:37|65):0[01]/0[01]|Not automatically fixing this\.|Dirty bit is set\. .*|Automatically removing dirty bit\."
    r"|Leaving filesystem unchanged\.|.*: \d+ files, \d+/\d+ clusters|")
"""Lines of fsck.fat(8) where nothing is wrong but that the guest, or who copied it while it ran, did not unmount it."""
NTFS_STATES = {
    14: "Windows sleeps on it (hibernation, or a fast start)",
    15: "it was not shut down cleanly",
    21: "it cannot be opened",
}
"""Exit codes of ntfs-3g.probe(8) that matter."""


def refuse_damaged(handle: Handle, mounts: Sequence[Mount]) -> None:
    """Raises DamagedError. Called with nothing mounted, after journals were replayed: a checker that only looks does not."""
    for device, kind in {mount.device: mount.type for mount in mounts}.items():
        if errors := _errors(handle, device, kind):
            raise DamagedError(f"the file system {kind} on {device} is damaged: {errors}",
                               "start the guest and have it repaired, or repair it with its own checker; nothing was changed")


def require_sound(handle: Handle, mounts: Sequence[Mount]) -> None:
    """After a change. Raises ImgtoolError."""
    for device, kind in {mount.device: mount.type for mount in mounts}.items():
        if errors := _errors(handle, device, kind):
            raise ImgtoolError(f"after the change the file system {kind} on {device} was not sound: {errors}",
                               "nothing was changed in the image; this is a bug of imgtool or of the appliance's kernel")


def _errors(handle: Handle, device: str, kind: str) -> str | None:
    if kind == "xfs":
        with suppress(OSError):
            return "xfs_repair -n finds errors" if handle.call("xfs_repair", device, nomodify=True, seconds=LONG) else None
    if kind not in CHECKERS:
        return None
    code, words = handle.run(f"{CHECKERS[kind]} '{device_node(device)}'")
    if kind == "vfat" and code == 1 and "Dirty bit is set" in words:  # the kernel leaves the bit as it found it
        return next((line for line in map(str.strip, words.splitlines()) if not UNMOUNTED.fullmatch(line)), None)
    return (words.splitlines() or [f"{CHECKERS[kind]} ended with {code}"])[-1] if code else None


def now(handle: Handle) -> str:
    """The appliance's clock, for ``touched``: seconds."""
    return handle.run("date +%s.%N")[1]


def touched(handle: Handle, since: str) -> frozenset[str]:
    """Files and links of the mounted guest that were written since then, by what its own file systems say (st_ctime).

    Not of FAT and NTFS, whose times are another's.
    """
    command = (r"find /sysroot \( -fstype vfat -o -fstype fuseblk -o -fstype ntfs3 \) -prune -o ! -type d "
               rf"-newerct '@{since}' ! -newerct '@{now(handle)}' -print0 | base64 -w0")
    code, said = handle.run(command)
    if code:
        raise ImgtoolError(f"the changed files of the guest cannot be listed: {said[-200:]}", "this is a bug of imgtool")
    found = base64.b64decode(said).split(b"\0")
    return frozenset(os.fsdecode(name.removeprefix(b"/sysroot")) for name in found if name)


def ntfs_state(handle: Handle, device: str) -> str | None:
    """Why an NTFS volume must not be written; None: it may."""
    code = handle.call("ntfs_3g_probe", True, device)
    return NTFS_STATES.get(code, f"ntfs-3g.probe ends with {code}") if code else None
