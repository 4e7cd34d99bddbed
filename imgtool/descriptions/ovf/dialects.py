"""What VirtualBox and oVirt say in elements of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID

from lxml import etree

from imgtool.descriptions.guest_os import AARCH64, I686, X86_64, from_vmware
from imgtool.descriptions.ovf import xml
from imgtool.descriptions.ovf.devices import mac_address
from imgtool.descriptions.ovf.item import Notes, read_item
from imgtool.model.devices import Graphics, Nic, Video
from imgtool.model.machine import Clock, Firmware, FirmwareKind, GuestOs, Machine

BOX_SYSTEMS = {
    "windowsxp": "winXPPro", "windows2003": "winNetEnterprise", "windowsvista": "winVista", "windows2008": "winLonghorn",
    "windows7": "windows7", "windows8": "windows8", "windows81": "windows8", "windows10": "windows9",
    "windows11": "windows11", "windows2012": "windows8srv", "windows2016": "windows9srv", "windows2019": "windows2019srv",
    "windows2022": "windows2019srvNext", "windows2025": "windows2022srvNext", "redhat": "rhel7", "redhat6": "rhel6",
    "redhat7": "rhel7", "redhat8": "rhel8", "redhat9": "rhel9", "oracle": "oraclelinux7", "oracle8": "oraclelinux8",
    "oracle9": "oraclelinux9", "debian": "debian10", "ubuntu": "ubuntu", "fedora": "fedora", "opensuse": "opensuse",
    "suse_le": "sles12", "linux26": "other26xlinux", "linux24": "other24xlinux", "linux": "otherlinux",
    "archlinux": "other5xlinux", "gentoo": "other5xlinux", "freebsd": "freebsd", "solaris": "solaris10",
    "solaris11": "solaris11", "other": "other", "dos": "dos"}
"""VirtualBox' names in lower case, without _64 and _arm64 → the word of a .vmx. Releases (``Debian12``) are tried as they are."""
OVIRT_KINDS = {
    **{f"rhel_{major}x64": GuestOs(id=f"rhel{major}") for major in (6, 7, 8, 9)}, "rhel_6": GuestOs(id="rhel6", arch="i686"),
    "debian_7": GuestOs(id="debian7"), "debian_9": GuestOs(id="debian9"), "other_linux": GuestOs(id="linux"),
    **{f"windows_{year}x64": GuestOs(id=f"windows{year}") for year in (2012, 2016, 2019, 2022)},
    "windows_10x64": GuestOs(id="windows10"), "windows_11": GuestOs(id="windows11"), "windows_7x64": GuestOs(id="windows7"),
    "windows_2008r2x64": GuestOs(id="windows2008r2"), "windows_2012r2x64": GuestOs(id="windows2012r2"), "other": GuestOs()}
"""oVirt's names of systems, in lower case."""
OVIRT_BIOS = {"1": ("i440fx", FirmwareKind.BIOS, None), "2": ("q35", FirmwareKind.BIOS, None),
              "3": ("q35", FirmwareKind.UEFI, None),
              "4": ("q35", FirmwareKind.UEFI, True)}
"""BiosType: chipset, firmware, secure boot."""
BOX_CHIPSETS = {"ich9": "q35", "piix3": "i440fx"}
BOX_BOOT = {"HardDisk": "disk", "DVD": "cdrom", "Network": "network", "Floppy": "floppy"}
BOX_NICS = {"am79c970a": "pcnet", "am79c973": "pcnet", "82540em": "e1000", "82543gc": "e1000", "82545em": "e1000",
            "virtio": "virtio"}
MIB = 1 << 20


def virtualbox_os(word: str) -> GuestOs:
    """``Debian_64`` → our own words; what is not known stays as its word."""
    name = word.lower()
    arch = AARCH64 if name.endswith("_arm64") else X86_64 if name.endswith("_64") else I686
    name = name.removesuffix("_arm64").removesuffix("_64")
    plain = BOX_SYSTEMS.get(name) or BOX_SYSTEMS.get(re.sub(r"\d+(_lts)?$", "", name))
    if plain is None:
        return GuestOs(word=word, arch=arch)
    known, usual = (from_vmware("arm-" * (arch == AARCH64) + one + "-64" * (arch != I686)) for one in (name, plain))
    return known if known.word is None else usual


def virtualbox(system: etree._Element, machine: Machine, notes: Notes) -> Machine:
    """``<vbox:Machine>``: what the standard part of the OVF does not say."""
    box = xml.child(system, "Machine")
    hardware = xml.child(box, "Hardware")
    if box is None or hardware is None:
        return machine
    efi = (xml.attribute(xml.child(hardware, "Firmware"), "type") or "").upper().startswith("EFI")
    boot = _box_boot(xml.child(hardware, "Boot"))
    chipset = BOX_CHIPSETS.get((xml.attribute(xml.child(hardware, "Chipset"), "type") or "").lower())
    clock = {"utc": "utc", "local": "localtime"}.get((xml.attribute(xml.child(hardware, "RTC"), "localOrUTC") or "").lower())
    memory = xml.attribute(xml.child(hardware, "Display"), "VRAMSize") or ""
    notes.read("uuid", box, xml.attribute(box, "uuid"))
    return replace(
        machine, uuid=_uuid(xml.attribute(box, "uuid")), firmware=Firmware(kind=FirmwareKind.UEFI) if efi else machine.firmware,
        boot=boot or machine.boot, chipset=chipset, clock=Clock(offset=clock), nics=_box_nics(hardware, machine.nics),
        videos=machine.videos or ((Video(memory=int(memory) * MIB),) if memory.isdecimal() and len(memory) < 6 else ()))


def _box_boot(section: etree._Element | None) -> tuple[str, ...]:
    orders = [] if section is None else sorted(xml.children(section, "Order"),
                                               key=lambda one: xml.attribute(one, "position") or "")
    devices = [xml.attribute(one, "device") or "" for one in orders]
    return tuple(dict.fromkeys(BOX_BOOT[device] for device in devices if device in BOX_BOOT))


def _box_nics(hardware: etree._Element, nics: tuple[Nic, ...]) -> tuple[Nic, ...]:
    """MACs and models of the adapters that are on, where there are as many as Items."""
    listed = xml.child(hardware, "Network")
    every = [] if listed is None else list(xml.children(listed, "Adapter"))
    adapters = [one for one in every if xml.attribute(one, "enabled") == "true"]
    if len(adapters) != len(nics):
        return nics
    return tuple(replace(nic, mac=nic.mac or mac_address(xml.attribute(one, "MACAddress")),
                         model=nic.model or BOX_NICS.get((xml.attribute(one, "type") or "").lower()))
                 for nic, one in zip(nics, adapters, strict=True))


def _uuid(text: str | None) -> str | None:
    try:
        return str(UUID(text)) if text and len(text) <= 45 else None
    except ValueError:
        return None


OVIRT_READ = ("disk", "interface", "controller", "graphics", "video", "balloon", "rng")
"""Values of ``<Type>`` that are read, here or as a device of the standard; controllers are made anew at the target."""


def ovirt(system: etree._Element, items: list[etree._Element], machine: Machine, notes: Notes) -> Machine:
    """oVirt and RHV: ``BiosType``, the id of the machine, and devices that say what they are by ``<Type>``."""
    bios = OVIRT_BIOS.get(xml.word(xml.child(system, "BiosType")) or "")
    installed = xml.section(system, "OperatingSystemSection")
    if bios is None and xml.local(system) != "Content":
        return machine
    chipset, kind, secure = bios or (None, machine.firmware.kind, None)
    described = xml.text(xml.child(system, "Description"))
    graphics = tuple(Graphics(kind=device) for item in items if (device := _ovirt_device(item, "graphics")) in ("spice", "vnc"))
    videos = tuple(Video(model=device) for item in items if (device := _ovirt_device(item, "video")))
    _others(items, notes)
    notes.read("uuid", installed, xml.attribute(installed, "id"))
    return replace(machine, uuid=machine.uuid or _uuid(xml.attribute(installed, "id")), chipset=chipset, graphics=graphics,
                   description=machine.description or described, videos=machine.videos or videos,
                   firmware=Firmware(kind=kind, secure_boot=secure),
                   balloon="virtio" if any(_ovirt_device(item, "balloon") for item in items) else None,
                   rng="/dev/urandom" if any(_ovirt_device(item, "rng") for item in items) else None)


def _others(items: list[etree._Element], notes: Notes) -> None:
    """A problem for each device that nobody reads: watchdogs, channels, sound, …"""
    for item in items:
        values = read_item(item).values
        if values.get("type", OVIRT_READ[0]) not in OVIRT_READ:
            notes.problem(f"{values['type']} {values.get('device', '')}".strip() + ": a device of oVirt's own; not carried over",
                          "add one at the target, where the guest needs it")


def _ovirt_device(item: etree._Element, kind: str) -> str | None:
    """``<Device>`` of an Item with this ``<Type>``."""
    values = read_item(item).values
    return values.get("device") if values.get("type") == kind else None
