"""Physical disks that shall be written, and everything that speaks against it. The wrong disk cannot happen.

Nothing here can be overruled by an option, but that ``--wipe`` writes over what a RAID, a volume group or a pool has left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.metal.contents import Contents, contents
from imgtool.endpoints.metal.disks import PATTERNS, disks
from imgtool.errors import ImgtoolError, RefusedError, UnreachableError, UsageError
from imgtool.model.metal import PhysicalDisk
from imgtool.model.problem import Problem

WATCHERS = ("systemd-udevd", "(udev-worker)", "udevd")
"""They open each disk for a moment whenever it was written to."""
LOOKS, BETWEEN = 3, 0.3
"""Who has it open at each of these looks, so many seconds apart, uses it; others (blkid, losetup) look which disks there are."""
BY_CONTENT = ("lvm-pv-uuid-",)
"""Names under ``/dev/disk/by-id`` that udev makes of what is on a disk: gone when it is written over."""


@dataclass(frozen=True, kw_only=True)
class TargetDisk:
    device: str
    """As it was named."""
    disk: PhysicalDisk
    contents: Contents
    refused: tuple[str, ...]
    """Why it must not be written, whatever was said."""


def look(wire: Wire, device: str) -> TargetDisk:
    """Raises UsageError (no such device), RefusedError (no whole disk), UnreachableError."""
    disk = _find(wire, device)
    refused = list(dict.fromkeys([*disk.used, *_in_the_way(wire, disk)]))
    try:
        with closing(FarFile(wire, disk.path, exclusive=True)) as file:
            return TargetDisk(device=device, disk=disk, contents=contents(file.read, disk), refused=tuple(refused))
    except UnreachableError:
        raise
    except ImgtoolError as error:
        if not refused and not isinstance(error, RefusedError):
            raise
        why = f"{disk.path} is in use: somebody has it open exclusively (a RAID, a pool, a program)"
        return TargetDisk(device=device, disk=disk, contents=Contents(lines=(), members=()), refused=tuple(refused or [why]))


def _find(wire: Wire, device: str) -> PhysicalDisk:
    try:
        found, _ = wire.call("device", path=device)
    except UnreachableError:
        raise
    except ImgtoolError as error:
        raise UsageError(f"{device}: {error.message}", "ls -l /dev/disk/by-id shows the disks that there are") from None
    if not found["block"]:
        raise RefusedError(f"{device} is no block device", "imgtool convert writes files")
    files, _ = wire.call("files", patterns=[*PATTERNS])
    known = disks(files["files"])
    for disk in known:
        if disk.name == found["name"]:
            return disk
        if any(part.name == found["name"] for part in disk.partitions):
            raise RefusedError(f"{device} is a partition of {disk.path}", "name the whole disk")
    raise RefusedError(f"{device} is no disk that can be written, or has no medium in it")


def _in_the_way(wire: Wire, disk: PhysicalDisk) -> Iterator[str]:
    if disk.read_only:
        yield f"{disk.path} is read-only"
    for pid, name in sorted(_openers(wire, disk).items()):
        yield f"{disk.path} is open in process {pid} ({name})"


def _openers(wire: Wire, disk: PhysicalDisk) -> dict[str, str]:
    """Process ids and names."""
    using: dict[str, str] = {}
    for number in range(LOOKS):
        time.sleep(BETWEEN if number else 0)
        opened, _ = wire.call("openers", path=disk.path, partitions=[f"/dev/{part.name}" for part in disk.partitions])
        using = {pid: name for pid, name in opened["openers"].items()
                 if name not in WATCHERS and (not number or pid in using)}
        if not using:
            break
    return using


def confirmation(disk: PhysicalDisk) -> str:
    """What somebody has to type: the serial, else the best by-id name, else name and size, which no other disk shares."""
    return disk.serial or next(iter([*_names(disk), *([disk.wwid] if disk.wwid else [])]), f"{disk.name}-{disk.size}")


def identity(disk: PhysicalDisk) -> list[object]:
    """What tells a disk from all others, whatever is on it."""
    return [disk.serial, disk.wwid, _names(disk), disk.size, disk.sector]


def _names(disk: PhysicalDisk) -> list[str]:
    return [name for name in disk.ids if not name.startswith(BY_CONTENT)]


def is_confirmed(target: TargetDisk, typed: tuple[str, ...]) -> bool:
    """By its serial, its WWN or one of its names under ``/dev/disk/by-id``."""
    disk = target.disk
    names = {disk.serial, disk.wwid, *_names(disk)} - {None} or {confirmation(disk)}
    return any(word.strip().removeprefix("/dev/disk/by-id/") in names for word in typed)


def require_confirmed(target: TargetDisk, typed: tuple[str, ...]) -> None:
    """Raises RefusedError, with what is to be typed."""
    if not is_confirmed(target, typed):
        there = "; ".join(target.contents.lines) or "nothing that is known"
        raise RefusedError(f"{target.device} would be written over ({target.disk.model or 'unknown model'}, "
                           f"{target.disk.size} bytes; on it: {there})", f"--yes-write-to {confirmation(target.disk)}")


def problems(target: TargetDisk, *, wipe: bool) -> Iterator[Problem]:
    """All that speaks against writing it, but for its size."""
    for why in target.refused:
        yield Problem(what=why, fatal=True, hint="stop what uses it (umount, vgchange -an, mdadm --stop), or take another disk: "
                                                 "no option overrides this")
    for member in target.contents.members:
        yield Problem(what=f"{target.disk.path} carries the metadata of something larger: {member}",
                      hint="--wipe, if that is no longer needed", fatal=not wipe)


def require(found: tuple[Problem, ...]) -> None:
    """Raises RefusedError for the first that is fatal."""
    for problem in found:
        if problem.fatal:
            raise RefusedError(problem.what, problem.hint)


def hold(wire: Wire, planned: TargetDisk, *, wipe: bool) -> FarFile:
    """The disk, open for us alone from now on, and found to be what was planned with. Raises RefusedError."""
    file = FarFile(wire, planned.disk.path, write=True)
    try:
        _look_again(wire, file, planned, wipe=wipe)
    except BaseException:
        file.close()
        raise
    return file


def _look_again(wire: Wire, file: FarFile, planned: TargetDisk, *, wipe: bool) -> None:
    disk = _find(wire, planned.device)
    if (disk.name, identity(disk)) != (planned.disk.name, identity(planned.disk)) or file.size != disk.size:
        raise RefusedError(f"{planned.device} is no longer the disk that it was a moment ago",
                           "look at it again: nothing was written")
    refused = (*disk.used, *_in_the_way(wire, disk))
    again = TargetDisk(device=planned.device, disk=disk, contents=contents(file.read, disk), refused=refused)
    require(tuple(problems(again, wipe=wipe)))


