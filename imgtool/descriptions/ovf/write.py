"""Machine → an OVF 1.1 that ovftool, vSphere and VirtualBox import."""

from __future__ import annotations

from lxml import etree

from imgtool.descriptions.ovf import words, xml
from imgtool.descriptions.ovf.elements import (
    annotation_section,
    boot_section,
    guest_os_section,
    item,
    network_section,
    setting,
    settings,
    system_element,
)
from imgtool.descriptions.ovf.hardware import devices, network_name
from imgtool.descriptions.ovf.hold import problems
from imgtool.descriptions.ovf.keep import kept
from imgtool.descriptions.ovf.read import parse
from imgtool.descriptions.ovf.xml import add, make
from imgtool.model.description import Rendered
from imgtool.model.devices import Backing
from imgtool.model.machine import Machine


def render(machine: Machine, *, onto: bytes | None = None) -> Rendered:
    """``onto``: an OVF in which only what must change is changed. Raises DamagedError, RefusedError for it."""
    text = xml.write(envelope(machine)) if onto is None else kept(machine, onto)
    return Rendered(text=text, trace=parse(text).trace, problems=problems(machine))


def envelope(machine: Machine) -> etree._Element:
    """The tree. Ids: ``file1`` and ``vmdisk1`` for the first disk, ``image1`` for the file in the first drive."""
    root = make(xml.OVF, "Envelope", version="1.0")
    system = make(xml.OVF, "VirtualSystem", id=machine.name)
    add(root, _references(machine), _disk_section(machine), _network_section(machine), system)
    add(system, make(xml.OVF, "Info", text="A virtual machine"), make(xml.OVF, "Name", text=machine.name),
        guest_os_section(machine.guest_os, machine.hardware_version), hardware_section(machine),
        annotation_section(machine.description),
        boot_section(machine.boot))
    return root


def _references(machine: Machine) -> etree._Element:
    listed = make(xml.OVF, "References")
    for count, disk in enumerate(machine.disks, 1):
        if disk.backing != Backing.EMPTY:
            add(listed, make(xml.OVF, "File", href=disk.path, id=f"file{count}"))
    for count, drive in enumerate(machine.drives, 1):
        if drive.backing == Backing.FILE and drive.path:
            add(listed, make(xml.OVF, "File", href=drive.path, id=f"image{count}"))
    return listed


def _disk_section(machine: Machine) -> etree._Element:
    section = add(make(xml.OVF, "DiskSection"), make(xml.OVF, "Info", text="Virtual disks"))
    for count, disk in enumerate(machine.disks, 1):
        reference = None if disk.backing == Backing.EMPTY else f"file{count}"
        add(section, make(
            xml.OVF, "Disk", capacity=_text(disk.capacity), diskId=f"vmdisk{count}", fileRef=reference,
            format_=words.FORMATS.get(disk.format or ""),
            populatedSize=_text(disk.populated)))
    return section


def _network_section(machine: Machine) -> etree._Element | None:
    names = dict.fromkeys(name for nic in machine.nics if (name := network_name(nic.network)))
    return network_section(names) if names else None


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def hardware_section(machine: Machine) -> etree._Element:
    """Items, then the settings of the whole machine."""
    section = add(make(xml.OVF, "VirtualHardwareSection"), make(xml.OVF, "Info", text="Virtual hardware"),
                  system_element(machine))
    ids: dict[object, int] = {}
    for device in devices(machine):
        ids[device.key] = len(ids) + 1
        add(section, item(device, str(ids[device.key]), _text(ids.get(device.parent))))
    for key, value in settings(machine).items():
        if value is not None:
            add(section, setting(key, value))
    return section
