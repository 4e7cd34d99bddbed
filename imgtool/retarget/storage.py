"""Disks and drives: on which bus, behind which controller, in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from imgtool.descriptions.guest_os import safe_on_esxi
from imgtool.model.devices import Backing, Bus, DiskMode, DiskSlot, Drive
from imgtool.model.machine import Machine
from imgtool.model.translation import Wishes, World
from imgtool.retarget import paths
from imgtool.retarget.log import Log
from imgtool.retarget.platform import is_old
from imgtool.retarget.slots import ESXI, KVM, Slots

ORDER = (Bus.SCSI, Bus.SATA, Bus.NVME, Bus.IDE, Bus.VIRTIO, Bus.XEN, Bus.USB, Bus.FLOPPY)
"""In which VMware's firmware finds disks; others behind."""
ON_QEMU = ("pvscsi", "lsisas1068", "lsisas1078", "lsilogic", "virtio-scsi", "ncr53c90", "dc390")
"""SCSI controllers that libvirt's QEMU driver has."""
ON_ESXI = ("pvscsi", "lsisas1068", "lsilogic", "buslogic")
OF_NAME = {"virtio": Bus.VIRTIO, "sata": Bus.SATA, "nvme": Bus.NVME, "ide": Bus.IDE}
"""Words of ``Capabilities.disk_buses`` that are buses; the others are models on SCSI."""
USUAL_SHARES = 1000
"""VMware's "normal" weight of a disk."""
ADAPT = "imgtool adapt gives the guest the driver"


class Place(NamedTuple):
    """What a disk shall hang on."""

    bus: Bus
    model: str | None
    why: str


Choose = Callable[[Machine, DiskSlot, Wishes, Log], Place]


def to_kvm(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """On VirtIO if the guest has the driver; else on what it knew, in the form that QEMU emulates."""
    _not_carried(machine, log)
    slots = Slots(KVM)
    placed = list(_placed(machine, wishes, log, slots, _kvm_place))
    cdroms = _drives(machine, wishes, log, slots, Bus.IDE if machine.chipset == "i440fx" else Bus.SATA)
    new = replace(machine, disks=tuple(placed), drives=tuple(cdroms), controllers=slots.described(), snapshots=())
    was = ordered(machine)
    disks = tuple(_on_kvm(machine, number, disk, _model(new, disk), log, f"disks[{was[number]}]")
                  for number, disk in enumerate(placed))
    _noted(machine, new, log)
    return _boot_order(replace(new, disks=disks), was, log)


def to_esxi(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """On the controller that the guest surely knows; what was on VirtIO needs its driver first."""
    _not_carried(machine, log)
    slots = Slots(ESXI)
    disks = [replace(disk, cache=None, discard=None, serial=None, wwn=None)
             for disk in _placed(machine, wishes, log, slots, _esxi_place)]
    for number, disk in enumerate(machine.disks):
        for name in ("cache", "discard", "wwn"):
            log.change(f"disks[{number}].{name}", getattr(disk, name), None, "ESXi has its own way")
        log.lost(f"disks[{number}].serial", disk.serial, "VMware makes the serial number itself",
                 "a guest that mounts by /dev/disk/by-id needs another name")
    if any(disk.bus in (Bus.VIRTIO, Bus.XEN) or "virtio" in str(_model(machine, disk)) for disk in machine.disks) and (
            not wishes.capabilities.disk_buses):
        log.problem("the guest's disks were on VirtIO, and nobody looked whether it can start from another controller", ADAPT)
    cdroms = _drives(machine, wishes, log, slots, Bus.IDE if is_old(machine.guest_os) else Bus.SATA)
    new = replace(machine, controllers=slots.described(), disks=tuple(disks), drives=tuple(cdroms), snapshots=())
    _noted(machine, new, log)
    return new


def _noted(machine: Machine, new: Machine, log: Log) -> None:
    told = [tuple(f"{one.bus} {one.number} {one.model or ''}".strip() for one in each.controllers) for each in (machine, new)]
    log.change("controllers", told[0], told[1], "made anew for the disks and drives")


def _not_carried(machine: Machine, log: Log) -> None:
    """What a copy of the disks leaves behind."""
    if machine.snapshots:
        log.lost("snapshots", tuple(one.name for one in machine.snapshots), "only the machine as it is now is carried",
                 "keep the source as long as the snapshots are needed")
    for number, one in enumerate(machine.controllers):
        if one.shared not in (None, "none"):
            log.lost(f"controllers[{number}].shared", one.shared, "a cluster shares the disks of this bus",
                     "move the cluster's nodes together, with storage that both can reach")
    for number, disk in enumerate(machine.disks):
        at = f"disks[{number}]"
        if disk.rdm:
            log.lost(f"{at}.rdm", disk.rdm, "a disk of the storage itself, handed through",
                     "its content is copied into a file; or give the same LUN to the new host by hand")
        if disk.shared:
            log.lost(f"{at}.shared", True, "several machines write to this disk",
                     "stop them all for the copy, and share it anew by hand")
        if disk.mode in (DiskMode.INDEPENDENT, DiskMode.NONPERSISTENT):
            log.lost(f"{at}.mode", disk.mode.value, "snapshots leave this disk out",
                     "a copy made from a snapshot does not have it")


def ordered(machine: Machine) -> list[int]:
    """Numbers of the disks: the one that boots first, then SCSI, SATA, NVMe, IDE."""
    found = sorted(range(len(machine.disks)), key=lambda number: _key(machine.disks[number]))
    first = min((number for number in found if machine.disks[number].boot_order is not None), default=None,
                key=lambda number: machine.disks[number].boot_order or 0)
    return found if first is None else [first, *(number for number in found if number != first)]


def _key(disk: DiskSlot) -> tuple[int, int, int]:
    return ORDER.index(disk.bus), disk.controller, disk.unit


def _placed(machine: Machine, wishes: Wishes, log: Log, slots: Slots, choose: Choose) -> Iterator[DiskSlot]:
    """The disks in their new order and places."""
    files = paths.Files(wishes, log)
    for new, old in enumerate(ordered(machine)):
        disk, at = machine.disks[old], f"disks[{old}]"
        if old != new:
            log.moved[at] = f"disks[{new}]"
        place = choose(machine, disk, wishes, log)
        found = slots.take(place.bus, place.model)
        if found is None:
            log.problem(f"no place for the disk {disk.path}: {place.model or place.bus} is full", "move it by hand", fatal=True)
            found = (0, 0)
        before = f"{_model(machine, disk) or ''} {disk.bus}:{disk.controller}:{disk.unit}".strip()
        after = f"{place.model or ''} {place.bus}:{found[0]}:{found[1]}".strip()
        for name in ("bus", "controller", "unit"):
            log.change(f"{at}.{name}", before, after, place.why)
        yield replace(files.disk(disk, at), bus=place.bus, controller=found[0], unit=found[1], rdm=None,
                      shared=None if wishes.to is World.ESXI or disk.format != "raw" else disk.shared)


def _model(machine: Machine, disk: DiskSlot) -> str | None:
    return next((one.model for one in machine.controllers if (one.bus, one.number) == (disk.bus, disk.controller)), None)


def _by_ability(wishes: Wishes, known: tuple[str, ...]) -> Place | None:
    """The best of what the guest can drive, if anybody looked."""
    word = next((word for word in wishes.capabilities.disk_buses if word in known), None)
    if word is None:
        return None
    bus = OF_NAME.get(word, Bus.SCSI)
    return Place(bus, word if bus is Bus.SCSI else None, "the best that the guest has a driver for")


def _kvm_place(machine: Machine, disk: DiskSlot, wishes: Wishes, log: Log) -> Place:
    ide = Bus.IDE if machine.chipset == "i440fx" else Bus.SATA
    if able := _by_ability(wishes, ("virtio", *ON_QEMU, "sata", "ide")):
        return able if able.bus is not Bus.IDE else Place(ide, None, able.why)
    match disk.bus:
        case Bus.SCSI:
            return _scsi_on_kvm(machine, disk, ide, log)
        case Bus.IDE:
            return Place(ide, None, "as it was" if ide is Bus.IDE else "q35 has no IDE: AHCI instead")
        case Bus.NVME:
            log.problem(f"{disk.path} is on NVMe, which this libvirt does not give: SATA instead",
                        f"a guest that does not load AHCI when it starts needs it: {ADAPT}")
            return Place(Bus.SATA, None, "libvirt 9 has no NVMe disks")
        case Bus.XEN:
            log.problem(f"{disk.path} is a disk of Xen: {ide.value.upper()} instead", ADAPT)
            return Place(ide, None, "KVM has no Xen disks")
        case _:
            return Place(disk.bus, None, "as it was")


def _scsi_on_kvm(machine: Machine, disk: DiskSlot, ide: Bus, log: Log) -> Place:
    model = _model(machine, disk)
    if model in ON_QEMU:
        return Place(Bus.SCSI, model, "QEMU emulates the controller that the guest knows")
    safe = safe_on_esxi(machine.guest_os)[0]
    if model is None and safe != "buslogic":
        return Place(Bus.SCSI, safe if safe in ON_QEMU else "lsilogic", "not said: what such a guest surely knows")
    log.problem(f"{disk.path} is behind a {model or 'buslogic'} controller, which QEMU has not: {ide.value.upper()} instead",
                "such old guests know IDE; one that does not start needs another controller while it is still on ESXi")
    return Place(ide, None, f"QEMU has no {model or 'buslogic'}")


def _esxi_place(machine: Machine, disk: DiskSlot, wishes: Wishes, log: Log) -> Place:
    if able := _by_ability(wishes, (*ON_ESXI, "sata", "nvme", "ide")):
        return able
    model = _model(machine, disk)
    if disk.bus is Bus.SCSI and model in ON_ESXI:
        return Place(Bus.SCSI, model, "as it was")
    if disk.bus in (Bus.SATA, Bus.NVME, Bus.IDE):
        return Place(disk.bus, None, "as it was")
    safe = safe_on_esxi(machine.guest_os)[0]
    bus = OF_NAME.get(safe, Bus.SCSI)
    return Place(bus, safe if bus is Bus.SCSI else None, "what such a guest surely has a driver for")


def _on_kvm(machine: Machine, number: int, disk: DiskSlot, model: str | None, log: Log, at: str) -> DiskSlot:
    """An LSI SAS controller finds a disk by its address: each gets one, the same in each translation."""
    persistent = disk.mode in (DiskMode.PERSISTENT, DiskMode.UNDOABLE)
    mode = log.change(f"{at}.mode", disk.mode, None, "writes stay, as usual") if persistent else disk.mode
    disk = replace(disk, mode=mode,
                   change_tracking=disk.change_tracking or None, shares=None if disk.shares == USUAL_SHARES else disk.shares)
    if disk.bus is Bus.SCSI and disk.wwn is None and model == "lsisas1068":
        seed = f"{machine.uuid}/{machine.name}/{number}".encode("utf-8", "surrogatepass")
        return replace(disk, wwn=f"5525400{hashlib.blake2b(seed, digest_size=5).hexdigest()[:9]}")
    return disk


def _boot_order(machine: Machine, was: Sequence[int], log: Log) -> Machine:
    """libvirt takes an order of kinds, or of single devices, not both: that of the devices is more exact.

    VMware counts disks and cards apart; libvirt wants each place in the order once: disks, then drives, then cards.
    ``was``: the numbers that the disks had before, for the notes.
    """
    said = [*((disk.boot_order, "disks", index) for index, disk in enumerate(machine.disks)),
            *((drive.boot_order, "drives", index) for index, drive in enumerate(machine.drives)),
            *((nic.boot_order, "nics", index) for index, nic in enumerate(machine.nics))]
    ordered = sorted((one for one in said if one[0] is not None), key=lambda one: one[0] or 0)
    if machine.boot and not ordered:
        return machine
    places = {(row, index): place for place, (_, row, index) in enumerate(ordered, 1)} or {("disks", 0): 1}

    def place(before: int | None, row: str, index: int) -> int | None:
        number = was[index] if row == "disks" else index
        return log.change(f"{row}[{number}].boot_order", before, places.get((row, index)), "each place in the order once")

    return replace(
        machine, boot=log.change("boot", machine.boot, (), "each device has its own place in the order"),
        disks=tuple(replace(disk, boot_order=place(disk.boot_order, "disks", index)) for index, disk in enumerate(machine.disks)),
        drives=tuple(replace(drive, boot_order=place(drive.boot_order, "drives", index))
                     for index, drive in enumerate(machine.drives)),
        nics=tuple(replace(nic, boot_order=place(nic.boot_order, "nics", index)) for index, nic in enumerate(machine.nics)))


def _connected(drive: Drive, wishes: Wishes, log: Log, at: str) -> bool | None:
    """libvirt's drives are always connected, empty or not."""
    if wishes.to is World.ESXI:
        return drive.connected
    return log.change(f"{at}.connected", drive.connected, None, "a drive is there, with its image or empty")


def _drives(machine: Machine, wishes: Wishes, log: Log, slots: Slots, bus: Bus) -> Iterator[Drive]:
    """CD-ROMs on IDE or SATA; of the floppy drives those with an image that is there."""
    files = paths.Files(wishes, log)
    floppies = 0
    for number, drive in enumerate(machine.drives):
        at = f"drives[{number}]"
        filled = files.drive(drive, at)
        if drive.floppy:
            if filled.backing is Backing.EMPTY:
                log.change(at, "floppy", None, "an empty drive")
                continue
            yield replace(filled, bus=Bus.FLOPPY, controller=0, unit=floppies, connected=_connected(drive, wishes, log, at))
            floppies += 1
            continue
        free = next(((one, place) for one in (bus, Bus.SATA) if (place := slots.take(one))), None)
        if free is None:
            log.lost(at, drive.path or "CD-ROM", f"{bus.value.upper()} is full", "add a drive by hand")
            continue
        on, (controller, unit) = free
        for name in ("bus", "controller", "unit"):
            log.change(f"{at}.{name}", f"{drive.bus}:{drive.controller}:{drive.unit}", f"{on}:{controller}:{unit}",
                       "CD-ROMs are on SATA, or IDE for old guests")
        yield replace(filled, bus=on, controller=controller, unit=unit, connected=_connected(drive, wishes, log, at))
