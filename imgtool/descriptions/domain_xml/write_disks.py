"""Hard disks, drives and controllers, as elements."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from imgtool.descriptions.domain_xml.elements import add
from imgtool.descriptions.domain_xml.words import ADDRESSED, BY_TARGET, CHANNELS, NAMED, SCSI, back, device_name
from imgtool.model.devices import Backing, Bus, Controller, DiskMode, DiskSlot, Drive
from imgtool.model.machine import Machine
from imgtool.model.problem import Problem

CONTROLLERS = (Bus.SCSI, Bus.SATA, Bus.IDE)
RANK = list(Bus)
"""Names of disks are given in this order of their buses."""
URL = re.compile(r"([a-z]+)://(?:\[([^\]/]*)\]|([^/\[\]:]*))(?::(\d+))?/(.*)", re.DOTALL)
COMPANIONS = (("ich9-uhci1", 0), ("ich9-uhci2", 2), ("ich9-uhci3", 4))
"""Of an EHCI controller, for slow devices; and the port that each begins at."""
USB = {"uhci": "piix3-uhci", "ehci": "ich9-ehci1", "xhci": "qemu-xhci"}

Slot = DiskSlot | Drive


def controllers(devices: etree._Element, machine: Machine) -> None:
    """Those of disks, and of USB."""
    for one in machine.controllers:
        if one.bus in CONTROLLERS:
            add(devices, "controller", type=one.bus.value, index=one.number, model=_model(one))
    for index, kind in enumerate(machine.usb):
        add(devices, "controller", type="usb", index=index, model=USB.get(kind, kind))
        for model, port in COMPANIONS if kind == "ehci" else ():
            companion = add(devices, "controller", type="usb", index=index, model=model)
            add(companion, "master", startport=port)


def _model(one: Controller) -> str | None:
    return back(SCSI, one.model) if one.model and one.bus is not Bus.SATA else None


def disks(devices: etree._Element, machine: Machine) -> Iterator[Problem]:
    """Hard disks, then drives. A problem for each that cannot be written."""
    slots: list[tuple[str, Slot]] = [(f"disks[{number}]", one) for number, one in enumerate(machine.disks)]
    slots += [(f"drives[{number}]", one) for number, one in enumerate(machine.drives)]
    names = _names([one for _, one in slots])
    taken: set[tuple[Bus, int, int]] = set()
    for where, one in slots:
        if isinstance(one, DiskSlot) and one.backing is Backing.EMPTY:
            yield Problem(what=f"{where}: not written, it has no file", hint="make one (`qemu-img create`), and attach it")
            continue
        place = one.bus, one.controller, one.unit
        if why := _impossible(one) or (place in taken and "another one is plugged in there") or None:
            yield Problem(what=f"{where} on {one.bus.value}{one.controller}:{one.unit}: not written, {why}",
                          hint="choose another place for it", fatal=True)
            continue
        taken.add(place)
        if isinstance(one, DiskSlot):
            yield from _disk(devices, one, names[place], where, machine)
        else:
            yield from _drive(devices, one, names[place], where, machine)


def _impossible(one: Slot) -> str | None:
    if one.bus not in NAMED:
        return "QEMU's driver of libvirt 9 has no such bus"
    if one.bus not in ADDRESSED and one.controller:
        return "this bus has one controller only"
    url = one.path or ""
    if one.backing is Backing.NETWORK and not URL.fullmatch(url):
        return f"{url[:80]!r} is no URL of the form protocol://host/name"
    if one.backing is Backing.VOLUME and "/" not in url:
        return f"{url[:80]!r} is not of the form pool/volume"
    return None


def _names(slots: list[Slot]) -> dict[tuple[Bus, int, int], str]:
    """``target/@dev`` of each place. Where an address says the place, names count on; elsewhere the name is the place."""
    names: dict[tuple[Bus, int, int], str] = {}
    count = 0
    for bus, controller, unit in sorted({(one.bus, one.controller, one.unit) for one in slots if one.bus in NAMED},
                                        key=lambda place: (RANK.index(place[0]), *place[1:])):
        if NAMED[bus] == "sd":
            names[bus, controller, unit] = device_name("sd", count)
            count += 1
        else:
            index = controller * CHANNELS + unit if bus is Bus.IDE else unit
            names[bus, controller, unit] = device_name(NAMED[bus], index)
    return names


def _disk(devices: etree._Element, one: DiskSlot, name: str, where: str, machine: Machine) -> Iterator[Problem]:
    device = "lun" if one.rdm == "physical" and one.backing in (Backing.BLOCK, Backing.NETWORK) else "disk"
    element = add(devices, "disk", type=one.backing.value, device=device,
                  snapshot="no" if one.mode is DiskMode.INDEPENDENT else None)
    add(element, "driver", name="qemu", type=one.format or "raw", cache=one.cache, discard=one.discard)
    if one.format is None:
        yield Problem(what=f"{where}.format is not said: written as raw", hint="see `imgtool info`, and say it")
    if one.mode is DiskMode.UNDOABLE:
        yield Problem(what=f"{where}.mode = {one.mode}: a domain XML has no place for it", hint="take a snapshot instead")
    if one.rdm and device == "disk":
        yield Problem(what=f"{where}.rdm = {one.rdm}: written as a plain disk", hint="the guest's SCSI commands end at QEMU")
    _source(element, one)
    add(element, "target", dev=name, bus=one.bus.value)
    if one.io_limit:
        add(add(element, "iotune"), "total_iops_sec", one.io_limit)
    for flag, tag in ((one.read_only, "readonly"), (one.shared, "shareable"), (one.mode is DiskMode.NONPERSISTENT, "transient")):
        if flag:
            add(element, tag)
    for tag, text in (("serial", one.serial), ("wwn", one.wwn)):
        if text is not None:
            add(element, tag, text)
    _place(element, one, machine)


def _drive(devices: etree._Element, one: Drive, name: str, where: str, machine: Machine) -> Iterator[Problem]:
    empty = one.backing is Backing.CLIENT or one.path is None
    if empty and one.backing is not Backing.EMPTY:
        yield Problem(what=f"{where}.backing = {one.backing}: written as an empty drive",
                      hint="put an image into it: `virsh change-media`")
    element = add(devices, "disk", type="file" if empty else one.backing.value, device="floppy" if one.floppy else "cdrom")
    add(element, "driver", name="qemu", type="raw")
    if not empty:
        _source(element, one)
    add(element, "target", dev=name, bus=one.bus.value)
    if not one.floppy:
        add(element, "readonly")
    _place(element, one, machine)


def _source(element: etree._Element, one: Slot) -> None:
    path = one.path or ""
    if one.backing is Backing.NETWORK and (url := URL.fullmatch(path)):
        source = add(element, "source", protocol=url[1], name=url[5])
        if host := url[2] or url[3]:
            add(source, "host", name=host, port=url[4])
    elif one.backing is Backing.VOLUME:
        pool, _, volume = path.partition("/")
        add(element, "source", pool=pool, volume=volume)
    else:
        add(element, "source", **{"dev" if one.backing is Backing.BLOCK else "file": path})


def _place(element: etree._Element, one: Slot, machine: Machine) -> None:
    """Boot order, and the drive's address where its bus has one."""
    if one.boot_order:
        add(element, "boot", order=one.boot_order)
    if one.bus not in ADDRESSED:
        return
    controller, channel = divmod(one.controller, CHANNELS) if one.bus is Bus.IDE else (one.controller, 0)
    models = {there.number: there.model for there in machine.controllers if there.bus is Bus.SCSI}
    target, unit = (one.unit, 0) if one.bus is Bus.SCSI and models.get(one.controller) in BY_TARGET else (0, one.unit)
    add(element, "address", type="drive", controller=controller, bus=channel, target=target, unit=unit)
