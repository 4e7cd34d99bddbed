"""Physical disks, as the machine that has them describes them. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Partition:
    name: str
    """``sda1``."""
    start: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """A partition, or a whole disk, that is mounted to be written, or is swap in use."""

    start: int
    size: int
    mount: str | None = None
    """None: swap."""
    device: str = ""
    """``8:1``"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a physical disk is to be read."""

    whole: bool = False
    """Every byte; else only what file systems use."""
    live: bool = False
    """A disk in use: passes over what has changed, the last one while its file systems are frozen."""
    frozen: bool = False
    """A disk in use: one pass, while its file systems are frozen."""
    lvm: bool = False
    """A disk in use: its logical volumes from snapshots, which are made and removed there."""
    freeze_seconds: float = 60.0
    """Then they thaw by themselves."""
    rescue: str | None = None
    """Folder for the maps of bad sectors; None: a bad sector ends the copy."""


USED_BLOCKS = Reading()
"""Of disks at rest."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over a disk in use."""

    name: str
    """first, pass 2, …; frozen: the last one."""
    bytes_read: int
    """Of the disk, to be sent: what was missing, or had changed."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PhysicalDisk:
    """A whole block device: SCSI, SATA, NVMe, MMC, virtio, MD, multipath, a LUN, a loop device."""

    name: str
    """The kernel's: ``sda``, ``nvme0n1``."""
    size: int
    sector: int = 512
    """What the device addresses (logical): 512, or 4096 on 4Kn."""
    physical_sector: int = 512
    model: str | None = None
    serial: str | None = None
    wwid: str | None = None
    ids: tuple[str, ...] = ()
    """Its names under ``/dev/disk/by-id``, best first; of a loop device its file."""
    rotational: bool | None = None
    removable: bool = False
    discards: bool = False
    """It can be told which blocks are not used."""
    zeroes: bool = False
    """It writes zeros by itself; else they are sent to it."""
    read_only: bool = False
    partitions: tuple[Partition, ...] = ()
    used: tuple[str, ...] = ()
    """Why it must not be written: mounted, swap, member of an active RAID or volume group, …"""
    mounted: tuple[tuple[str, str], ...] = ()
    """Where file systems of it are mounted to be written: one place of each, and its device's number, ``8:1``."""
    busy: tuple[str, ...] = ()
    """Why it may change while it is read: mounted to be written, swap, a volume that is active and not just mounted read-only."""
    places: tuple[Mounted, ...] = ()
    """Of the file systems that lie on it, or on a partition of it, in one piece."""

    @property
    def path(self) -> str:
        return f"/dev/{self.name}"

    @property
    def mounts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(place for place, _ in self.mounted))

    @property
    def identity(self) -> str | None:
        """What a person types back before the disk is written: the serial, else the best by-id name."""
        return self.serial or (self.ids[0] if self.ids else self.wwid)


@dataclass(frozen=True, kw_only=True)
class PartitionInfo:
    """Of ``imgtool info``: a partition, or a disk that is not divided."""

    name: str
    start: int
    size: int
    type: str | None = None
    """ext4, xfs, LVM2_member, linux_raid_member, crypto_LUKS, swap, …, in blkid's words."""
    label: str | None = None
    uuid: str | None = None
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Member:
    """Something that stands on a disk, by its magic number."""

    name: str
    offset: int
    member: bool
    """The disk belongs to a RAID, a volume group or a pool."""


@dataclass(frozen=True, kw_only=True)
class DiskHealth:
    """What the disk says of itself (SMART)."""

    passed: bool
    temperature: int | None = None
    """Degrees Celsius."""
    hours: int | None = None
    worn_percent: int | None = None
    bad_sectors: dict[str, int] = field(default_factory=dict)
    """reallocated, pending, uncorrectable → how many."""


@dataclass(frozen=True, kw_only=True)
class DiskInfo:
    """The key ``disk`` of ``imgtool info --json``."""

    path: str
    model: str | None
    serial: str | None
    wwid: str | None
    ids: tuple[str, ...]
    size: int
    sector: int
    physical_sector: int
    rotational: bool | None
    removable: bool
    read_only: bool
    table: str | None
    """gpt, mbr, …"""
    partitions: tuple[PartitionInfo, ...]
    signatures: tuple[Member, ...]
    used: tuple[str, ...]
    """Who has it in use."""
    health: DiskHealth | None
    """None: not readable."""


@dataclass(frozen=True, kw_only=True)
class RawBytes:
    """A disk that QEMU reaches by a URI, as raw bytes."""

    uri: str
    size: int
    sector: int = 512
