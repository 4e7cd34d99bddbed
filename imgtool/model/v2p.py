"""A virtual machine's disks written to physical ones: what is asked for, what would be done, what was done. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from imgtool.model.endpoint import Credentials
from imgtool.model.guest import Change
from imgtool.model.metal import PhysicalDisk
from imgtool.model.problem import Problem
from imgtool.model.request import SourceOptions


@dataclass(frozen=True, kw_only=True)
class DiskChoice:
    """``--disk SOURCE=DEVICE``."""

    source: str
    """Of the machine's disks: ``vda``, ``scsi0:1``, a number from 0 on, its file's name; empty: the only one."""
    device: str
    """``/dev/disk/by-id/…``, on the machine that has the physical disk."""


@dataclass(frozen=True, kw_only=True)
class V2pRequest:
    """Disks of a virtual machine, or an image, written to physical disks."""

    name: str
    """Of the machine, or a path: an image, a description."""
    source: str | None = None
    """Where the machine is: a URI, or the path of its description."""
    target: str | None = None
    """``metal+ssh://user@host``; None: this machine."""
    disks: tuple[DiskChoice, ...]
    confirmed: tuple[str, ...] = ()
    """Serials or by-id names that somebody has typed."""
    reading: SourceOptions = field(default_factory=SourceOptions)
    disk_roots: tuple[str, ...] = ()
    credentials: Credentials = field(default_factory=Credentials)
    adapt: bool = True
    macs: tuple[tuple[str, str], ...] = ()
    key_files: tuple[str, ...] = ()
    drivers: str | None = None
    grow: bool = False
    """The last partition and its file system are extended to the end of the disk."""
    wipe: bool = False
    """All of the disk is zeroed where nothing is written, and signatures of RAID, LVM and ZFS are written over."""
    boot_entry: bool = False
    """The firmware of the machine that has the disks gets an entry (UEFI)."""
    verify: bool = True


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What would be written where, and what is there now."""

    source: str
    """The disk, by the name that was used for it."""
    image: str
    image_size: int
    device: str
    disk: PhysicalDisk
    contents: tuple[str, ...] = ()
    """What is on the disk now: table, partitions, file systems, members of something."""
    confirm: str
    """What is to be typed."""
    confirmed: bool = False
    notes: tuple[str, ...] = ()
    """How it is made to fit."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class V2pPlan:
    machine: str
    host: str
    """The machine that has the disks."""
    disks: tuple[Planned, ...]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WrittenDisk:
    """What ``v2p`` says of one disk."""

    source: str
    device: str
    serial: str | None
    size: int
    bytes_written: int
    """In this run."""
    bytes_zeroed: int
    bytes_resumed: int
    """That were there from a run that was stopped."""
    notes: tuple[str, ...] = ()
    verified: bool = True


@dataclass(frozen=True, kw_only=True)
class V2pResult:
    machine: str
    disks: tuple[WrittenDisk, ...]
    changes: tuple[Change, ...] = ()
    """What ``adapt`` has changed on the way."""
    boot_entry: str | None = None
    """What the firmware starts first now (``--boot-entry``)."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
