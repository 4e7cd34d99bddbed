"""Changes a Machine into an OVF that is there, and leaves what it does not know as it is: sections, settings, comments, order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from imgtool.descriptions.ovf import words, xml
from imgtool.descriptions.ovf.devices import is_controller, is_disk, numbered
from imgtool.descriptions.ovf.elements import (
    annotation_section,
    boot_section,
    guest_os_section,
    item,
    network,
    network_section,
    setting,
    settings,
)
from imgtool.descriptions.ovf.hardware import Device, Key, devices, network_name
from imgtool.descriptions.ovf.item import ITEMS, Item, Notes
from imgtool.descriptions.ovf.read import configured, only_system, parse
from imgtool.descriptions.ovf.units import number
from imgtool.model.devices import Backing, DiskSlot, Drive
from imgtool.model.machine import Machine

FOR_PEOPLE = ("ElementName", "Description")
"""Changes of these change no device."""
ON_FILES = ("disk", "drive")
"""Devices whose HostResource is the business of ``_back_disk`` and ``_back_drive``."""


@dataclass(frozen=True)
class Sheet:
    """The OVF that is changed: its parts, what it says, what it shall say."""

    root: etree._Element
    system: etree._Element
    hardware: etree._Element
    old: Machine
    new: Machine


def kept(machine: Machine, onto: bytes) -> bytes:
    """``onto`` with the machine in it; the very same bytes if it says the same. Raises DamagedError, RefusedError."""
    old = parse(onto).machine
    if old == machine:
        return onto
    root = xml.read(onto)
    system = only_system(root)
    hardware = xml.section(system, "VirtualHardwareSection")
    assert hardware is not None  # noqa: S101 - parse has looked
    sheet = Sheet(root, system, hardware, old, machine)
    _names(sheet)
    _settings(sheet)
    _networks(sheet)
    _devices(sheet)
    return xml.rewrite(root, onto)


def without_secrets(text: bytes) -> bytes:
    """The OVF without the passwords of screens that VMware and VirtualBox leave in it, and comments that speak of them, else
    unchanged. Raises DamagedError."""
    root = xml.read(text)
    secret = [one for one in root.iter("*") for element, name in words.SECRET_NAMES
              if xml.local(one) == element and (xml.attribute(one, name) or "").lower() in words.SECRETS]
    secret += [one for one in root.iter(etree.Comment) if any(word in str(one.text).lower() for word in words.SECRETS)]
    for one in secret:
        _remove(one)
    return xml.rewrite(root, text) if secret else text


def _names(sheet: Sheet) -> None:
    old, new = sheet.old, sheet.new
    if old.name != new.name:
        name = xml.child(sheet.system, "Name")
        if name is None:
            name = xml.make(xml.OVF, "Name")
            _insert(sheet.system, name, behind="Info")
        name.text = xml.fit(new.name)
    if old.description != new.description:
        _replace(sheet, "AnnotationSection", annotation_section(new.description))
    if old.boot != new.boot:
        _replace(sheet, "BootOrderSection", boot_section(new.boot))
    if old.guest_os != new.guest_os:
        _replace(sheet, "OperatingSystemSection", guest_os_section(new.guest_os, new.hardware_version))
    if old.hardware_version != new.hardware_version and (system := xml.child(sheet.hardware, "System")) is not None:
        version = None if new.hardware_version is None else f"vmx-{new.hardware_version:02}"
        _set(system, "VirtualSystemType", version, xml.VSSD)


def _replace(sheet: Sheet, name: str, fresh: etree._Element | None) -> None:
    """One section of the machine for another; a new one goes to the end."""
    before = xml.section(sheet.system, name)
    if before is not None and fresh is not None:
        fresh.tail = before.tail
        sheet.system.replace(before, fresh)
    elif before is not None:
        _remove(before)
    elif fresh is not None:
        _append(sheet.system, fresh)


def _append(parent: etree._Element, fresh: etree._Element, *, after: etree._Element | None = None) -> None:
    """Behind ``after``, or at the end; indented as what is there."""
    place = after if after is not None else (parent[-1] if len(parent) else None)
    if place is None:
        parent.append(fresh)
        return
    fresh.tail, place.tail = place.tail, _between(parent, place)
    parent.insert(parent.index(place) + 1, fresh)


def _insert(parent: etree._Element, fresh: etree._Element, *, behind: str) -> None:
    """Behind the child of this name, which the schema has first, or in its place."""
    first = xml.child(parent, behind)
    parent.insert(0 if first is None else parent.index(first) + 1, fresh)


def _between(parent: etree._Element, place: etree._Element) -> str | None:
    """White space between two children."""
    return parent.text if parent.index(place) == len(parent) - 1 else place.tail


def _remove(element: etree._Element) -> None:
    """An element without the comments behind it."""
    parent, before = element.getparent(), element.getprevious()
    assert parent is not None  # noqa: S101 - the envelope is never removed
    if before is not None:
        before.tail = element.tail
    else:
        parent.text = element.tail
    parent.remove(element)


def _set(parent: etree._Element, name: str, value: str | None, namespace: str) -> None:
    """The text of a child, which is added in alphabetical order, or removed."""
    found = next((one for one in parent if xml.local(one).lower() == name.lower()), None)
    if value is None:
        if found is not None:
            _remove(found)
    elif found is not None:
        found.text = xml.fit(value)
    else:
        fresh = xml.make(namespace, name, text=value)
        before = [one for one in parent if xml.local(one) and xml.local(one) < name and xml.local(one) != "Config"]
        if before:
            _append(parent, fresh, after=before[-1])
        else:
            fresh.tail = parent.text
            parent.insert(0, fresh)


def _settings(sheet: Sheet) -> None:
    before, after = settings(sheet.old), settings(sheet.new)
    _configure(sheet.hardware, {key: value for key, value in after.items() if value != before[key]})


def _configure(parent: etree._Element, changes: dict[str, str | None]) -> None:
    """``vmw:Config`` by key; None removes it."""
    for key, value in changes.items():
        there = (one for one in xml.children(parent, "Config") if str(xml.attribute(one, "key")).lower() == key.lower())
        found = next(there, None)
        if found is None and value is not None:
            _append(parent, setting(key, value))
        elif found is not None and value is None:
            _remove(found)
        elif found is not None and value is not None:
            found.set(next(str(name) for name in found.keys() if str(name).endswith("value")), xml.fit(value))  # noqa: SIM118


def _networks(sheet: Sheet) -> None:
    section = xml.section(sheet.root, "NetworkSection")
    before, after = ([network_name(nic.network) for nic in machine.nics] for machine in (sheet.old, sheet.new))
    listed = {} if section is None else {xml.attribute(one, "name"): one for one in xml.children(section, "Network")}
    wanted = [name for name in dict.fromkeys(after) if name and name not in listed]
    if section is None and wanted:
        holder = next(one for one in sheet.root if one is sheet.system or sheet.system in one.iterdescendants())
        sheet.root.insert(sheet.root.index(holder), network_section(wanted))
    elif section is not None:
        for name in wanted:
            _append(section, network(name))
    for gone in set(before) - set(after):
        if gone in listed:
            _remove(listed[gone])


def _keyed(items: list[Item], machine: Machine) -> Iterator[tuple[Key, Item]]:
    """Which Item stands for which device of the machine that was read from them."""
    keys: dict[int, Iterator[Key]] = {
        words.CPU: iter([("cpu",)]), words.MEMORY: iter([("memory",)]),
        words.DISK: iter([("disk", one.bus, one.controller, one.unit) for one in machine.disks]),
        words.CD: iter([("drive", one.bus, one.controller, one.unit) for one in machine.drives]),
        words.USB: iter([("usb", count) for count in range(len(machine.usb))]),
        words.VIDEO: iter([("video", count) for count in range(len(machine.videos))]),
        words.SOUND: iter([("sound", count) for count in range(len(machine.sounds))]),
        words.SERIAL: iter([("Serial port", one.number) for one in machine.serials]),
        words.PARALLEL: iter([("Parallel port", one.number) for one in machine.parallels]),
        words.SCSI: iter([("controller", one.bus, one.number) for one in machine.controllers])}
    for item_ in items:
        kind = words.CD if item_.type in (words.CD, words.DVD, words.FLOPPY) else item_.type
        kind = words.SCSI if is_controller(item_) else words.DISK if is_disk(item_) else kind
        key = ("tpm",) if item_.subtype == words.VTPM else next(keys[kind], None) if kind in keys else None
        if key is not None:
            yield key, item_
    yield from ((("nic", count), one) for count, one in numbered([one for one in items if one.type == words.NIC]))


def _devices(sheet: Sheet) -> None:
    items = configured(sheet.root, sheet.hardware, Notes())
    there = dict(_keyed(items, sheet.old))
    before = {one.key: one for one in devices(sheet.old)}
    after = {one.key: one for one in devices(sheet.new)}
    disks = {("disk", one.bus, one.controller, one.unit): one for one in sheet.new.disks}
    drives = {("drive", one.bus, one.controller, one.unit): one for one in sheet.new.drives}
    for key in before.keys() - after.keys():
        if key in there:
            _forget_disk(sheet, there[key])
            _remove(there[key].element)
    ids = {key: one.get("instanceid") or "" for key, one in there.items() if key in after}
    free = 1 + max((number(one.get("instanceid")) or 0 for one in items), default=0)
    for key, device in after.items():
        if key in ids:
            _change(there[key], before[key], device)
            element = there[key].element
        else:
            ids[key], free = str(free), free + 1
            element = item(device, ids[key], ids.get(device.parent or ()))
            before_it = [*xml.children(sheet.hardware, "Info", "System", *ITEMS)]
            _append(sheet.hardware, element, after=before_it[-1] if before_it else None)
        if key in disks:
            _back_disk(sheet, element, disks[key], known=key in before)
        elif key in drives:
            _back_drive(sheet, element, drives[key], known=key in before)


def _change(there: Item, before: Device, after: Device) -> None:
    others = (*FOR_PEOPLE, "HostResource") if after.key[0] in ON_FILES else FOR_PEOPLE
    for name in {**before.values, **after.values}:
        if before.values.get(name) != after.values.get(name) and name not in others:
            prefix, _, plain = name.rpartition(":")
            _set(there.element, plain, after.values.get(name), xml.VMW if prefix else xml.RASD)
    _configure(there.element, {key: value for key, value in after.config.items() if value != before.config.get(key)})


def _file_of(sheet: Sheet, reference: str | None) -> etree._Element | None:
    return next((one for listed in xml.children(sheet.root, "References") for one in xml.children(listed, "File")
                 if reference and xml.attribute(one, "id") == reference), None)


def _disk_of(sheet: Sheet, element: etree._Element) -> etree._Element | None:
    """The ``<Disk>`` that an Item names."""
    wanted = (xml.word(xml.child(element, "HostResource")) or "").rpartition("/")[2]
    return next((one for section in xml.sections(sheet.root, "DiskSection") for one in xml.children(section, "Disk")
                 if xml.attribute(one, "diskId") == wanted), None)


def _forget_disk(sheet: Sheet, gone: Item) -> None:
    disk = _disk_of(sheet, gone.element) if is_disk(gone) else None
    if disk is not None:
        file = _file_of(sheet, xml.attribute(disk, "fileRef"))
        for element in (disk, *(() if file is None else (file,))):
            _remove(element)


def _back_disk(sheet: Sheet, element: etree._Element, slot: DiskSlot, *, known: bool) -> None:
    """What stands behind a disk: its ``<Disk>`` and ``<File>``, changed where they say something else."""
    same = [one for one in sheet.old.disks if (one.bus, one.controller, one.unit) == (slot.bus, slot.controller, slot.unit)]
    if known and same == [slot]:
        return
    disk = _disk_of(sheet, element) if known else None
    section = xml.section(sheet.root, "DiskSection")
    if section is None:
        section = xml.make(xml.OVF, "DiskSection")
        _insert(sheet.root, section, behind="References")
    if disk is None:
        disk = xml.make(xml.OVF, "Disk", diskId=_free_id(sheet.root, "vmdisk"))
        _append(section, disk)
        _set(element, "HostResource", f"ovf:/disk/{xml.attribute(disk, 'diskId')}", xml.RASD)
    reference = None if slot.backing == Backing.EMPTY else _back_file(sheet, xml.attribute(disk, "fileRef"), slot.path)
    for name, value in (("fileRef", reference), ("format", words.FORMATS.get(slot.format or "")),
                        ("capacityAllocationUnits", None),
                        ("capacity", _text(slot.capacity)), ("populatedSize", _text(slot.populated))):
        _put(disk, name, value)


def _back_drive(sheet: Sheet, element: etree._Element, drive: Drive, *, known: bool) -> None:
    same = [one for one in sheet.old.drives if (one.bus, one.controller, one.unit) == (drive.bus, drive.controller, drive.unit)]
    if known and same and (same[0].path, same[0].backing) == (drive.path, drive.backing):
        return
    value = drive.path
    if drive.backing == Backing.FILE and drive.path:
        value = f"ovf:/file/{_back_file(sheet, None, drive.path)}"
    _set(element, "HostResource", value, xml.RASD)


def _back_file(sheet: Sheet, reference: str | None, path: str) -> str:
    """The id of the ``<File>`` with this name; of another name it loses size and packing."""
    file = _file_of(sheet, reference)
    if file is None:
        listed = xml.child(sheet.root, "References")
        if listed is None:
            listed = xml.make(xml.OVF, "References")
            sheet.root.insert(0, listed)
        file = xml.make(xml.OVF, "File", id=_free_id(sheet.root, "file"))
        _append(listed, file)
    if xml.attribute(file, "href") != path:
        for name, value in (("href", path), ("size", None), ("compression", None), ("chunkSize", None)):
            _put(file, name, value)
    return xml.attribute(file, "id") or ""


def _free_id(root: etree._Element, stem: str) -> str:
    taken = {value for one in root.iter() if xml.local(one) in ("File", "Disk") for value in map(str, one.values())}
    return next(name for name in (f"{stem}{count}" for count in range(1, len(taken) + 2)) if name not in taken)


def _put(element: etree._Element, name: str, value: str | None) -> None:
    """An attribute, in whatever namespace it stands; None removes it."""
    key = next((str(one) for one in element.keys() if str(one).rpartition("}")[2] == name), f"{{{xml.OVF}}}{name}")  # noqa: SIM118
    if value is not None:
        element.set(key, xml.fit(value))
    elif key in element.keys():  # noqa: SIM118
        del element.attrib[key]


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
