"""``<disk>`` and ``<controller>``: hard disks, CD-ROM and floppy drives, and what they hang on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from imgtool.descriptions.domain_xml.document import Node
from imgtool.descriptions.domain_xml.words import (
    BUSES,
    BY_TARGET,
    CHANNELS,
    FORMATS,
    PREFIXES,
    SCSI,
    UNITS,
    USB,
    VMWARE,
    WIDE,
    device_index,
)
from imgtool.model.devices import Backing, Bus, Controller, DiskMode, DiskSlot, Drive

SOURCES = {"file": ("source/@file", Backing.FILE), "block": ("source/@dev", Backing.BLOCK)}
UNKNOWN = {"dir": "a directory that QEMU shows as a FAT disk", "nvme": "an NVMe device of the host",
           "vhostuser": "a disk behind a socket", "vhostvdpa": "a device of the host (vDPA)"}
"""Types of disk that no image stands behind."""
CONTROLLERS = {"scsi": Bus.SCSI, "sata": Bus.SATA, "ide": Bus.IDE, "nvme": Bus.NVME}
MAX_UNIT = 1 << 16


class Slot(NamedTuple):
    bus: Bus
    controller: int
    unit: int


@dataclass(frozen=True, kw_only=True)
class Host:
    """What of the rest of the domain tells how its disks are meant."""

    hypervisor: str
    ovirt: bool
    models: dict[int, str | None]
    """Models of the SCSI controllers."""


def controllers(devices: Node) -> tuple[tuple[Controller, ...], tuple[str, ...]]:
    """Those of disks, and of USB. Those of the host's PCI buses and of channels mean nothing elsewhere."""
    disks: list[Controller] = []
    usb: list[str] = []
    for node in devices.children("controller"):
        kind = node.get("@type") or ""
        if kind in CONTROLLERS:
            disks.append(_controller(node.of(f"controllers[{len(disks)}]"), CONTROLLERS[kind]))
        elif kind == "usb":
            model = node.element.get("model", "piix3-uhci")
            if ours := USB.get(model, model):
                node.get("@model" if "model" in node.element.attrib else "@type", f"usb[{len(usb)}]")
                usb.append(ours)
            node.skip()
        else:
            node.skip()
            if kind == "ccid":
                node.problem("a reader of smart cards: not carried over", "the guest loses its smart card")
    return tuple(disks), tuple(usb)


def _controller(node: Node, bus: Bus) -> Controller:
    model = node.get("@model", "model")
    if model == "auto":
        model = None
    number = node.number("@index", "number", high=MAX_UNIT) or 0
    return Controller(bus=bus, number=number, model=SCSI.get(model, model) if model else None)


def disks(devices: Node, host: Host) -> tuple[tuple[DiskSlot, ...], tuple[Drive, ...]]:
    """Hard disks, and drives for CD-ROMs and floppies, each in the order of the document."""
    slots: list[DiskSlot] = []
    drives: list[Drive] = []
    usb = 0
    for node in devices.children("disk"):
        slot = _slot(node, host, usb)
        if slot is None:
            node.skip()
            continue
        usb += slot.bus is Bus.USB
        if _is_drive(node, host):
            drives.append(_drive(node.of(f"drives[{len(drives)}]"), slot, host))
        elif disk := _disk(node.of(f"disks[{len(slots)}]"), slot, host):
            slots.append(disk)
        else:
            node.skip()
    return tuple(slots), tuple(drives)


def _is_drive(node: Node, host: Host) -> bool:
    """A ``lun`` of libvirt's ESX driver is the host's CD-ROM drive; elsewhere it is a disk of a storage network."""
    kind = node.get("@device") or "disk"
    return kind in ("cdrom", "floppy") or (kind == "lun" and host.hypervisor == VMWARE)


def _slot(node: Node, host: Host, usb: int) -> Slot | None:
    """Where it is plugged in; None (and a problem) on a bus that we do not know."""
    name = node.get("target/@dev") or ""
    word = node.get("target/@bus")
    bus = BUSES.get(word) if word else next((bus for prefix, bus in PREFIXES.items() if name.startswith(prefix)), None)
    if bus is None:
        node.problem(f"{name or 'a disk'} on bus {word}, which is unknown here: not carried over",
                     "move it to another bus: virtio, scsi, sata", fatal=True)
        return None
    if bus is Bus.XEN and name[-1:].isdigit():
        node.problem(f"{name}: the image is a partition, not a disk", "give it a partition table and a boot loader", fatal=True)
    address = node.child("address")
    if address and bus in (Bus.SCSI, Bus.SATA, Bus.IDE, Bus.FLOPPY, Bus.NVME):
        return _addressed(address, bus, host)
    return Slot(bus, 0, usb) if bus is Bus.USB else _named(name, bus, host)


def _addressed(address: Node, bus: Bus, host: Host) -> Slot:
    controller, channel, target, unit = (address.number(f"@{part}", high=MAX_UNIT) or 0
                                         for part in ("controller", "bus", "target", "unit"))
    if bus is Bus.IDE:
        return Slot(bus, controller * CHANNELS + channel, unit)
    if bus is not Bus.SCSI:
        return Slot(bus, controller, unit)
    number, other = (target, unit) if host.models.get(controller) in BY_TARGET and not unit else (unit, target)
    if other or channel:
        address.problem(f"bus {channel}, target {target} and unit {unit}: only one of them is kept, {number}")
    return Slot(bus, controller, number)


def _named(name: str, bus: Bus, host: Host) -> Slot:
    """As libvirt computes an address where there is none."""
    index = device_index(name)
    if bus is Bus.SCSI and host.hypervisor == VMWARE:
        unit = index % WIDE
        return Slot(bus, index // WIDE, unit + (unit >= UNITS[bus]))
    if bus in UNITS:
        return Slot(bus, *divmod(index, UNITS[bus]))
    if bus is Bus.IDE:
        return Slot(bus, *divmod(index, 2))
    return Slot(bus, 0, index)


def _backing(node: Node) -> tuple[Backing, str | None] | None:
    """What stands behind it, and its path; None (and a problem) for what no image stands behind."""
    kind = node.get("@type") or "file"
    if kind in SOURCES:
        path, backing = SOURCES[kind]
        found = node.get(path, "path")
        return (backing, found) if found else (Backing.EMPTY, None)
    if kind == "volume":
        pool, volume = node.get("source/@pool", "path"), node.get("source/@volume", "path")
        return (Backing.VOLUME, f"{pool}/{volume}") if pool and volume else (Backing.EMPTY, None)
    if kind == "network":
        return Backing.NETWORK, _url(node)
    name = node.get("target/@dev")
    node.problem(f"{name} is {UNKNOWN.get(kind, f'of type {kind}')}: not carried over",
                 "copy its content into an image, if the machine needs it", fatal=kind != "dir")
    if source := node.child("source"):
        source.skip()
    return None


def _url(node: Node) -> str:
    """``rbd://host:port/pool/image``, with the first of several hosts."""
    source = node.child("source")
    if source is None:
        return ""
    protocol, name = source.get("@protocol", "path") or "", source.get("@name", "path") or ""
    hosts = source.children("host")
    place = ""
    if hosts:
        host, port = hosts[0].get("@name", "path") or "", hosts[0].get("@port", "path")
        place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    if len(hosts) > 1:
        source.problem(f"{len(hosts)} hosts: only the first is kept", "give the others at the target")
        for other in hosts:
            other.skip()
    return f"{protocol}://{place}/{name}"


def _encrypted(node: Node) -> None:
    for inner in ("encryption", "source/encryption"):
        found = node.element.find(inner)
        if found is not None:
            node.problem(f"the disk is encrypted ({found.get('format')})", "decrypt it first: `qemu-img convert` with its secret",
                         fatal=True)
            for part in inner.split("/"):
                node = node.child(part) or node
            node.skip()
            return


def _sliced(node: Node) -> None:
    if node.element.find("source/slices") is not None:
        node.problem("the disk is a part of its file (source/slices), and whole files are read here",
                     "copy that part into an image of its own: `dd`", fatal=True)


def _disk(node: Node, slot: Slot, host: Host) -> DiskSlot | None:
    behind = _backing(node)
    _encrypted(node)
    _sliced(node)
    if behind is None:
        return None
    backing, path = behind
    if path is None:
        node.problem("a hard disk without a source: not carried over")
        return None
    _say_bus(node)
    kind, lun = node.get("driver/@type", "format") or "", node.get("@device") == "lun"
    if not kind and backing is Backing.FILE and host.hypervisor != VMWARE:
        node.problem("the format of the image is not said: libvirt takes it for raw", "see `imgtool info`, and say it")
    return DiskSlot(
        path=path, bus=slot.bus, controller=slot.controller, unit=slot.unit, backing=backing,
        format=FORMATS.get(kind, kind) or None, mode=_mode(node, host),
        cache=_said(node.get("driver/@cache", "cache")), discard=node.get("driver/@discard", "discard"),
        shared=node.has("shareable", "shared"), read_only=node.has("readonly", "read_only"),
        rdm="physical" if lun and node.get("@device", "rdm") else None,
        serial=node.get("serial", "serial"), wwn=node.get("wwn", "wwn"),
        boot_order=node.number("boot/@order", "boot_order", low=1, high=MAX_UNIT),
        io_limit=node.number("iotune/total_iops_sec", "io_limit") or None)


def _say_bus(node: Node) -> None:
    """Where the bus is not given, the name says it; the name also says which disk of the bus it is."""
    node.get("target/@dev", "unit")
    if node.get("target/@bus", "bus") is None:
        node.get("target/@dev", "bus")


def _said(value: str | None) -> str | None:
    return None if value == "default" else value


def _mode(node: Node, host: Host) -> DiskMode | None:
    """oVirt gives ``snapshot='no'`` to every disk, since it makes the snapshots itself: there it says nothing."""
    if node.has("transient", "mode"):
        return DiskMode.NONPERSISTENT
    outside = not host.ovirt and node.element.get("snapshot") == "no"
    return DiskMode.INDEPENDENT if outside and node.get("@snapshot", "mode") else None


def _drive(node: Node, slot: Slot, host: Host) -> Drive:
    floppy = node.get("@device", "floppy" if node.element.get("device") == "floppy" else None) == "floppy"
    backing, path = _backing(node) or (Backing.EMPTY, None)
    _encrypted(node)
    node.has("readonly")
    node.get("driver/@type")
    node.get("driver/@cache")
    _say_bus(node)
    passthrough = node.get("@device", "passthrough") == "lun" if host.hypervisor == VMWARE else False
    if host.hypervisor == VMWARE and backing is Backing.EMPTY and node.get("@type") == "block":
        backing = Backing.BLOCK
    return Drive(floppy=floppy, bus=slot.bus, controller=slot.controller, unit=slot.unit, backing=backing, path=path,
                 passthrough=passthrough or None, boot_order=node.number("boot/@order", "boot_order", low=1, high=MAX_UNIT))
