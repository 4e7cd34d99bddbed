"""Discards what the file systems of a disk do not use. A program of its own: ``python trim.py OVERLAY [force_tcg]``.

It runs in a process of its own, so that it can be ended at any moment, and imports nothing of imgtool. The disk is a throw-away
qcow2 overlay; what is discarded becomes zero clusters in it. It prints one JSON object: ``{"filesystems": [{"device", "type",
"trimmed", "why"}]}``. Source: guestfs(3), guestfs-python(3).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

SWAP_PAGE = 4096
SWAP_MAGIC = b"SWAPSPACE2"
MOUNTABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "ntfs")
PARTS_OF_OTHERS = ("LVM2_member", "linux_raid_member")
BTRFS_SUPER = (64 << 10, 4096)
"""Offset and length of the superblock."""
BTRFS_LOG = slice(0x60, 0x68)
"""log_root in it (struct btrfs_super_block, linux/btrfs_tree.h): not 0 after a crash."""
FREE_NAME = "imgtool_free"


def trim(overlay: str, settings: list[str]) -> list[dict[str, object]]:
    """One appliance start, all file systems and the free extents of all volume groups."""
    import guestfs

    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_backend("direct")
    handle.set_backend_settings(settings)
    handle.add_drive_opts(overlay, format="qcow2", discard="enable")
    handle.launch()
    found = [(device, handle.vfs_type(device)) for device in _devices(handle)]
    report = [_trim_one(handle, device, kind or "unknown") for device, kind in found if kind not in PARTS_OF_OTHERS]
    report += [_trim_group(handle, group) for group in handle.vgs()]
    handle.shutdown()
    handle.close()
    return report


def _devices(handle: Any) -> Iterator[str]:
    """Whatever may have a file system. Not by ``list_filesystems``: that mounts btrfs, to be written, for its subvolumes."""
    partitions = handle.list_partitions()
    divided = {handle.part_to_dev(partition) for partition in partitions}
    yield from (device for device in handle.list_devices() if device not in divided)
    for partition in partitions:
        if handle.part_get_mbr_part_type(handle.part_to_dev(partition), handle.part_to_partnum(partition)) != "extended":
            yield partition
    yield from handle.list_md_devices()
    yield from handle.lvs()


def _trim_one(handle: Any, device: str, kind: str) -> dict[str, object]:
    try:
        if kind == "swap":
            _trim_swap(handle, device)
        elif kind in MOUNTABLE:
            _trim_mounted(handle, device, kind)
        else:
            return {"device": device, "type": kind, "trimmed": False, "why": f"{kind} is copied whole"}
    except RuntimeError as error:
        return {"device": device, "type": kind, "trimmed": False, "why": str(error)}
    return {"device": device, "type": kind, "trimmed": True, "why": None}


def _trim_mounted(handle: Any, device: str, kind: str) -> None:
    """btrfs only reads: each of its commits moves the trees, and what the source's superblock names would count as free."""
    before = handle.pread_device(device, BTRFS_SUPER[1], BTRFS_SUPER[0]) if kind == "btrfs" else b""
    if any(before[BTRFS_LOG]):
        raise RuntimeError("its log is to be replayed first: shut the guest down")
    handle.mount_options("ro,subvolid=5" if kind == "btrfs" else "", device, "/")
    try:
        handle.fstrim("/")
    finally:
        handle.umount_all()
    if before and handle.pread_device(device, BTRFS_SUPER[1], BTRFS_SUPER[0]) != before:
        raise OSError(f"{device}: btrfs has moved its trees")


def _trim_swap(handle: Any, device: str) -> None:
    """Keeps the first page, with label and UUID. A hibernated system has another magic number, and is left alone."""
    page = handle.pread_device(device, SWAP_PAGE, 0)
    if bytes(page[-len(SWAP_MAGIC):]) != SWAP_MAGIC:
        raise RuntimeError("a system sleeps in it, or its pages are not of 4096 bytes")
    handle.blkdiscard(device)
    handle.pwrite_device(device, page, 0)


def _trim_group(handle: Any, group: str) -> dict[str, object]:
    try:
        handle.lvcreate_free(FREE_NAME, group, 100)
        handle.blkdiscard(f"/dev/{group}/{FREE_NAME}")
    except RuntimeError as error:
        return {"device": group, "type": "LVM free extents", "trimmed": False, "why": str(error)}
    return {"device": group, "type": "LVM free extents", "trimmed": True, "why": None}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"filesystems": trim(sys.argv[1], sys.argv[2:])}))
