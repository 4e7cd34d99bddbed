"""The guest's file systems put together as the guest itself does it: by its root's fstab."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from imgtool.errors import DamagedError, RefusedError
from imgtool.guests.appliance import LONG, Handle
from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.linux.devices import place, unstable
from imgtool.guests.volumes import Volumes, usable

LINUX_FILES = ("/etc/os-release", "/usr/lib/os-release", "/etc/fstab", "/etc/redhat-release", "/etc/SuSE-release",
               "/etc/debian_version", "/etc/alpine-release", "/etc/arch-release")
WINDOWS_SYSTEM = "/Windows/System32/config"
MOUNTABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "ntfs", "f2fs", "reiserfs", "jfs")
NEEDED = ("/boot", "/boot/efi", "/efi", "/usr", "/etc", "/var", "/lib")
"""Mount points without which nothing can be said, or changed."""
ON_DISK = re.compile(r"/dev/|(?:PART)?(?:UUID|LABEL)=")
OPTIONAL = {"nofail", "noauto"}
MAX_FSTAB = 1 << 20
MAX_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class Root:
    """A file system with an operating system on it."""

    device: str
    type: str
    family: str
    """linux, windows."""
    options: str = ""
    """Of mount: a btrfs subvolume."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    device: str
    point: str
    type: str
    options: str = ""


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """What is mounted now, outermost first."""

    mounts: tuple[Mount, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def points(self) -> Mapping[str, str]:
        """Device → mount point."""
        return {mount.device: mount.point for mount in reversed(self.mounts)}


def roots(handle: Handle, volumes: Volumes) -> list[Root]:
    """Every operating system on the disks. Each candidate is mounted read-only and looked at."""
    found = []
    for one in usable(volumes):
        if one.type in MOUNTABLE and one.type != "vfat":
            found += [root for options in _choices(handle, one.device, one.type)
                      if (root := _root(handle, one.device, one.type, options))]
    return found


def _choices(handle: Handle, device: str, kind: str) -> list[str]:
    """Mount options to try: the subvolumes of btrfs, the default one first."""
    if kind != "btrfs":
        return [""]
    if not _mount(handle, Mount(device=device, point="/", type=kind, options="ro")):
        return []
    try:
        listed = [str(one["btrfssubvolume_path"]) for one in handle.call("btrfs_subvolume_list", "/")]
    except OSError:
        listed = []
    finally:
        handle.call("umount_all")
    snapshots = re.compile(r"(^|/)(\.snapshots|@?snapshots?|timeshift[^/]*)(/|$)", re.IGNORECASE)
    return ["", *(f"subvol={name}" for name in listed if "," not in name and not snapshots.search(name))]


def _root(handle: Handle, device: str, kind: str, options: str) -> Root | None:
    if not _mount(handle, Mount(device=device, point="/", type=kind, options=",".join(filter(None, ["ro", options])))):
        return None
    try:
        with GuestTree(handle) as tree:
            if kind == "ntfs":
                family = "windows" if tree.is_dir(tree.folded(WINDOWS_SYSTEM) or "/none") else None
            else:
                family = "linux" if tree.is_dir("/etc") and any(tree.lexists(path) for path in LINUX_FILES) else None
    finally:
        handle.call("umount_all")
    return Root(device=device, type=kind, family=family, options=options) if family else None


def choose(handle: Handle, found: list[Root], volumes: Volumes) -> Root:
    """Of several roots the one whose fstab names it as ``/``; else the first."""
    for root in found if len(found) > 1 else []:
        if root.family == "linux" and _names_itself(handle, root, volumes):
            return root
    return found[0]


def _names_itself(handle: Handle, root: Root, volumes: Volumes) -> bool:
    options = ",".join(filter(None, ["ro", root.options]))
    if not _mount(handle, Mount(device=root.device, point="/", type=root.type, options=options)):
        return False
    try:
        with GuestTree(handle) as tree:
            fstab = tree.text("/etc/fstab", limit=MAX_FSTAB)
            names = volumes.names | _crypttab(tree.text("/etc/crypttab", limit=MAX_FSTAB), volumes)
    finally:
        handle.call("umount_all")
    return any(point == "/" and resolve(source, names, volumes) == root.device for source, point, _ in _lines(fstab))


def mount_all(handle: Handle, root: Root, volumes: Volumes, *, write: bool) -> Mounted:
    """The root, and what its fstab names. For writing ``/boot`` and the like have to be there, too.

    Raises DamagedError where one of them cannot be mounted, RefusedError where it is not on the disks.
    """
    mode = "" if write else "ro"
    top = Mount(device=root.device, point="/", type=root.type, options=",".join(filter(None, [mode, root.options])))
    if not _mount(handle, top):
        how = " for writing" if write else ""
        raise DamagedError(f"the root file system on {root.device} ({root.type}) cannot be mounted{how}",
                           "start the guest once and shut it down, or repair it with its own checker")
    done, warnings = [top], []
    planned, absent = _planned(handle, volumes) if root.family == "linux" else ([], {})
    for point, source in absent.items():
        why = f"{source}, the guest's {point}, is not on the disks that were given"
        if write:
            raise RefusedError(why, "give all disks of the machine, in their order, and the keys of what is encrypted; "
                                    "or name it by its UUID in the guest's /etc/fstab")
        warnings.append(why)
    for mount in planned:
        mount = Mount(device=mount.device, point=mount.point, type=mount.type,  # noqa: PLW2901
                      options=",".join(filter(None, [mode, mount.options])))
        if _mount(handle, mount):
            done.append(mount)
        elif write and mount.point in NEEDED:
            raise DamagedError(f"{mount.device}, the guest's {mount.point}, cannot be mounted",
                               "start the guest once and shut it down")
        else:
            warnings.append(f"{mount.device}, the guest's {mount.point}, cannot be mounted ({mount.type})")
    return Mounted(mounts=tuple(done), warnings=tuple(warnings))


def _mount(handle: Handle, mount: Mount) -> bool:
    try:
        if mount.point != "/" and handle.call("realpath", mount.point) != mount.point:
            return False
        if mount.type == "ntfs":
            handle.call("mount_vfs", mount.options, "ntfs-3g", mount.device, mount.point, seconds=LONG)
        else:
            handle.call("mount_options", mount.options, mount.device, mount.point, seconds=LONG)
    except OSError:
        return False
    return True


def _planned(handle: Handle, volumes: Volumes) -> tuple[list[Mount], dict[str, str]]:
    """What the mounted root's fstab names, beside the root itself: parents before what is in them.

    And mount point → source of what is needed and is nowhere, unless the guest itself starts without.
    """
    kinds = {one.device: one.type for one in volumes.filesystems}
    with GuestTree(handle) as tree:
        fstab = tree.text("/etc/fstab", limit=MAX_FSTAB)
        names = volumes.names | _crypttab(tree.text("/etc/crypttab", limit=MAX_FSTAB), volumes)
    planned, absent = {}, {}
    for source, point, options in _lines(fstab):
        device = resolve(source, names, volumes)
        if device is None and point.rstrip("/") in NEEDED and ON_DISK.match(source) and not OPTIONAL & set(options.split(",")):
            absent[point.rstrip("/")] = source
        if device and kinds.get(device) in MOUNTABLE and point.startswith("/") and point != "/":
            chosen = [word for word in options.split(",") if word.startswith(("subvol=", "subvolid="))]
            planned[point.rstrip("/")] = Mount(device=device, point=point.rstrip("/"), type=kinds[device],
                                               options=",".join(chosen))
    return sorted(planned.values(), key=lambda mount: mount.point.count("/")), absent


def _lines(fstab: str) -> Iterator[tuple[str, str, str]]:
    """Source, mount point and options (fstab(5)); blanks in names stand there as octal numbers."""
    for line in fstab.splitlines()[:MAX_LINES]:
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            source, point = (re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word) for word in words[:2])
            yield source, point, words[3] if len(words) > 3 else ""


def _crypttab(crypttab: str, volumes: Volumes) -> dict[str, str]:
    """``/dev/mapper/NAME`` of crypttab(5) → the opened device."""
    found = {}
    for line in crypttab.splitlines()[:MAX_LINES]:
        words = line.split()
        if len(words) >= 2 and not words[0].startswith("#"):
            source = resolve(words[1], volumes.names, volumes) or words[1]
            device = volumes.names.get(f"LUKS:{source}") or volumes.names.get(f"LUKS:{words[1]}")
            if device:
                found[f"/dev/mapper/{words[0]}"] = device
    return found


def resolve(name: str, names: Mapping[str, str], volumes: Volumes) -> str | None:
    """The appliance's name of what the guest calls so: a tag, a link, or a kernel's name on the hardware that it was born on."""
    tag, equals, value = name.partition("=")
    name = f"{tag}={value.strip(chr(34))}" if equals else name
    if name in names:
        return names[name]
    if tag in ("UUID", "PARTUUID"):  # by hand they are written in any case
        return next((device for known, device in names.items() if known.lower() == name.lower()), None)
    known = {one.device for one in volumes.filesystems}
    candidate, matched = name, unstable(name)
    if matched:
        number, part = place(matched, len(volumes.disks))
        candidate = f"{volumes.disks[number]}{part}" if number is not None and number < len(volumes.disks) else name
    return candidate if candidate in known else None
