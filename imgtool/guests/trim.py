"""Discards what the file systems of a disk do not use, in the appliance.

The disk is a throw-away qcow2 overlay; what is discarded becomes zero clusters in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imgtool.errors import ImgtoolError
from imgtool.guests.appliance import LONG, Handle, device_node
from imgtool.guests.checks import ntfs_state
from imgtool.guests.volumes import devices

SWAP_PAGE = 4096
SWAP_MAGIC = b"SWAPSPACE2"
MOUNTABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "ntfs")
PARTS_OF_OTHERS = ("LVM2_member", "linux_raid_member")
BTRFS_SUPER = (64 << 10, 4096)
"""Offset and length of the superblock."""
BTRFS_LOG = slice(0x60, 0x68)
"""log_root in it (struct btrfs_super_block, linux/btrfs_tree.h): not 0 after a crash."""
FREE_NAME = "imgtool_free"
TO_REPLAY = "its log is to be replayed first: shut the guest down"
OPEN_FILES = "files in it were deleted while they were open: shut the guest down"


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """What became of one file system, or of the free extents of a volume group."""

    device: str
    type: str
    why: str | None = None
    """It was left alone."""


def trim(handle: Handle) -> Iterator[Trimmed]:
    """All file systems, and the free extents of all volume groups. Raises ImgtoolError."""
    found = [(device, handle.call("vfs_type", device)) for device in devices(handle)]
    yield from (_trim_one(handle, device, kind or "unknown") for device, kind in found if kind not in PARTS_OF_OTHERS)
    yield from (_trim_group(handle, group) for group in handle.call("vgs"))


def _trim_one(handle: Handle, device: str, kind: str) -> Trimmed:
    try:
        if kind == "swap":
            _trim_swap(handle, device)
        elif kind in MOUNTABLE:
            _trim_mounted(handle, device, kind)
        else:
            return Trimmed(device=device, type=kind, why=f"{kind} is copied whole")
    except OSError as error:
        return Trimmed(device=device, type=kind, why=error.strerror)
    return Trimmed(device=device, type=kind)


def _trim_mounted(handle: Handle, device: str, kind: str) -> None:
    """btrfs only reads: each of its commits moves the trees, and what the source's superblock names would count as free."""
    if why := _restless(handle, device, kind):
        raise OSError(0, why)
    before = _btrfs_super(handle, device) if kind == "btrfs" else b""
    handle.call("mount_options", "ro,subvolid=5" if kind == "btrfs" else "", device, "/")
    try:
        handle.call("fstrim", "/", seconds=LONG)
    finally:
        handle.call("umount_all")
    if before and _btrfs_super(handle, device) != before:
        raise ImgtoolError(f"{device}: btrfs has moved its trees")


def _restless(handle: Handle, device: str, kind: str) -> str | None:
    """Why mounting would free more than what is free in the source, which would then read zeros when it is mounted itself.

    Such are the blocks that list the pieces of a file that was deleted while it was open, and trees of XFS that its recovery
    makes smaller. What Windows has noted in its log only is in use, but not yet by what its volume says.
    """
    if kind == "ntfs":
        return ntfs_state(handle, device)
    if kind == "btrfs":
        return TO_REPLAY if any(_btrfs_super(handle, device)[BTRFS_LOG]) else None
    if kind == "xfs":
        said = handle.run(f"xfs_logprint -t '{device_node(device)}' | grep -a -m1 state:")[1]
        return None if "<CLEAN>" in said else TO_REPLAY
    return _restless_ext(handle, device) if kind.startswith("ext") else None


def _restless_ext(handle: Handle, device: str) -> str | None:
    """The journal alone is replayed, by debugfs(8): what is free then is free in the source, too, once it has done the same."""
    known = handle.call("tune2fs_l", device)
    features = known.get("Filesystem features", "").split()
    if "needs_recovery" in features and "fast_commit" not in features:  # which debugfs does not know
        handle.run(f"debugfs -w -R journal_run '{device_node(device)}'")
        known = handle.call("tune2fs_l", device)
        features = known.get("Filesystem features", "").split()
    if "needs_recovery" in features:
        return TO_REPLAY
    return OPEN_FILES if "First orphan inode" in known or "orphan_present" in features else None


def _btrfs_super(handle: Handle, device: str) -> bytes:
    return bytes(handle.call("pread_device", device, BTRFS_SUPER[1], BTRFS_SUPER[0]))


def _trim_swap(handle: Handle, device: str) -> None:
    """Keeps the first page, with label and UUID. A hibernated system has another magic number, and is left alone."""
    page = handle.call("pread_device", device, SWAP_PAGE, 0)
    if bytes(page[-len(SWAP_MAGIC):]) != SWAP_MAGIC:
        raise OSError(0, "a system sleeps in it, or its pages are not of 4096 bytes")
    handle.call("blkdiscard", device, seconds=LONG)
    handle.call("pwrite_device", device, page, 0)


def _trim_group(handle: Handle, group: str) -> Trimmed:
    try:
        handle.call("lvcreate_free", FREE_NAME, group, 100)
        handle.call("blkdiscard", f"/dev/{group}/{FREE_NAME}", seconds=LONG)
    except OSError as error:
        return Trimmed(device=group, type="LVM free extents", why=error.strerror)
    return Trimmed(device=group, type="LVM free extents")
