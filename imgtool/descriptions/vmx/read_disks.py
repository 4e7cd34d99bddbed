"""Controllers, disks, CD-ROM and floppy drives of a ``.vmx``."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from imgtool.descriptions.vmx.keys import DISK, DISK_SCHEDULING, DRIVE, controller_fields
from imgtool.descriptions.vmx.settings import Settings, shown
from imgtool.descriptions.vmx.values import BOOL, SAID, TEXT
from imgtool.model.devices import Backing, Bus, Controller, DiskSlot, Drive, Passthrough

ORDER = (Bus.SCSI, Bus.SATA, Bus.NVME, Bus.IDE)
"""In which the disks of a machine are listed."""
SLOT = r"(scsi|sata|nvme|ide)(\d{1,3}):(\d{1,3})"
EMPTY = "emptybackingstring"
HOST_DRIVE = re.compile(r"auto ?detect|(cd/dvd|floppy) drive \d*|/dev/.*|/vmfs/devices/cdrom/.*|[a-z]:|cdrom\d*", re.IGNORECASE)
"""What a CD-ROM's ``fileName`` is where the host's drive is meant."""
FOUND = re.compile(r"auto ?detect|(cd/dvd|floppy) drive \d*", re.IGNORECASE)
"""The host finds the drive itself."""
CDROM_TYPES = ("cdrom-image", "atapi-cdrom", "cdrom-raw")
GENERIC_SCSI = ("scsi-passthru", "scsi-passthrough")
DISK_TYPES = ("disk", "scsi-harddisk", "ata-harddisk", "sata-harddisk", "nvme-harddisk", "plaindisk", "rawdisk")
DELTA = re.compile(r"-\d{6}\.vmdk$", re.IGNORECASE)
MAPPING = {"-rdmp.vmdk": "physical", "-rdm.vmdk": "virtual"}
"""Raw device mappings, by how ESXi ends the names of their files: only the file itself is sure to tell."""


class Storage(NamedTuple):
    controllers: list[Controller]
    disks: list[DiskSlot]
    drives: list[Drive]
    passthrough: list[Passthrough]


def read_storage(settings: Settings) -> Storage:
    """All that hangs on SCSI, SATA, NVMe and IDE, and the floppy drives, in the order of ``ORDER``."""
    found = Storage([], [], [], [])
    slots = settings.numbered(SLOT)
    for bus in ORDER:
        mine = [(int(match[2]), int(match[3]), head) for match, head in slots if match[1] == bus]
        numbers = {number for number, _, _ in mine}
        if bus != Bus.IDE:
            numbers = _controllers(settings, bus, numbers, [head for _, _, head in mine], found.controllers)
        for number, unit, head in mine:
            if number in numbers:
                _slot(settings, bus, number, unit, head, found)
    _floppies(settings, found.drives)
    return found


def _controllers(settings: Settings, bus: Bus, used: set[int], slots: list[str], found: list[Controller]) -> set[int]:
    """The numbers of the controllers that are there; devices of the others are not there."""
    there: set[int] = set()
    numbers = used | {int(match[1]) for match, _ in settings.numbered(rf"{bus}(\d{{1,3}})")}
    for number in sorted(numbers):
        head = f"{bus}{number}"
        mine = [slot for slot in slots if slot.startswith(f"{head}:")]
        devices = [slot for slot in mine if settings.flag(f"{slot}.present") and settings.get(f"{slot}.fileName")]
        switch = settings.flag(f"{head}.present")
        if switch or (switch is None and devices):
            if switch is None:
                settings.odd(f"{head}.present is missing: taken as TRUE, as {devices[0]} is there")
            there.add(number)
            fields = settings.all(head, controller_fields(bus), f"controllers[{len(found)}]")
            found.append(Controller(bus=bus, number=number, **fields))
            continue
        if devices:
            settings.odd(f"{head} is off: {', '.join(devices)} is not there either",
                         hint=f"set {head}.present to TRUE if the machine needs it")
        for slot in (head, *mine):
            settings.used.update(settings.heads.get(slot, ()))
    return there


def _slot(settings: Settings, bus: Bus, number: int, unit: int, head: str, found: Storage) -> None:
    """What is plugged in at one address, if it is a thing that we know."""
    if not settings.present(head, "fileName", "deviceType"):
        return
    file = settings.get(f"{head}.fileName") or ""
    kind = (settings.get(f"{head}.deviceType") or _guess(file)).lower()
    place: dict[str, Any] = {"bus": bus, "controller": number, "unit": unit}
    if kind in GENERIC_SCSI and "/cdrom" not in file.lower():
        where = f"passthrough[{len(found.passthrough)}]"
        settings.take(f"{head}.fileName", f"{where}.address", TEXT)
        found.passthrough.append(Passthrough(kind="scsi", address=file, name=head))
    elif kind in CDROM_TYPES or kind in GENERIC_SCSI:
        where = f"drives[{len(found.drives)}]"
        found.drives.append(Drive(**place, **_cdrom(settings, head, kind, file, where)))
    elif kind in DISK_TYPES:
        if not file or file.lower() == EMPTY:
            settings.odd(f"{head} is a disk without a file: left out")
        else:
            found.disks.append(DiskSlot(**place, **_disk(settings, head, kind, f"disks[{len(found.disks)}]")))
    else:
        settings.odd(f"{head}.deviceType = {shown(kind)}: no kind of device that is known; left out")
    settings.get(f"{head}.startConnected")


def _guess(file: str) -> str:
    """What a device without a ``deviceType`` is."""
    return "cdrom-image" if file.lower().endswith(".iso") else "atapi-cdrom" if HOST_DRIVE.fullmatch(file) else "disk"


def _disk(settings: Settings, head: str, kind: str, where: str) -> dict[str, Any]:
    fields = settings.all(head, DISK, where) | settings.all(f"sched.{head}", DISK_SCHEDULING, where)
    path = fields["path"]
    if settings.flag(f"{head}.shared"):
        fields["shared"] = True
    mapped = next((how for end, how in MAPPING.items() if path.lower().endswith(end)), None)
    fields["rdm"] = "device" if kind == "rawdisk" else mapped
    if fields["rdm"]:
        settings.note(f"{where}.rdm", f"{head}.deviceType", kind)
    if DELTA.search(path):
        settings.odd(f"{head}.fileName = {shown(path)}: the newest of a chain of snapshots",
                     hint="convert this file, not its base; its parents are read with it")
    if settings.get(f"{head}.redo"):
        settings.odd(f"{head}.redo: writes are in a redo log beside the disk", hint="commit or discard it first")
    return {"format": "vmdk", **fields}


def _cdrom(settings: Settings, head: str, kind: str, file: str, where: str) -> dict[str, Any]:
    """Backing, path and the rest of a CD-ROM drive."""
    fields = settings.all(head, DRIVE, where)
    if kind == "cdrom-raw" or kind in GENERIC_SCSI:
        fields["passthrough"] = True
    if settings.take(f"{head}.clientDevice", f"{where}.backing", BOOL):
        return {**fields, "backing": Backing.CLIENT}
    if not file or file.lower() == EMPTY:
        found = kind != "cdrom-image" and bool(settings.flag(f"{head}.autodetect"))
        return {**fields, "backing": Backing.BLOCK if found else Backing.EMPTY}
    if kind == "cdrom-image":
        return {**fields, "backing": Backing.FILE, "path": settings.take(f"{head}.fileName", f"{where}.path", TEXT)}
    if FOUND.fullmatch(file) or settings.flag(f"{head}.autodetect"):
        return {**fields, "backing": Backing.BLOCK}
    return {**fields, "backing": Backing.BLOCK, "path": settings.take(f"{head}.fileName", f"{where}.path", TEXT)}


def _floppies(settings: Settings, drives: list[Drive]) -> None:
    """The first floppy drive is there unless it is switched off, the others only if they are switched on."""
    for unit in range(4):
        head = f"floppy{unit}"
        there = settings.flag(f"{head}.present")
        if not (there if there is not None else unit == 0):
            settings.used.update(settings.heads.get(head, ()))
            continue
        where = f"drives[{len(drives)}]"
        fields = settings.all(head, DRIVE, where)
        kind = (settings.get(f"{head}.fileType") or "device").lower()
        file = settings.take(f"{head}.fileName", f"{where}.path", SAID)
        backing = Backing.FILE if kind == "file" else Backing.BLOCK
        if settings.flag(f"{head}.clientDevice"):
            backing, file = Backing.CLIENT, None
        elif (backing is Backing.FILE and not file) or (file or "").lower() == EMPTY:
            backing, file = Backing.EMPTY, None
        elif backing is Backing.BLOCK and file and FOUND.fullmatch(file):
            file = None
        drives.append(Drive(floppy=True, bus=Bus.FLOPPY, unit=unit, backing=backing, path=file, **fields))
