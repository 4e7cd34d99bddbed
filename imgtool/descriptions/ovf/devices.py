"""Items of the virtual hardware → controllers, disks, drives, network cards and the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from imgtool.descriptions.ovf import words
from imgtool.descriptions.ovf.item import Item, Notes, unknown
from imgtool.descriptions.ovf.units import number, truth
from imgtool.model.devices import Backing, Bus, Controller, DiskSlot, Drive, Network, NetworkKind, Nic, Port, Video

REFERENCE = re.compile(r"(?:ovf:)?/?(disk|file)/(.+)")
NIC_CONFIG = ("wakeOnLanEnabled",)
VIDEO_CONFIG = ("videoRamSizeInKB", "numDisplays", "enable3DSupport")
KIB = 1024
MAX_CONTROLLER = 15
"""Numbers above are no numbers of controllers, but addresses of another kind."""
MAC = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Places:
    """Where disks and drives are plugged in: controllers by their InstanceID."""

    controllers: Mapping[str, Controller]
    taken: Counter[tuple[Bus, int]]

    def of(self, item: Item, *, bus: Bus, notes: Notes) -> tuple[Bus, int, int]:
        """(bus, number of the controller, unit). Where the OVF does not say: the first controller, the next unit."""
        parent = self.controllers.get(item.get("parent") or "")
        if parent is None:
            parent = next((one for one in self.controllers.values() if one.bus == bus), Controller(bus=bus))
            if (item.get("parent") or "").strip("0-"):  # oVirt says that there is none
                notes.problem(f"{item.title} is attached to {item.get('parent')}, which is not a controller",
                              f"it is put on {parent.bus} {parent.number}: check that the guest boots")
        key = parent.bus, parent.number
        unit = item.number("addressonparent")
        if unit is None:
            unit = self.taken[key]
        self.taken[key] = max(self.taken[key], unit + 1)
        return *key, unit


def is_controller(item: Item) -> bool:
    """oVirt writes screens as "other storage"."""
    return item.type in words.CONTROLLERS and item.subtype not in words.NO_DEVICES and item.get("type") in (None, "controller")


def is_disk(item: Item) -> bool:
    """XenServer writes disks as storage extents."""
    named = REFERENCE.fullmatch(item.get("hostresource") or "")
    return item.type == words.DISK or (item.type == words.STORAGE_EXTENT and named is not None)


def controllers(items: list[Item], notes: Notes) -> dict[str, Controller]:
    """By InstanceID, in the order of the OVF. Numbers are the Address, or counted where that is missing or taken."""
    found: dict[str, Controller] = {}
    taken: set[tuple[Bus, int]] = set()
    for item in items:
        if not is_controller(item):
            continue
        bus, model = _controller(item, notes)
        wanted = item.number("address")
        if wanted is None or wanted > MAX_CONTROLLER or (bus, wanted) in taken:
            wanted = next(index for index in range(len(taken) + 1) if (bus, index) not in taken)
        taken.add((bus, wanted))
        one = Controller(bus=bus, number=wanted, model=model)
        notes.read(f"controllers[{len(found)}]", item.element, f"{bus} {wanted} {model or ''}".strip())
        unknown(item.config, (), item.title, notes)
        found[item.get("instanceid") or f"#{len(found)}"] = one
    return found


def _controller(item: Item, notes: Notes) -> tuple[Bus, str | None]:
    if item.type == words.IDE:
        return Bus.IDE, item.subtype or None
    if item.type == words.SCSI:
        if item.subtype in words.STORAGES:
            return words.STORAGES[item.subtype]
        return Bus.SCSI, words.SCSI_MODELS.get(item.subtype, item.subtype) or None
    if item.subtype not in words.STORAGES:
        notes.problem(f"{item.title}: the controller {item.get('resourcesubtype')!r} is not known: taken as SATA")
    return words.STORAGES.get(item.subtype, (Bus.SATA, None))


def place(item: Item, disk: DiskSlot, places: Places, notes: Notes) -> DiskSlot:
    """The disk of the DiskSection, plugged in as an Item says."""
    wanted = Bus.XEN if item.type == words.STORAGE_EXTENT else disk.bus
    if item.get("parent") in places.controllers or wanted == Bus.SCSI:
        bus, controller, unit = places.of(item, bus=wanted, notes=notes)
    else:  # oVirt says the bus with the disk
        bus, controller, unit = wanted, 0, places.taken[wanted, 0]
        places.taken[wanted, 0] += 1
    unknown(item.config, (), item.title, notes)
    return DiskSlot(**{**vars(disk), "bus": bus, "controller": controller, "unit": unit,
                       "boot_order": number(item.get("bootorder")) or disk.boot_order,
                       "read_only": truth(item.get("isreadonly")) or None})


def drive(item: Item, files: Mapping[str, str], places: Places, notes: Notes) -> Drive:
    """A CD-ROM or a floppy drive. ``files``: names by the id of the reference."""
    floppy = item.type == words.FLOPPY
    place_of_floppy = Bus.FLOPPY, 0, item.number("addressonparent") or 0
    bus, controller, unit = place_of_floppy if floppy else places.of(item, bus=Bus.IDE, notes=notes)
    backing, passthrough = words.DRIVES.get(item.subtype, (Backing.FILE, None))
    path = item.get("hostresource")
    if path and (match := REFERENCE.fullmatch(path)):
        path = files.get(match[2], path)
    if backing == Backing.FILE and not path:
        backing = Backing.EMPTY
    unknown(item.config, (), item.title, notes)
    return Drive(floppy=floppy, bus=bus, controller=controller, unit=unit, backing=backing, path=path, passthrough=passthrough,
                 connected=truth(item.get("automaticallocation")), boot_order=item.number("bootorder") or None)


def nics(items: list[Item], notes: Notes) -> tuple[Nic, ...]:
    """In the order of their numbers."""
    return tuple(_nic(number, item, index, notes) for index, (number, item) in enumerate(numbered(items)))


def numbered(items: list[Item]) -> list[tuple[int, Item]]:
    """Network cards with the numbers that VMware gives, where all of them have one; else counted."""
    slots = [item.number("addressonparent") for item in items]
    said = [slot - words.FIRST_NIC for slot in slots if slot is not None and 0 <= slot - words.FIRST_NIC < words.MAX_NICS]
    numbers = said if len(set(said)) == len(items) else list(range(len(items)))
    return sorted(zip(numbers, items, strict=True), key=lambda pair: pair[0])


def _nic(count: int, item: Item, index: int, notes: Notes) -> Nic:
    unknown(item.config, NIC_CONFIG, item.title, notes)
    model = next((words.NIC_MODELS[word] for word in item.subtype.split() if word in words.NIC_MODELS), item.subtype or None)
    if model and model not in words.NIC_WORDS:
        notes.problem(f"{item.title}: the network card {item.get('resourcesubtype')!r} is not known",
                      "choose a model at the target")
    connected = truth(item.get("automaticallocation"))
    mac = mac_address(item.get("address") or item.get("macaddress"))
    notes.read(f"nics[{index}]", item.element, f"{model or ''} on {item.get('connection') or 'nothing'}")
    return Nic(number=count, model=model, mac=mac, network=_network(item.get("connection")),
               connected=truth(item.get("linked")) if connected is None else connected, wake_on_lan=item.flag(NIC_CONFIG[0]))


def mac_address(text: str | None) -> str | None:
    """Lower case with colons; VirtualBox and PowerVM write it without."""
    plain = re.sub(r"[:.-]", "", (text or "").lower())
    return ":".join(re.findall("..", plain)) if MAC.fullmatch(plain) else None


def _network(name: str | None) -> Network:
    kind = words.NETWORK_KINDS.get((name or "").lower().replace("-", ""))
    if kind:
        return Network(kind=NetworkKind(kind))
    return Network(kind=NetworkKind.BRIDGE, name=name) if name else Network()


def ports(items: list[Item], kind: int, notes: Notes) -> tuple[Port, ...]:
    """Serial or parallel ports."""
    found = []
    for count, item in enumerate(one for one in items if one.type == kind):
        word = item.subtype.removeprefix(words.PORTS[kind]) or "device"
        if word not in words.PORT_KINDS:
            notes.problem(f"{item.title}: what is behind the port ({item.get('resourcesubtype')!r}) is not known")
            word = "device"
        found.append(Port(number=count, kind=word, path=item.get("hostresource"),
                          connected=truth(item.get("automaticallocation"))))
        unknown(item.config, (), item.title, notes)
    return tuple(found)


def video(item: Item, notes: Notes) -> Video:
    """VMware's card, unless the OVF names another."""
    memory = number(item.config.get(VIDEO_CONFIG[0].lower()))
    unknown(item.config, VIDEO_CONFIG, item.title, notes)
    return Video(model=item.get("resourcesubtype") or "vmvga", memory=memory * KIB if memory else None,
                 heads=number(item.config.get(VIDEO_CONFIG[1].lower())), accelerated=item.flag(VIDEO_CONFIG[2]))
