"""Parts of an OVF that stand for themselves: written into a new one, and into one that is kept."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from imgtool.descriptions.guest_os import to_cim, to_vmware, to_vmware_api
from imgtool.descriptions.ovf import words, xml
from imgtool.descriptions.ovf.hardware import Device
from imgtool.descriptions.ovf.xml import add, make
from imgtool.model.machine import FirmwareKind, GuestOs, Machine


def guest_os_section(os: GuestOs, hardware: int | None) -> etree._Element:
    """The DMTF's number and VMware's word."""
    word = to_vmware(os, hardware) if os.word else to_vmware_api(os, hardware)
    section = make(xml.OVF, "OperatingSystemSection", id=str(to_cim(os)), version=os.release, vmw_osType=word)
    return add(section, make(xml.OVF, "Info", text="The operating system"))


def network_section(names: Iterable[str]) -> etree._Element:
    """The networks that the machine is connected to."""
    section = add(make(xml.OVF, "NetworkSection"), make(xml.OVF, "Info", text="The networks that the machine is connected to"))
    for name in names:
        add(section, network(name))
    return section


def network(name: str) -> etree._Element:
    """One of them."""
    return add(make(xml.OVF, "Network", name=name), make(xml.OVF, "Description", text=f"The network {name}"))


def annotation_section(text: str | None) -> etree._Element | None:
    """What people wrote about the machine."""
    if text is None:
        return None
    section = make(xml.OVF, "AnnotationSection")
    return add(section, make(xml.OVF, "Info", text="About this machine"), make(xml.OVF, "Annotation", text=text))


def boot_section(order: tuple[str, ...]) -> etree._Element | None:
    """VMware's own."""
    if not order:
        return None
    section = make(xml.VMW, "BootOrderSection", required="false", vmw_type=" ".join(words.BOOT_WORDS[kind] for kind in order))
    return add(section, make(xml.OVF, "Info", text="The order in which devices are tried"))


def system_element(machine: Machine) -> etree._Element:
    """``<System>``: which generation of virtual hardware."""
    system = make(xml.OVF, "System")
    version = None if machine.hardware_version is None else f"vmx-{machine.hardware_version:02}"
    for name, value in (("ElementName", "Virtual Hardware Family"), ("InstanceID", "0"),
                        ("VirtualSystemIdentifier", machine.name),
                        ("VirtualSystemType", version)):
        if value is not None:
            add(system, make(xml.VSSD, name, text=value))
    return system


def item(device: Device, instance: str, parent: str | None) -> etree._Element:
    """OVF 1 wants the settings in alphabetical order, then those of others."""
    values = {**device.values, "InstanceID": instance, "Parent": parent}
    element = make(xml.OVF, "Item")
    for name in sorted(values, key=lambda name: (":" in name, name)):
        if (value := values[name]) is not None:
            prefix, _, plain = name.rpartition(":")
            add(element, make(xml.VMW if prefix else xml.RASD, plain, text=value, required="false" if prefix else None))
    for key, setting_value in device.config.items():
        if setting_value is not None:
            add(element, setting(key, setting_value))
    return element


def setting(key: str, value: str) -> etree._Element:
    """``<vmw:Config>``: who does not know it may leave it out."""
    return make(xml.VMW, "Config", required="false", vmw_key=key, vmw_value=value)


def settings(machine: Machine) -> dict[str, str | None]:
    """``vmw:Config`` of the whole machine; None: not said."""
    def flag(value: bool | None) -> str | None:
        return None if value is None else str(value).lower()

    scripts = {key: "true" if ours in machine.tools.scripts else None for key, ours in words.SCRIPTS.items()}
    return {
        "cpuHotAddEnabled": flag(machine.cpu.hot_add), "cpuHotRemoveEnabled": flag(machine.cpu.hot_remove),
        "memoryHotAddEnabled": flag(machine.memory.hot_add), "nestedHVEnabled": flag(machine.cpu.nested),
        words.FIRMWARE: "efi" if machine.firmware.kind == FirmwareKind.UEFI else "bios",
        words.SECURE_BOOT: flag(machine.firmware.secure_boot), "tools.syncTimeWithHost": flag(machine.tools.sync_time),
        "tools.toolsUpgradePolicy": machine.tools.upgrade, **scripts}
