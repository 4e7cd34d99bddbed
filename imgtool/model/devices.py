"""The devices of a machine: controllers, disks, drives, network cards, ports, screens. See ``machine``.

``None`` means *not said*. Sizes are bytes. Model names are ours, one for each piece of hardware (``pcnet`` is VMware's vlance);
``descriptions`` translate them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Bus(StrEnum):
    """What a disk or a CD-ROM hangs on."""

    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"
    NVME = "nvme"
    VIRTIO = "virtio"
    USB = "usb"
    FLOPPY = "fdc"
    XEN = "xen"


class Backing(StrEnum):
    """What stands behind a disk, a drive or a port."""

    FILE = "file"
    BLOCK = "block"
    """A device of the host (a disk, a CD-ROM drive, a serial port)."""
    NETWORK = "network"
    """Reached by a URL that the hypervisor opens itself: iSCSI, Ceph, HTTP."""
    VOLUME = "volume"
    """``pool/volume`` of a storage pool."""
    CLIENT = "client"
    """The drive of whoever opens the console."""
    EMPTY = "empty"


class DiskMode(StrEnum):
    """What happens to writes, in VMware's words."""

    PERSISTENT = "persistent"
    INDEPENDENT = "independent-persistent"
    """Left out of snapshots."""
    NONPERSISTENT = "independent-nonpersistent"
    """Writes are forgotten at power-off (libvirt: transient)."""
    UNDOABLE = "undoable"


class NetworkKind(StrEnum):
    """How a network card is connected."""

    BRIDGE = "bridge"
    """A bridge of the host (libvirt), or a port group (VMware)."""
    NETWORK = "network"
    """A virtual network with a name (libvirt)."""
    NAT = "nat"
    """The hypervisor's own address translation (libvirt: user)."""
    HOST_ONLY = "host-only"
    DISTRIBUTED = "distributed"
    """A distributed switch of vCenter."""
    OPAQUE = "opaque"
    """A network that NSX manages."""
    DIRECT = "direct"
    """macvtap on a network card of the host."""
    CUSTOM = "custom"
    """A named virtual switch of VMware Workstation (``vmnet2``), or anything else with a name."""
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Controller:
    bus: Bus
    number: int = 0
    model: str | None = None
    """SCSI: pvscsi, lsilogic, lsisas1068, lsisas1078, buslogic, virtio-scsi, ncr53c90, dc390. SATA: ahci. IDE: piix4."""
    shared: str | None = None
    """Bus sharing, for clusters: virtual or physical."""


@dataclass(frozen=True, kw_only=True)
class DiskSlot:
    """A hard disk, and where it is plugged in."""

    path: str
    """As the description names it: a path, ``[datastore] folder/x.vmdk``, ``pool/volume``, a URL."""
    bus: Bus = Bus.SCSI
    controller: int = 0
    """Number of its controller on that bus; on IDE the channel."""
    unit: int = 0
    backing: Backing = Backing.FILE
    format: str | None = None
    """raw, qcow2, vmdk, …; None: not said."""
    mode: DiskMode | None = None
    cache: str | None = None
    """none, writeback, writethrough, directsync, unsafe."""
    discard: str | None = None
    """unmap or ignore."""
    shared: bool | None = None
    """Several machines may write to it."""
    read_only: bool | None = None
    rdm: str | None = None
    """Raw device mapping: virtual or physical; or a whole physical disk (``device``)."""
    serial: str | None = None
    wwn: str | None = None
    boot_order: int | None = None
    """1 is tried first."""
    io_limit: int | None = None
    """Operations a second, at most."""
    shares: int | None = None
    """Weight against the other disks."""
    change_tracking: bool | None = None
    """VMware's changed block tracking."""
    capacity: int | None = None
    """Size of the virtual disk in bytes, where the description says it (OVF)."""
    populated: int | None = None
    """Bytes in use, where the description says it (OVF)."""


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A CD-ROM or a floppy drive."""

    floppy: bool = False
    bus: Bus = Bus.IDE
    controller: int = 0
    unit: int = 0
    backing: Backing = Backing.EMPTY
    path: str | None = None
    """An image, or a device of the host; None: found by the hypervisor, or nothing in it."""
    passthrough: bool | None = None
    """The guest talks to the host's drive itself (libvirt: lun; VMware: cdrom-raw, scsi-passthru)."""
    connected: bool | None = None
    """At power-on."""
    boot_order: int | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    kind: NetworkKind = NetworkKind.NONE
    name: str | None = None
    """Of the bridge, port group, virtual network or card."""
    port_group: str | None = None
    """Of a distributed switch, or of a libvirt network."""
    switch: str | None = None
    """UUID of a distributed switch."""
    port: str | None = None
    connection: str | None = None
    vlan: int | None = None
    virtual_port: str | None = None
    """What manages the bridge, where it is not the kernel (libvirt): openvswitch, midonet, 802.1Qbg, 802.1Qbh."""
    device: str | None = None
    """The host's end: ``vnet3``, ``/dev/vmnet2``."""


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network card."""

    number: int = 0
    """As the source counts (``ethernet3``): order is by this, gaps are kept."""
    model: str | None = None
    """vmxnet3, vmxnet2, vmxnet, pcnet, e1000, e1000e, virtio, rtl8139, igb, …; None: the hypervisor's choice."""
    mac: str | None = None
    """Lower case, with colons."""
    mac_kind: str | None = None
    """static, generated (by VMware, from the uuid), vpx (by vCenter)."""
    mac_check: bool | None = None
    """VMware: whether a static address must lie in VMware's range."""
    network: Network = Network()
    connected: bool | None = None
    """At power-on; False: the cable is out."""
    wake_on_lan: bool | None = None
    boot_order: int | None = None
    mtu: int | None = None
    limit: int | None = None
    """Bits a second, both ways."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A serial or a parallel port."""

    number: int = 0
    kind: str = "pty"
    """device, file, pipe, tcp, telnet, tls, udp, unix, pty, null, spicevmc, thinprint, proxy (vSPC)."""
    path: str | None = None
    """Device, file or pipe; ``host:port`` for the network."""
    server: bool | None = None
    """We listen; else we connect."""
    connected: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Video:
    model: str | None = None
    """vmvga, vga, qxl, virtio, cirrus, bochs, ramfb, none."""
    memory: int | None = None
    heads: int | None = None
    accelerated: bool | None = None
    """3D."""


@dataclass(frozen=True, kw_only=True)
class Graphics:
    kind: str = "vnc"
    """vnc, spice, rdp, sdl, egl-headless."""
    listen: str | None = None
    port: int | None = None
    """None: found at start."""
    keymap: str | None = None
    password: bool = False
    """There was one. It is never carried."""


@dataclass(frozen=True, kw_only=True)
class Passthrough:
    """A device of the host that belongs to the machine."""

    kind: str
    """pci, usb, mdev, scsi, vgpu."""
    address: str | None = None
    """``0000:03:00.0``, ``046d:c52b``, a UUID."""
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class SharedFolder:
    path: str
    """On the host."""
    tag: str
    """What the guest calls it."""
    read_only: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    model: str = "i6300esb"
    action: str = "reset"
    """reset, shutdown, poweroff, pause, none, dump, inject-nmi."""
