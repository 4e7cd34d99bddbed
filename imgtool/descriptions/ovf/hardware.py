"""Controllers, disks, drives, network cards and the rest → settings of Items, as ovftool writes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imgtool.descriptions.ovf import words
from imgtool.descriptions.ovf.devices import KIB
from imgtool.model.devices import Backing, Bus, Controller, DiskSlot, Drive, Network, Nic, Port, Video
from imgtool.model.machine import Machine

MIB = 1 << 20
Key = tuple[object, ...]
BOX_SPELLING = ("piix3", "piix4", "ich6")
"""IDE controllers, which VirtualBox writes in capitals."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One Item. ``key`` is what makes it the same device in two descriptions."""

    key: Key
    values: dict[str, str | None]
    """Without InstanceID and Parent; None: left out."""
    config: dict[str, str | None]
    parent: Key | None = None


def devices(machine: Machine) -> Iterator[Device]:
    """All Items, in the order in which they are written: each controller before what hangs on it."""
    yield _cpu(machine)
    yield _memory(machine)
    for controller in all_controllers(machine):
        yield _controller(controller)
    for count, disk in enumerate(machine.disks, 1):
        yield _disk(disk, count)
    for count, drive in enumerate(machine.drives, 1):
        yield _drive(drive, count)
    for nic in machine.nics:
        yield _nic(nic)
    for count, kind in enumerate(machine.usb):
        yield _plain(("usb", count), "USB controller", words.USB, words.USB_WORDS.get(kind, kind))
    for count, video in enumerate(machine.videos):
        yield _video(video, count)
    for count, sound in enumerate(machine.sounds):
        yield _plain(("sound", count), "Sound card", words.SOUND, words.SOUND_WORDS.get(sound, sound))
    yield from (_port(port, words.SERIAL, "Serial port") for port in machine.serials)
    yield from (_port(port, words.PARALLEL, "Parallel port") for port in machine.parallels)
    if machine.tpm:
        yield _plain(("tpm",), "Virtual TPM", words.OTHER, words.VTPM)


def all_controllers(machine: Machine) -> list[Controller]:
    """Those of the machine, and those that its disks and drives need."""
    found = {(one.bus, one.number): one for one in machine.controllers}
    used = [(disk.bus, disk.controller) for disk in machine.disks]
    used += [(drive.bus, drive.controller) for drive in machine.drives if not drive.floppy]
    for bus, number in used:
        found.setdefault((bus, number), Controller(bus=bus, number=number))
    return list(found.values())


def network_name(network: Network) -> str | None:
    """Of the NetworkSection: the port group, or a word that Workstation and VirtualBox know."""
    special = {kind: name for name, kind in words.NETWORK_KINDS.items()}
    return special.get(network.kind.value) or network.name


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _mib(value: int | None) -> str | None:
    return None if value is None else str(value // MIB)


def _plain(key: Key, name: str, kind: int, subtype: str | None) -> Device:
    return Device(key=key, values={"ElementName": name, "ResourceSubType": subtype, "ResourceType": str(kind)}, config={})


def _cpu(machine: Machine) -> Device:
    topology, given = machine.cpu.topology, machine.resources
    return Device(key=("cpu",), config={}, values={
        "AllocationUnits": "hertz * 10^6", "Description": "Number of Virtual CPUs",
        "ElementName": f"{machine.cpu.count} virtual CPU(s)", "Limit": _number(given.cpu_limit),
        "Reservation": _number(given.cpu_reservation), "ResourceType": str(words.CPU), "VirtualQuantity": str(machine.cpu.count),
        "Weight": _number(given.cpu_shares), "vmw:CoresPerSocket": _number(topology.cores) if topology else None})


def _memory(machine: Machine) -> Device:
    given = machine.resources
    return Device(key=("memory",), config={}, values={
        "AllocationUnits": "byte * 2^20", "Description": "Memory Size", "ElementName": f"{_mib(machine.memory.size)}MB of memory",
        "Limit": _mib(given.memory_limit), "Reservation": _mib(given.memory_reservation), "ResourceType": str(words.MEMORY),
        "VirtualQuantity": _mib(machine.memory.size), "Weight": _number(given.memory_shares)})


def _controller(one: Controller) -> Device:
    kind, subtype = words.STORAGE, words.STORAGE_WORDS.get((one.bus, one.model)) or words.STORAGE_WORDS.get((one.bus, None))
    if one.bus == Bus.IDE:
        kind, subtype = words.IDE, one.model.upper() if one.model in BOX_SPELLING else one.model
    elif one.bus == Bus.SCSI and one.model != "virtio-scsi":
        kind, subtype = words.SCSI, words.SCSI_WORDS.get(one.model or "", one.model)
    return Device(key=("controller", one.bus, one.number), config={}, values={
        "Address": str(one.number), "Description": f"{one.bus.upper()} Controller",
        "ElementName": f"{one.bus.upper()} Controller {one.number}", "ResourceSubType": subtype,
        "ResourceType": str(kind)})


def _disk(disk: DiskSlot, count: int) -> Device:
    return Device(key=("disk", disk.bus, disk.controller, disk.unit), config={}, parent=("controller", disk.bus, disk.controller),
                  values={"AddressOnParent": str(disk.unit), "ElementName": f"Hard Disk {count}",
                          "HostResource": f"ovf:/disk/vmdisk{count}", "ResourceType": str(words.DISK)})


def _drive(drive: Drive, count: int) -> Device:
    floppy = drive.floppy
    start = "vmware.floppy." if floppy else "vmware.cdrom."
    backing = Backing.FILE if drive.backing == Backing.EMPTY else drive.backing
    known = [word for word, meant in words.DRIVES.items() if word.startswith(start) and meant == (backing, drive.passthrough)]
    subtype = known[0] if known else start + ("device" if floppy else "atapi")
    path = f"ovf:/file/image{count}" if drive.backing == Backing.FILE and drive.path else drive.path
    return Device(
        key=("drive", drive.bus, drive.controller, drive.unit), config={},
        parent=None if floppy else ("controller", drive.bus, drive.controller), values={
            "AddressOnParent": str(drive.unit), "AutomaticAllocation": _flag(drive.connected),
            "ElementName": f"{'Floppy' if floppy else 'CD/DVD'} Drive {count}", "HostResource": path, "ResourceSubType": subtype,
            "ResourceType": str(words.FLOPPY if floppy else words.CD)})


def _nic(nic: Nic) -> Device:
    name = network_name(nic.network)
    return Device(key=("nic", nic.number), config={"wakeOnLanEnabled": _flag(nic.wake_on_lan)}, values={
        "Address": nic.mac, "AddressOnParent": str(words.FIRST_NIC + nic.number), "AutomaticAllocation": _flag(nic.connected),
        "Connection": name, "ElementName": f"Network adapter {nic.number + 1}",
        "ResourceSubType": words.NIC_WORDS.get(nic.model or "", nic.model), "ResourceType": str(words.NIC)})


def _video(video: Video, count: int) -> Device:
    memory = None if video.memory is None else str(video.memory // KIB)
    return Device(key=("video", count), values={
        "ElementName": "VirtualVideoCard", "ResourceSubType": None if video.model == "vmvga" else video.model,
        "ResourceType": str(words.VIDEO)}, config={
            "enable3DSupport": _flag(video.accelerated), "numDisplays": _number(video.heads), "videoRamSizeInKB": memory})


def _port(port: Port, kind: int, name: str) -> Device:
    word = port.kind if port.kind in words.PORT_KINDS else "device"
    return Device(key=(name, port.number), config={}, values={
        "AutomaticAllocation": _flag(port.connected), "ElementName": f"{name} {port.number + 1}",
        "HostResource": port.path if port.kind in words.PORT_KINDS else None,
        "ResourceSubType": words.PORTS[kind] + word, "ResourceType": str(kind)})
