"""What lies on the disks of a machine: partitions, RAID, LVM, LUKS, and the file systems on them. Encrypted ones are opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imgtool.guests.appliance import LONG, Handle
from imgtool.model.guest import FileSystem

LUKS = "crypto_LUKS"
CONTAINERS = (LUKS, "LVM2_member", "linux_raid_member", "BitLocker", "zfs_member")
"""What holds other things, or what nobody here can open."""
EXTENDED = ("0x5", "0xf", "0x85")
"""Types of MBR partitions that hold others."""
MAX_OPENED = 64
SECTOR = 512


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """All that may have a file system, by the appliance's names of devices."""

    filesystems: tuple[FileSystem, ...]
    names: dict[str, str]
    """What a guest may call a device (``UUID=…``, ``/dev/disk/by-uuid/…``, ``/dev/mapper/…``) → the appliance's name."""
    locked: tuple[str, ...] = ()
    """Encrypted, and no key fits."""
    disks: tuple[str, ...] = ()


def devices(handle: Handle) -> Iterator[str]:
    """Whatever may have a file system. Not by ``list_filesystems``: that mounts btrfs, to be written, for its subvolumes."""
    partitions = handle.call("list_partitions")
    divided = {handle.call("part_to_dev", partition) for partition in partitions}
    yield from (device for device in handle.call("list_devices") if device not in divided)
    yield from (partition for partition in partitions if tags(handle, partition).get("PART_ENTRY_TYPE") not in EXTENDED)
    yield from handle.call("list_md_devices")
    yield from handle.call("lvs")


def tags(handle: Handle, device: str) -> dict[str, str]:
    """What blkid(8) says of a device; names and labels as they are. Nothing for what it does not know."""
    try:
        found = handle.call("blkid", device)
    except OSError:
        return {}
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in found.items()}


def examine(handle: Handle, keys: Sequence[str] = ()) -> Volumes:
    """Opens what is encrypted with the first of the passphrases that fits, then looks at everything."""
    opened, locked = _unlock(handle, keys)
    found: list[FileSystem] = []
    names: dict[str, str] = {}
    for device in dict.fromkeys([*devices(handle), *opened.values()]):
        known = tags(handle, device)
        found.append(_file_system(handle, device, known))
        names |= dict.fromkeys(_names(known), device)
    for source, device in opened.items():
        uuid = handle.call("vfs_uuid", source)
        names |= {f"/dev/mapper/luks-{uuid}": device, f"LUKS:UUID={uuid}": device, f"LUKS:{source}": device}
    for volume in handle.call("lvs"):
        _, _, group, name = volume.split("/")
        names[f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"] = volume
    for array in handle.call("list_md_devices"):
        names |= dict.fromkeys(array_names(handle.call("md_detail", array)), array)
    return Volumes(filesystems=tuple(found), names=names, locked=tuple(locked), disks=tuple(handle.call("list_devices")))


def _unlock(handle: Handle, keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Encrypted device → the opened one, and those that stay locked. An opened one may hold LVM, and that another one."""
    opened: dict[str, str] = {}
    locked: list[str] = []
    for _ in range(MAX_OPENED):
        waiting = [device for device in devices(handle) if device not in opened and device not in locked
                   and handle.call("vfs_type", device) == LUKS]
        if not waiting:
            break
        name = f"imgtool{len(opened)}"
        if any(_opens(handle, waiting[0], key, name) for key in keys):
            opened[waiting[0]] = f"/dev/mapper/{name}"
            handle.call("lvm_scan", True)
        else:
            locked.append(waiting[0])
    return opened, locked


def _opens(handle: Handle, device: str, key: str, name: str) -> bool:
    try:
        handle.call("cryptsetup_open", device, key, name, seconds=LONG)
    except OSError:
        return False
    return True


def _file_system(handle: Handle, device: str, known: dict[str, str]) -> FileSystem:
    sectors = known.get("PART_ENTRY_SIZE")
    size = int(sectors) * SECTOR if sectors else int(handle.call("blockdev_getsize64", device))
    return FileSystem(device=device, type=known.get("TYPE") or "unknown", uuid=known.get("UUID") or None,
                      label=known.get("LABEL") or None, partuuid=known.get("PART_ENTRY_UUID") or None, size=size)


def _names(known: dict[str, str]) -> Iterator[str]:
    for tag, key, folder in (("UUID", "UUID", "by-uuid"), ("LABEL", "LABEL", "by-label"),
                             ("PARTUUID", "PART_ENTRY_UUID", "by-partuuid"), ("PARTLABEL", "PART_ENTRY_NAME", "by-partlabel")):
        if value := known.get(key):
            yield from (f"{tag}={value}", f"/dev/disk/{folder}/{value}")


def array_names(detail: dict[str, str]) -> Iterator[str]:
    """What a guest calls an MD array, by what mdadm --detail --export says of it: the appliance numbers them anew.

    ``/dev/md0`` and ``/dev/md/0`` are an array that was created as the first (mdadm.conf(5): name=HOST:0).
    """
    if name := detail.get("name"):
        own = name.rpartition(":")[2]
        yield from (f"/dev/md/{own}", f"/dev/disk/by-id/md-name-{name}", *([f"/dev/md{own}"] if own.isdecimal() else []))
    if uuid := detail.get("uuid"):
        yield f"/dev/disk/by-id/md-uuid-{uuid}"


def usable(volumes: Volumes) -> list[FileSystem]:
    """What can be mounted, or could be by another system."""
    return [one for one in volumes.filesystems if one.type not in (*CONTAINERS, "swap", "unknown")]
