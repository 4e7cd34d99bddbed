"""What a machine is, whatever describes it: a ``.vmx``, a libvirt domain, an OVF, or a box of metal.

::

    Machine ── Identity           name, uuids
       │    ── GuestOs            which system is installed, in our own words
       │    ── Cpu, Memory        now, at most, topology
       │    ── Firmware, Tpm      BIOS or UEFI
       │
       ├── controllers  Controller(bus, number)
       │       ▲
       │       └── bus, controller, unit
       ├── disks        DiskSlot ──▶ path of an image (converted or not)
       ├── drives       Drive: CD-ROM and floppy
       ├── nics         Nic ──▶ Network
       └── everything else: ports, video, graphics, usb, passthrough, resources, …

``None``, and an empty tuple, mean *not said*: who writes a description then takes what is usual at the target. Sizes are bytes.
Model names are ours, one for each piece of hardware (``pcnet`` is VMware's vlance); ``descriptions`` translate them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from imgtool.model.devices import (
    Controller,
    DiskSlot,
    Drive,
    Graphics,
    Nic,
    Passthrough,
    Port,
    SharedFolder,
    Video,
    Watchdog,
)


class FirmwareKind(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True, kw_only=True)
class GuestOs:
    """Which system a machine is made for; the tables of names are in ``descriptions/guest_os.py``."""

    id: str = "other"
    """Ours: ``debian12``, ``rhel8``, ``windows2019``, ``linux5`` (another Linux, kernel 5.x), ``other``."""
    arch: str = "x86_64"
    """``x86_64``, ``i686``, ``aarch64``, as ``uname -m`` says."""
    release: str | None = None
    """The point release, where it is known: ``8.6``."""
    word: str | None = None
    """What the source called it, where our table does not know that word."""


@dataclass(frozen=True, kw_only=True)
class CpuFeature:
    name: str
    policy: str = "require"
    """force, require, optional, disable, forbid: libvirt's words."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The product of the four is the largest number of virtual CPUs."""

    sockets: int
    cores: int
    """Per die."""
    threads: int = 1
    dies: int = 1


@dataclass(frozen=True, kw_only=True)
class Cpu:
    count: int = 1
    """Virtual CPUs that are switched on."""
    maximum: int | None = None
    """With those that can be plugged in; None: ``count``."""
    topology: Topology | None = None
    mode: str | None = None
    """host-model, host-passthrough, maximum or custom."""
    model: str | None = None
    """QEMU's name (``Westmere``), with ``mode`` custom."""
    features: tuple[CpuFeature, ...] = ()
    hot_add: bool | None = None
    hot_remove: bool | None = None
    nested: bool | None = None
    """The guest may run machines of its own."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    size: int = 0
    """Bytes, at start."""
    current: int | None = None
    """Bytes that the balloon leaves; None: all."""
    maximum: int | None = None
    """Bytes with what can be plugged in; None: ``size``."""
    slots: int | None = None
    """For memory that can be plugged in."""
    hot_add: bool | None = None
    huge_pages: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Firmware:
    kind: FirmwareKind = FirmwareKind.BIOS
    secure_boot: bool | None = None
    nvram: str | None = None
    """The file of variables as the source names it. The formats differ: it is never carried over."""


@dataclass(frozen=True, kw_only=True)
class Tpm:
    version: str | None = None
    """``2.0`` or ``1.2``."""
    model: str | None = None
    """tpm-crb, tpm-tis."""


@dataclass(frozen=True, kw_only=True)
class Timer:
    name: str
    """rtc, pit, hpet, hypervclock, kvmclock, tsc."""
    present: bool | None = None
    policy: str | None = None
    """Of missed ticks: catchup, delay, merge, discard."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    offset: str | None = None
    """utc or localtime."""
    timers: tuple[Timer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The agent inside the guest, seen from outside."""

    agent: bool | None = None
    """A channel for QEMU's guest agent."""
    sync_time: bool | None = None
    upgrade: str | None = None
    """VMware: manual, upgradeAtPowerCycle, useGlobal."""
    scripts: tuple[str, ...] = ()
    """VMware: which of afterPowerOn, afterResume, beforeSuspend, beforePowerOff run in the guest."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the host gives, against other machines."""

    cpu_shares: int | None = None
    """Weight; VMware's normal is 1000 for each virtual CPU."""
    cpu_reservation: int | None = None
    """MHz."""
    cpu_limit: int | None = None
    """MHz."""
    cpu_affinity: tuple[int, ...] = ()
    """Processors of the host."""
    memory_shares: int | None = None
    memory_reservation: int | None = None
    """Bytes."""
    memory_limit: int | None = None
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class MachineSnapshot:
    name: str
    id: str | None = None
    parent: str | None = None
    created: str | None = None
    """RFC 3339, UTC."""
    disks: tuple[str, ...] = ()
    """The files that hold the disks as they were then."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    name: str
    uuid: str | None = None
    """The BIOS uuid, which the guest sees: lower case with dashes, in the byte order of RFC 4122."""
    vc_uuid: str | None = None
    """vCenter's."""
    genid: str | None = None
    """Generation id, as a Windows guest sees it (Microsoft's GUID order), lower case with dashes."""
    description: str | None = None
    guest_os: GuestOs = GuestOs()
    cpu: Cpu = Cpu()
    memory: Memory = field(default_factory=Memory)
    firmware: Firmware = Firmware()
    tpm: Tpm | None = None
    hardware_version: int | None = None
    """VMware's virtual hardware."""
    accelerator: str | None = None
    """kvm, qemu (emulated), xen or vmware: libvirt's ``domain/@type``."""
    chipset: str | None = None
    """q35 or i440fx; ``virt`` on ARM."""
    controllers: tuple[Controller, ...] = ()
    disks: tuple[DiskSlot, ...] = ()
    drives: tuple[Drive, ...] = ()
    nics: tuple[Nic, ...] = ()
    serials: tuple[Port, ...] = ()
    parallels: tuple[Port, ...] = ()
    videos: tuple[Video, ...] = ()
    graphics: tuple[Graphics, ...] = ()
    sounds: tuple[str, ...] = ()
    """ac97, es1371, sb16, hda (ich6, ich9), usb."""
    usb: tuple[str, ...] = ()
    """Controllers: uhci, ehci, xhci."""
    inputs: tuple[str, ...] = ()
    """tablet, mouse, keyboard on USB (what PS/2 gives is not said)."""
    passthrough: tuple[Passthrough, ...] = ()
    shared_folders: tuple[SharedFolder, ...] = ()
    watchdog: Watchdog | None = None
    rng: str | None = None
    """The host's source: ``/dev/urandom``."""
    balloon: str | None = None
    """virtio or none; None: not said."""
    tools: Tools = Tools()
    boot: tuple[str, ...] = ()
    """Kinds of device in the order they are tried: disk, cdrom, network, floppy."""
    boot_menu: bool | None = None
    clock: Clock = Clock()
    resources: Resources = Resources()
    snapshots: tuple[MachineSnapshot, ...] = ()
    template: bool | None = None
