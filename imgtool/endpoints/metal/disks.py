"""The disks of a machine, from what its /sys and /proc say (``far``'s ``files``). Sources: sysfs-block in the kernel's
Documentation/ABI, proc(5) for mountinfo and swaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from imgtool.errors import RefusedError, UsageError
from imgtool.model.metal import Mounted, Partition, PhysicalDisk

OF_A_DISK = (
    "dev", "size", "ro", "removable", "queue/logical_block_size", "queue/physical_block_size", "queue/rotational",
    "queue/discard_max_bytes", "queue/write_zeroes_max_bytes",
    "device/model", "device/vendor", "device/serial", "device/vpd_pg80", "serial", "wwid", "device/wwid", "loop/backing_file",
    "dm/name", "dm/uuid", "md/level", "holders/*", "*/partition", "*/start", "*/size", "*/dev", "*/holders/*",
)
PATTERNS = (*(f"/sys/block/*/{name}" for name in OF_A_DISK), "/dev/disk/by-*/*", "/dev/mapper/*", "/proc/self/mountinfo",
            "/proc/swaps")
"""What ``disks`` needs to know."""
PART_OF_A_CARD = re.compile(r"^mmcblk\d+(boot\d+|rpmb|gp\d+)$")
"""Hardware partitions of an eMMC that hold no system."""
ACTIVE = " is active ("
EXCLUSIVE = "somebody has it open exclusively: ZFS, btrfs of several disks, a program"
DEACTIVATE = "vgchange -an, mdadm --stop, cryptsetup close, zpool export"
BUSY_HINT = "boot that machine from a rescue medium, mount read-only (mount -o remount,ro), or use --live"
SECTOR = 512
"""/sys counts sizes and starts in these, whatever the device's sectors."""
NO_DISKS = re.compile(r"(ram|zram|sr|fd)\d+$")
BEST_IDS = ("wwn-", "nvme-eui.", "nvme-uuid.")
"""By-id names that say nothing to a person; they come last."""
MAPPED = {"LVM-": "the volume group of", "mpath-": "the multipath device", "CRYPT-": "the opened LUKS device"}
"""Who made a device-mapper device, by the beginning of its uuid."""
Files = Mapping[str, str]


def disks(files: Files) -> tuple[PhysicalDisk, ...]:
    """All whole disks with a size, in the kernel's order of names."""
    names = [path.split("/")[3] for path in files if re.fullmatch(r"/sys/block/[^/]+/size", path)]
    found = (_disk(name, files) for name in sorted(names, key=_natural) if not NO_DISKS.match(name))
    return tuple(disk for disk in found if disk.size)


def fixed(files: Files) -> tuple[PhysicalDisk, ...]:
    """The disks of the machine itself: nothing removable, no loop devices; of a multipath disk its one device.

    Volumes and RAIDs lie on these, and go along with them.
    """
    found = []
    for disk in disks(files):
        virtual = disk.name.startswith(("loop", "nbd", "md", "zd", "drbd", "bcache")) or PART_OF_A_CARD.search(disk.name)
        mapped = disk.name.startswith("dm-") and not (_said(files, disk.name, "dm/uuid") or "").startswith("mpath-")
        behind = any((_said(files, holder, "dm/uuid") or "").startswith("mpath-") for holder in _holders(disk.name, files))
        if not (virtual or mapped or behind or disk.removable) and f"/sys/block/{disk.name}/dev" in files:
            found.append(disk)
    return tuple(found)


def named(files: Files, path: str) -> PhysicalDisk:
    """A whole disk by any of its names; ``files`` has the links. Raises UsageError with those that there are."""
    target = PurePosixPath(files.get(path, path))
    known = disks(files)
    disk = next((disk for disk in known if disk.path == str(target)), None)
    if disk:
        return disk
    above = next((disk for disk in known if any(f"/dev/{part.name}" == str(target) for part in disk.partitions)), None)
    if above:
        raise UsageError(f"{path} is a partition", f"name the whole disk: {above.path}")
    raise UsageError(f"{path} is no disk of that machine", "there are: " + ", ".join(disk.path for disk in fixed(files)))


def mounts(device: str, files: Files) -> tuple[str, ...]:
    """Where a disk or a partition is mounted."""
    number = files.get(_sys(device, files) + "/dev", "").strip()
    return tuple(dict.fromkeys(mount for mount, _ in _mounts(files, number, device)))


def refuse_busy(disk: PhysicalDisk) -> None:
    """Raises RefusedError where it may change while it is read."""
    if disk.busy:
        raise RefusedError(f"{disk.path} is in use: {'; '.join(disk.busy)}", BUSY_HINT)


def not_mounted(disk: PhysicalDisk) -> list[str]:
    """Volumes that are active without a file system of this machine: nobody can say who has them open."""
    return [why for why in disk.busy if ACTIVE in why]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(len(part), part) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _disk(name: str, files: Files) -> PhysicalDisk:
    mounted, used, busy = _uses(name, files)
    partitions = tuple(_partitions(name, files))
    size = _number(files, name, "size") * SECTOR
    return PhysicalDisk(
        name=name, size=size, sector=_number(files, name, "queue/logical_block_size", 512),
        physical_sector=_number(files, name, "queue/physical_block_size", 512), model=_model(files, name),
        serial=_said(files, name, "device/serial") or _said(files, name, "serial") or _page80(files, name),
        wwid=_said(files, name, "wwid") or _said(files, name, "device/wwid"), ids=_ids(name, files),
        rotational=bool(_number(files, name, "queue/rotational")) if _said(files, name, "queue/rotational") else None,
        removable=bool(_number(files, name, "removable")), read_only=bool(_number(files, name, "ro")),
        discards=bool(_number(files, name, "queue/discard_max_bytes")),
        zeroes=bool(_number(files, name, "queue/write_zeroes_max_bytes")),
        partitions=partitions, used=used, mounted=mounted, busy=busy,
        places=tuple(_places([Partition(name=name, start=0, size=size), *partitions], files)))


def _said(files: Files, name: str, key: str) -> str | None:
    text = files.get(f"/sys/block/{name}/{key}", "")
    return "".join(char for char in text if char.isprintable()).strip() or None


def _number(files: Files, name: str, key: str, default: int = 0) -> int:
    text = _said(files, name, key) or ""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else default


def _model(files: Files, name: str) -> str | None:
    words = (_said(files, name, "device/vendor"), _said(files, name, "device/model") or _said(files, name, "dm/name"))
    vendor = None if words[0] in ("ATA", "0x1af4") else words[0]
    return " ".join(word for word in (vendor, words[1]) if word) or None


def _page80(files: Files, name: str) -> str | None:
    """The unit serial number of a SCSI disk (vital product data, page 0x80): four bytes of header, then the text."""
    return (_said(files, name, "device/vpd_pg80") or "").strip() or None


def _ids(name: str, files: Files) -> tuple[str, ...]:
    backing = _said(files, name, "loop/backing_file")
    if backing:
        return (backing,)
    mine = [PurePosixPath(path).name for path, target in files.items()
            if path.startswith("/dev/disk/by-id/") and target == f"/dev/{name}"]
    return tuple(sorted(filter(str.isprintable, mine), key=lambda one: (one.startswith(BEST_IDS), one)))


def _partitions(name: str, files: Files) -> Iterator[Partition]:
    marks = (path.split("/") for path in files if path.startswith(f"/sys/block/{name}/") and path.endswith("/partition"))
    for part in sorted((parts[4] for parts in marks if len(parts) == 6), key=_natural):
        start, size = (_number(files, name, f"{part}/{key}") * SECTOR for key in ("start", "size"))
        yield Partition(name=part, start=start, size=size)


def _uses(name: str, files: Files) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...], tuple[str, ...]]:
    """(where which device is mounted to be written, why it must not be written, why it may change while it is read).

    Through everything that is built upon it. Of an active volume that is not mounted nobody can say who has it open.
    """
    written, why, busy = [], [], []
    for device, over in _upwards(name, files):
        where = f"/dev/{device}" + (f" (on {over})" if over else "")
        number = files.get(_sys(device, files) + "/dev", "").strip()
        mounts = list(_mounts(files, number, device))
        for mount, read_only in mounts:
            why.append(f"{where} is mounted at {mount}")
            if not read_only:
                busy.append(why[-1])
        written += [(mount, number) for mount, read_only in mounts if not read_only][:1]
        if _swaps(device, files):
            why.append(f"{where} is swap in use")
            busy.append(why[-1])
        holders = _holders(device, files)
        why += [f"{where} is part of {_kind(holder, files)}" for holder in holders]
        if over and not (mounts or holders or _swaps(device, files) or _is_part(device, files) or [*_partitions(device, files)]):
            busy.append(f"{where}{ACTIVE}{_kind(device, files)})")
    return tuple(dict.fromkeys(written)), tuple(dict.fromkeys(why)), tuple(dict.fromkeys(busy))


def _swaps(device: str, files: Files) -> bool:
    return any(line.split()[:1] == [f"/dev/{device}"] for line in files.get("/proc/swaps", "").splitlines()[1:])


def _is_part(device: str, files: Files) -> bool:
    return f"{_sys(device, files)}/partition" in files


def _places(parts: Sequence[Partition], files: Files) -> Iterator[Mounted]:
    for part in parts:
        number = files.get(_sys(part.name, files) + "/dev", "").strip()
        mount = next((mount for mount, read_only in _mounts(files, number, part.name) if not read_only), None)
        if mount or _swaps(part.name, files):
            yield Mounted(start=part.start, size=part.size, mount=mount, device=number)


def _sys(device: str, files: Files) -> str:
    if f"/sys/block/{device}/dev" in files:
        return f"/sys/block/{device}"
    return next((path[:-4] for path in files if re.fullmatch(rf"/sys/block/[^/]+/{re.escape(device)}/dev", path)), "/nowhere")


def _upwards(name: str, files: Files) -> Iterator[tuple[str, str | None]]:
    """The disk, its partitions, and the devices that are made of them."""
    waiting: list[tuple[str, str | None]] = [(name, None), *((part.name, None) for part in _partitions(name, files))]
    seen: set[str] = set()
    while waiting:
        device, over = waiting.pop(0)
        if device in seen:
            continue
        seen.add(device)
        yield device, over
        waiting += [(holder, device) for holder in _holders(device, files)]
        if over:
            waiting += [(part.name, over) for part in _partitions(device, files)]


def _holders(device: str, files: Files) -> list[str]:
    prefix = _sys(device, files) + "/holders/"
    return sorted(path[len(prefix):] for path in files if path.startswith(prefix))


def _kind(holder: str, files: Files) -> str:
    uuid = _said(files, holder, "dm/uuid") or ""
    label = _said(files, holder, "dm/name") or holder
    for start, words in MAPPED.items():
        if uuid.startswith(start):
            return f"{words} {label}"
    if _said(files, holder, "md/level"):
        return f"the RAID {holder}"
    return f"/dev/{holder} ({label})"


def _mounts(files: Files, number: str, device: str) -> list[tuple[str, bool]]:
    """(mount point, read-only) of a device by its number; of btrfs, whose numbers are its own, by its name.

    Those of a whole file system come first, those of one of its folders or files behind, and last what a later mount has hidden.
    """
    found: list[tuple[int, str, bool]] = []
    later: set[str] = set()
    for line in reversed(files.get("/proc/self/mountinfo", "").splitlines()):
        before, _, after = line.partition(" - ")
        fields, source = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(source) < 3:
            continue
        point = _unescaped(fields[4])
        if (number and fields[2] == number) or source[1] == f"/dev/{device}":
            read_only = "ro" in fields[5].split(",") and "ro" in source[2].split(",")
            hidden = point in later or any(str(above) in later for above in PurePosixPath(point).parents)
            found.insert(0, (2 if hidden else int(fields[3] != "/"), point, read_only))
        later.add(point)
    return [(mount, read_only) for _, mount, read_only in sorted(found, key=lambda one: one[0])]


def _unescaped(text: str) -> str:
    """proc(5): blanks and the like are three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
