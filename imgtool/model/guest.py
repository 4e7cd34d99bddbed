"""What is inside a disk: the guest, as ``inspect`` finds it, and what it can drive, as ``adapt`` leaves it.

Device names are those of the appliance (``/dev/sda1``), or stable ones (``UUID=…``) where there are any. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from imgtool.model.request import SourceOptions


class Platform(StrEnum):
    """Where a guest shall run: ``adapt --for``."""

    KVM = "kvm"
    ESXI = "esxi"
    METAL = "metal"


@dataclass(frozen=True, kw_only=True)
class OsInfo:
    """The contract's ``os``."""

    family: str = "unknown"
    """linux, windows, freebsd, netbsd, openbsd, …, unknown."""
    distro: str | None = None
    """debian, ubuntu, rhel, centos, rocky, sles, …; ``ID`` of os-release."""
    version: str | None = None
    """12, 8.6, 22.04; Windows: 10.0."""
    arch: str | None = None
    hostname: str | None = None
    name: str | None = None
    """For a person: ``Debian GNU/Linux 12 (bookworm)``."""
    edition: str | None = None
    """Windows: ServerStandard, Professional."""
    build: str | None = None
    """Windows: 17763."""


@dataclass(frozen=True, kw_only=True)
class KernelInfo:
    version: str
    """The folder's name under ``/lib/modules``."""
    path: str
    """In the guest: ``/boot/vmlinuz-…``."""
    initramfs: str | None = None
    modules: str | None = None
    """Folder of its modules."""
    default: bool = False
    """This one boots when nobody chooses."""
    drivers: tuple[str, ...] = ()
    """Storage and network drivers that it has: modules on the disk, and built in."""
    early: tuple[str, ...] = ()
    """Of them, those that are there before the root file system is: in the initramfs, or built in."""


@dataclass(frozen=True, kw_only=True)
class BootLoader:
    kind: str = "unknown"
    """grub2, grub-legacy, systemd-boot, extlinux, lilo, bootmgr, unknown."""
    firmware: str = "bios"
    """bios, uefi, both."""
    config: str | None = None
    entries: tuple[str, ...] = ()
    """What ``/EFI/*/*.efi`` are on the ESP, and titles or BLS ids of the menu."""
    fallback: bool | None = None
    """UEFI: ``\\EFI\\BOOT\\BOOT<ARCH>.EFI`` is there: it boots with empty variables."""


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    device: str
    type: str
    """ext4, xfs, btrfs, vfat, ntfs, swap, LVM2_member, crypto_LUKS, …"""
    uuid: str | None = None
    label: str | None = None
    partuuid: str | None = None
    """Of the partition that it fills."""
    size: int | None = None
    free: int | None = None
    mounted_at: str | None = None
    """In the guest."""
    subvolumes: tuple[str, ...] = ()
    """btrfs: those that the guest mounts."""


@dataclass(frozen=True, kw_only=True)
class DeviceReference:
    """A place in the guest's configuration that names a disk in a way that other hardware changes."""

    path: str
    """File in the guest."""
    what: str
    """fstab, crypttab, kernel command line, resume, swap, device.map, GRUB."""
    name: str
    """``/dev/sda1``."""
    stable: str | None = None
    """What it should say: ``UUID=…``."""


@dataclass(frozen=True, kw_only=True)
class NicConfig:
    """A network card as the guest's configuration knows it."""

    name: str
    """ens192, eth0."""
    system: str
    """Who configures it: ifupdown, netplan, networkd, NetworkManager, ifcfg, wicked, udev."""
    path: str
    mac: str | None = None
    """Where the configuration names it."""
    addresses: tuple[str, ...] = ()
    """Static ones, ``192.0.2.7/24``."""
    dhcp: bool | None = None


@dataclass(frozen=True, kw_only=True)
class GuestInfo:
    """What ``inspect`` says."""

    os: OsInfo = OsInfo()
    firmware: str = "bios"
    kernels: tuple[KernelInfo, ...] = ()
    bootloader: BootLoader = BootLoader()
    filesystems: tuple[FileSystem, ...] = ()
    nics: tuple[NicConfig, ...] = ()
    tools: tuple[str, ...] = ()
    """Agents and tools of hypervisors: open-vm-tools, qemu-guest-agent, VMware Tools."""
    references: tuple[DeviceReference, ...] = ()
    initramfs_tool: str | None = None
    """dracut, initramfs-tools, mkinitcpio, mkinitfs, mkinitrd."""
    selinux: str | None = None
    """enforcing, permissive, disabled."""
    cloud_init: bool = False
    details: dict[str, object] = field(default_factory=dict)
    """Windows: services, drivers, fast_start, clock_is_utc, volume_state; BitLocker's volumes as ``bitlocker``."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change that ``adapt`` made."""

    what: str
    where: str
    """File in the guest, or a registry key."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What the guest, adapted or as it is, can boot from and talk through: ``retarget`` chooses hardware by it."""

    disk_buses: tuple[str, ...] = ()
    """Best first: virtio, virtio-scsi, pvscsi, lsisas1068, lsilogic, sata, nvme, ide. Empty: nobody looked."""
    nic_models: tuple[str, ...] = ()
    """Best first: virtio, vmxnet3, e1000e, e1000, pcnet, rtl8139."""
    machine: str | None = None
    """q35 or i440fx, where the guest is too old for q35."""
    agent: bool = False
    """QEMU's guest agent is installed."""
    rng: bool = False
    balloon: bool = False


@dataclass(frozen=True, kw_only=True)
class AdaptResult:
    """What ``adapt`` says: the contract's JSON."""

    os: OsInfo
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    disk_bus: str | None = None
    nic_model: str | None = None
    capabilities: Capabilities = Capabilities()
    unlisted: tuple[str, ...] = ()
    """Files of the guest that were written, and that no change names: none, unless its own tools ran."""
    seconds: float = 0.0


NOTHING_CHANGED = AdaptResult(os=OsInfo())
"""Of a machine that keeps its hardware."""


@dataclass(frozen=True, kw_only=True)
class InspectRequest:
    """Look into a machine."""

    images: tuple[str, ...]
    """All its disks, in their order."""
    reading: SourceOptions = field(default_factory=SourceOptions)
    key_files: tuple[str, ...] = ()
    """Files with a passphrase each, for encrypted volumes. The passphrases themselves stand in no request."""


@dataclass(frozen=True, kw_only=True)
class AdaptRequest:
    """Change the guest so that it boots, and has its network, on other hardware."""

    images: tuple[str, ...]
    platform: Platform
    reading: SourceOptions = field(default_factory=SourceOptions)
    key_files: tuple[str, ...] = ()
    macs: tuple[tuple[str, str], ...] = ()
    """Old and new address of network cards that get another one: ``00:50:56:…``."""
    nics: tuple[str, ...] = ()
    """Addresses of the target's network cards, in their order, where they are known."""
    rebuild_initramfs: bool = False
    """By the guest's own tool, instead of extending it."""
    drivers: str | None = None
    """Windows: folder or ISO with drivers: virtio-win for KVM, those of VMware Tools for ESXi."""
    packages: str | None = None
    """Folder with packages that the guest installs when it next boots."""
    backup: bool = True
    """Keep each changed file as ``*.imgtool-orig``."""
    dry_run: bool = False
