"""Physical disks, as the machine that has them describes them. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Partition:
    name: str
    """``sda1``."""
    start: int
    size: int


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
    read_only: bool = False
    partitions: tuple[Partition, ...] = ()
    used: tuple[str, ...] = ()
    """Why it must not be written: mounted, swap, member of an active RAID or volume group, …"""
    mounts: tuple[str, ...] = ()
    """Where file systems of it are mounted to be written."""

    @property
    def path(self) -> str:
        return f"/dev/{self.name}"

    @property
    def identity(self) -> str | None:
        """What a person types back before the disk is written: the serial, else the best by-id name."""
        return self.serial or (self.ids[0] if self.ids else self.wwid)
