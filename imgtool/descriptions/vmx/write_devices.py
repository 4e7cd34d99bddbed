"""The devices of a Machine → settings of a ``.vmx``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgtool.descriptions.vmx.keys import (
    DISK,
    DISK_SCHEDULING,
    DISTRIBUTED,
    DRIVE,
    GRAPHICS,
    MAC_KEYS,
    NIC,
    OPAQUE,
    SOUNDS,
    VIDEO,
    controller_fields,
)
from imgtool.descriptions.vmx.read_disks import ORDER, SLOT
from imgtool.descriptions.vmx.read_nics import LAN_SEGMENT, VMXNET2_FEATURES
from imgtool.descriptions.vmx.read_ports import ADDRESS, SCHEMES, VNC
from imgtool.descriptions.vmx.values import BOOL, Field
from imgtool.descriptions.vmx.write import Setting, fields, written
from imgtool.model.devices import Backing, Bus, Controller, DiskSlot, Drive, Network, NetworkKind, Nic, Passthrough, Port
from imgtool.model.machine import Machine

PLACES = {Bus.SCSI: (4, 64), Bus.SATA: (4, 30), Bus.NVME: (4, 64), Bus.IDE: (2, 2)}
"""Controllers, and units of each."""
SCSI_ITSELF = 7
"""The controller's own number on its bus."""
FLOPPIES = 2
DISK_TYPE = {Bus.SCSI: "scsi-hardDisk", Bus.IDE: "ata-hardDisk", Bus.SATA: "disk"}
VMWARES_OWN = re.compile("00:50:56:[0-3]")
"""Addresses that a person may give without VMware refusing them."""
CONNECTED = Field("connected", "startConnected", BOOL)
CONNECTIONS = {NetworkKind.NAT: "nat", NetworkKind.HOST_ONLY: "hostonly", NetworkKind.CUSTOM: "custom"}
NETWORK_PORTS = {"tcp": "tcp", "telnet": "telnet", "tls": "ssl"}
PCI_DECIMAL = "{:05d}:{:03d}:{:02d}.{}"


def devices(machine: Machine) -> Iterator[Setting]:
    """The settings of all devices, in a fixed order."""
    yield from _storage(machine)
    yield from _floppies(machine)
    for at, nic in enumerate(machine.nics):
        yield from _nic(nic, f"ethernet{nic.number}.", f"nics[{at}].")
    for name, ports in (("serial", machine.serials), ("parallel", machine.parallels)):
        for at, port in enumerate(ports):
            yield from _port(port, f"{name}{port.number}.", f"{name}s[{at}].")
    yield from _screen(machine)
    yield from _passthrough(machine)
    yield from _folders(machine)


def has_place(bus: Bus, controller: int, unit: int) -> bool:
    """Whether VMware has such an address."""
    controllers, units = PLACES.get(bus, (0, 0))
    return 0 <= controller < controllers and 0 <= unit < units and not (bus is Bus.SCSI and unit == SCSI_ITSELF)


def _storage(machine: Machine) -> Iterator[Setting]:
    named = {(one.bus, one.number): (one, f"controllers[{at}].") for at, one in enumerate(machine.controllers)}
    plugged: list[tuple[str, DiskSlot | Drive]] = [*((f"disks[{at}].", one) for at, one in enumerate(machine.disks)),
               *((f"drives[{at}].", one) for at, one in enumerate(machine.drives) if not one.floppy)]
    plugged = [(where, one) for where, one in plugged if has_place(one.bus, one.controller, one.unit)]
    for bus in ORDER:
        used = {one.controller for _, one in plugged if one.bus is bus}
        numbers = used | {number for owner, number in named if owner is bus and has_place(bus, number, 0)}
        for number in sorted(numbers):
            one, where = named.get((bus, number), (Controller(bus=bus, number=number), ""))
            if bus is not Bus.IDE:
                yield Setting(f"{bus}{number}.present", "TRUE", f"{where}bus" if where else None)
                yield from fields(one, controller_fields(bus), f"{bus}{number}.", where)
            for place, device in plugged:
                if (device.bus, device.controller) == (bus, number):
                    yield from _plugged(device, f"{bus}{number}:{device.unit}", place)
    for at, thing in enumerate(machine.passthrough):
        if thing.kind == "scsi" and re.fullmatch(SLOT, thing.name or ""):
            yield from _scsi(thing, f"{thing.name}.", f"passthrough[{at}].address")


def _plugged(device: DiskSlot | Drive, head: str, where: str) -> Iterator[Setting]:
    yield Setting(f"{head}.present", "TRUE", f"{where}bus")
    if isinstance(device, Drive):
        yield from _cdrom(device, f"{head}.", where)
        return
    yield from fields(device, DISK, f"{head}.", where)
    kind = "rawDisk" if device.rdm == "device" else DISK_TYPE.get(device.bus)
    if kind:
        yield Setting(f"{head}.deviceType", kind)
    yield from fields(device, DISK_SCHEDULING, f"sched.{head}.", where)


def _cdrom(drive: Drive, head: str, where: str) -> Iterator[Setting]:
    kind = "cdrom-raw" if drive.passthrough else "atapi-cdrom"
    file = "emptyBackingString"
    if drive.backing is Backing.CLIENT:
        yield Setting(f"{head}clientDevice", "TRUE", f"{where}backing")
    elif drive.backing is Backing.BLOCK:
        file = drive.path or "auto detect"
    elif drive.backing is Backing.FILE and drive.path:
        kind, file = "cdrom-image", drive.path
    elif not drive.passthrough:
        kind = "cdrom-image"
    yield Setting(f"{head}deviceType", kind, f"{where}backing")
    yield Setting(f"{head}fileName", file, f"{where}path")
    yield from fields(drive, DRIVE, head, where)


def _floppies(machine: Machine) -> Iterator[Setting]:
    """VMware takes the first as present where nothing is said."""
    drives = {one.unit: (at, one) for at, one in enumerate(machine.drives) if one.floppy}
    for unit in range(FLOPPIES):
        if unit not in drives:
            if unit == 0:
                yield Setting("floppy0.present", "FALSE")
            continue
        at, drive = drives[unit]
        head, where = f"floppy{unit}.", f"drives[{at}]."
        yield Setting(f"{head}present", "TRUE", f"{where}floppy")
        image = drive.backing in (Backing.FILE, Backing.EMPTY)
        yield Setting(f"{head}fileType", "file" if image else "device", f"{where}backing")
        if drive.backing is Backing.CLIENT:
            yield Setting(f"{head}clientDevice", "TRUE", f"{where}backing")
        file = drive.path if drive.backing in (Backing.FILE, Backing.BLOCK) else None
        yield Setting(f"{head}fileName", file or ("" if drive.backing is not Backing.BLOCK else "auto detect"), f"{where}path")
        yield from fields(drive, DRIVE, head, where)


def _nic(nic: Nic, head: str, where: str) -> Iterator[Setting]:
    yield Setting(f"{head}present", "TRUE", f"{where}number")
    for one in fields(nic, NIC, head, where):
        if nic.model == "vmxnet2" and one.field == f"{where}model":
            yield Setting(one.key, "vmxnet", one.field)
            yield Setting(f"{head}features", VMXNET2_FEATURES, one.field)
        else:
            yield one
    kind = nic.mac_kind if nic.mac_kind in MAC_KEYS else "static" if nic.mac else "generated"
    yield Setting(f"{head}addressType", kind, f"{where}mac_kind")
    if nic.mac:
        yield Setting(head + MAC_KEYS[kind], nic.mac, f"{where}mac")
        if kind == "static" and nic.mac_check is None and not VMWARES_OWN.match(nic.mac):
            yield Setting(f"{head}checkMACAddress", "FALSE", f"{where}mac_check")
    yield from _network(nic.network, head, f"{where}network.")


def _network(network: Network, head: str, where: str) -> Iterator[Setting]:
    if network.name:
        yield Setting(f"{head}networkName", network.name, f"{where}name")
    if network.kind is NetworkKind.DISTRIBUTED:
        yield from fields(network, DISTRIBUTED, head, where)
    elif network.kind is NetworkKind.OPAQUE:
        yield from fields(network, OPAQUE, head, where)
        yield Setting(f"{head}opaqueNetwork.type", "nsx.LogicalSwitch", f"{where}kind")
    elif network.kind is NetworkKind.CUSTOM and (network.device or "").startswith(LAN_SEGMENT):
        yield Setting(f"{head}connectionType", "pvn", f"{where}kind")
        yield Setting(f"{head}pvnID", (network.device or "").removeprefix(LAN_SEGMENT), f"{where}device")
    else:
        if network.kind in CONNECTIONS or (network.kind is NetworkKind.BRIDGE and not network.name):
            yield Setting(f"{head}connectionType", CONNECTIONS.get(network.kind, "bridged"), f"{where}kind")
        elif network.kind is NetworkKind.NONE and network.name:
            yield Setting(f"{head}connectionType", "none", f"{where}kind")
        if network.device:
            yield Setting(f"{head}vnet", network.device, f"{where}device")


def _port(port: Port, head: str, where: str) -> Iterator[Setting]:
    """A serial or a parallel port; of a kind that VMware lacks, nothing."""
    parallel = head.startswith("parallel")
    if port.kind not in ({"device", "file"} if parallel else {"device", "file", "pipe", "thinprint", "proxy", *NETWORK_PORTS}):
        return
    yield Setting(f"{head}present", "TRUE", f"{where}number")
    network = port.kind in NETWORK_PORTS or port.kind == "proxy"
    yield Setting(f"{head}fileType", "network" if network else port.kind, f"{where}kind")
    if port.kind in NETWORK_PORTS:
        yield Setting(f"{head}fileName", f"{NETWORK_PORTS[port.kind]}://{port.path or ''}", f"{where}path")
    elif port.kind == "proxy" and (port.path or "").partition("://")[0].lower() in SCHEMES:
        yield Setting(f"{head}vspc", port.path or "", f"{where}path")
    elif port.path:
        yield Setting(f"{head}fileName", port.path, f"{where}path")
    elif port.kind == "device":
        yield Setting(f"{head}autodetect", "TRUE", f"{where}path")
    if port.server is not None and (network or port.kind == "pipe"):
        end = "network.endPoint" if network else "pipe.endPoint"
        yield Setting(head + end, "server" if port.server else "client", f"{where}server")
    yield from fields(port, [CONNECTED], head, where)


def _screen(machine: Machine) -> Iterator[Setting]:
    """Display, console and sound: VMware has one of each."""
    for video in machine.videos[:1]:
        yield Setting("svga.present", "FALSE" if video.model == "none" else "TRUE", "videos[0].model")
        yield from fields(video, VIDEO, "svga.", "videos[0].")
        if video.accelerated is not None:
            yield Setting("mks.enable3d", BOOL.write(video.accelerated), "videos[0].accelerated")
    at, console = next(((at, one) for at, one in enumerate(machine.graphics) if one.kind == "vnc"), (0, None))
    if console:
        yield Setting(f"{VNC}.enabled", "TRUE", f"graphics[{at}].kind")
        yield from fields(console, GRAPHICS, f"{VNC}.", f"graphics[{at}].")
    sound = next((word for model in machine.sounds if (word := written(SOUNDS, model))), None)
    if sound:
        yield Setting("sound.present", "TRUE", "sounds")
        yield Setting("sound.virtualDev", sound, "sounds")
        yield Setting("sound.autodetect", "TRUE")
        yield Setting("sound.fileName", "-1")


def _passthrough(machine: Machine) -> Iterator[Setting]:
    cards, sticks = 0, 0
    for at, thing in enumerate(machine.passthrough):
        where = f"passthrough[{at}].address"
        if thing.kind in {"pci", "vgpu"}:
            head = f"pciPassthru{cards}."
            cards += 1
            yield Setting(f"{head}present", "TRUE", f"passthrough[{at}].kind")
            if thing.kind == "vgpu" and thing.name:
                yield Setting(f"{head}vgpu", thing.name, f"passthrough[{at}].name")
            elif thing.address:
                yield Setting(f"{head}id", _pci(thing.address), where)
        elif thing.kind == "usb" and (thing.address or thing.name):
            vendor, _, product = (thing.address or "").partition(":")
            text = f"0x{vendor}:0x{product}" if thing.address else thing.name or ""
            yield Setting(f"usb.autoConnect.device{sticks}", text, where)
            sticks += 1


def _pci(address: str) -> str:
    match = ADDRESS.fullmatch(address)
    if not match:
        return address
    domain, bus, device = (int(match[at] or "0", 16) for at in (1, 2, 3))
    return PCI_DECIMAL.format(domain, bus, device, match[4])


def _scsi(thing: Passthrough, head: str, where: str) -> Iterator[Setting]:
    yield Setting(f"{head}present", "TRUE", where)
    yield Setting(f"{head}deviceType", "scsi-passthru", where)
    yield Setting(f"{head}fileName", thing.address or "", where)


def _folders(machine: Machine) -> Iterator[Setting]:
    if machine.shared_folders:
        yield Setting("isolation.tools.hgfs.disable", "FALSE")
        yield Setting("sharedFolder.maxNum", str(len(machine.shared_folders)))
    for at, folder in enumerate(machine.shared_folders):
        head, where = f"sharedFolder{at}.", f"shared_folders[{at}]."
        yield Setting(f"{head}present", "TRUE", f"{where}path")
        yield Setting(f"{head}enabled", "TRUE")
        yield Setting(f"{head}readAccess", "TRUE")
        if folder.read_only is not None:
            yield Setting(f"{head}writeAccess", BOOL.write(not folder.read_only), f"{where}read_only")
        yield Setting(f"{head}hostPath", folder.path, f"{where}path")
        yield Setting(f"{head}guestName", folder.tag, f"{where}tag")
        yield Setting(f"{head}expiration", "never")
