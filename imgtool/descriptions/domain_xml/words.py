"""libvirt's words for hardware, and ours. Sources: libvirt's ``formatdomain`` and its schemas, QEMU's device names."""

from __future__ import annotations

import re
from string import ascii_lowercase

from imgtool.model.devices import Bus, NetworkKind

OSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
OVIRT = "http://ovirt.org/vm/1.0"
VMWARE = "vmware"
"""``domain/@type`` of libvirt's ESX driver: some elements have another meaning there."""

HYPERVISORS = ("kvm", "qemu", "xen", VMWARE)
"""``domain/@type`` of machines; others are containers and the like."""

BUSES = {"scsi": Bus.SCSI, "sata": Bus.SATA, "ide": Bus.IDE, "nvme": Bus.NVME, "virtio": Bus.VIRTIO, "usb": Bus.USB,
         "fdc": Bus.FLOPPY, "xen": Bus.XEN}
"""``target/@bus``; the reverse is the value of our word."""
PREFIXES = {"sd": Bus.SCSI, "hd": Bus.IDE, "vd": Bus.VIRTIO, "xvd": Bus.XEN, "fd": Bus.FLOPPY, "nvme": Bus.NVME}
"""How ``target/@dev`` begins: where the bus is not given, it says which."""
NAMED = {Bus.SCSI: "sd", Bus.SATA: "sd", Bus.USB: "sd", Bus.IDE: "hd", Bus.VIRTIO: "vd", Bus.XEN: "xvd", Bus.FLOPPY: "fd"}
ADDRESSED = (Bus.SCSI, Bus.SATA, Bus.IDE, Bus.FLOPPY)
"""Buses with a drive's address; on the others the name counts."""
UNITS = {Bus.SCSI: 7, Bus.SATA: 6}
"""Drives of a controller, by which libvirt computes the address from the name, where none is given."""
WIDE = 15
"""The same for SCSI of libvirt's ESX driver; unit 7 is the controller itself."""
CHANNELS = 2
"""Of an IDE controller, with two drives each."""
BY_TARGET = frozenset({"pvscsi", "lsisas1068", "lsisas1078"})
"""SCSI controllers of QEMU on which a disk's number is the target, not the logical unit."""

SCSI = {"vmpvscsi": "pvscsi", "virtio-scsi": "virtio-scsi", "virtio-transitional": "virtio-scsi",
        "virtio-non-transitional": "virtio-scsi"}
"""Controllers' models; others have the same name here and there. Of several words the first is written."""
NICS = {"vlance": "pcnet", "virtio-transitional": "virtio", "virtio-non-transitional": "virtio"}
SOUNDS = {"es1370": "es1371", "ich6": "hda", "ich7": "hda", "ich9": "hda"}
TIMER = "tickpolicy"
USB = {"piix3-uhci": "uhci", "piix4-uhci": "uhci", "vt82c686b-uhci": "uhci", "ehci": "ehci", "ich9-ehci1": "ehci",
       "nec-xhci": "xhci", "qemu-xhci": "xhci", "ich9-uhci1": None, "ich9-uhci2": None, "ich9-uhci3": None, "none": None}
"""USB controllers; None: a companion of another, or no USB."""
BOOT = {"hd": "disk", "cdrom": "cdrom", "network": "network", "fd": "floppy"}
NETWORKS = {"bridge": NetworkKind.BRIDGE, "network": NetworkKind.NETWORK, "user": NetworkKind.NAT, "direct": NetworkKind.DIRECT,
            "ethernet": NetworkKind.CUSTOM, "null": NetworkKind.NONE, "vds": NetworkKind.DISTRIBUTED}
"""``interface/@type``; ``null`` and ``vds`` are of libvirt's ESX driver."""
FORMATS = {"aio": "raw", "vhd": "vpc"}
"""``driver/@type`` of Xen's tapdisk, in QEMU's words."""
BALLOONS = {"xen": None, "virtio-transitional": "virtio", "virtio-non-transitional": "virtio"}
"""None: what every Xen guest has."""
AGENT = "org.qemu.guest_agent.0"
SPICE = "com.redhat.spice.0"
HYPERV = ("relaxed", "vapic", "spinlocks", "vpindex", "synic", "stimer")
"""Enlightenments that every Windows guest gets."""
SPINLOCK_RETRIES = 8191
"""Microsoft's recommendation; virt-install and virt-v2v write the same."""


def back(words: dict[str, str], ours: str) -> str:
    """libvirt's first word for one of ours."""
    return next((theirs for theirs, our in words.items() if our == ours), ours)


def chipset(machine: str | None) -> str | None:
    """``pc-q35-7.2`` → ``q35``; None: not one of ours (``s390-ccw``, ``xenpv``)."""
    if machine is None or machine == "xenpv":
        return None
    if "q35" in machine:
        return "q35"
    if re.match(r"pc(-|$)|rhel|xenfv|centos", machine):
        return "i440fx"
    return "virt" if re.match(r"virt(-|$)", machine) else None


def device_name(prefix: str, index: int) -> str:
    """``sd``, 27 → ``sdab``."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, len(ascii_lowercase))
        letters = ascii_lowercase[rest] + letters
    return prefix + letters


def device_index(name: str) -> int:
    """``sdab`` → 27, ``nvme2n1`` → 2; a name of another kind is the first."""
    if match := re.fullmatch(r"nvme(\d{1,3})(?:n\d+)?", name):
        return int(match[1])
    match = re.match(r"(?:xvd|[shvf]d|ubd)([a-z]{1,3})", name)
    index = 0
    for letter in match[1] if match else "a":
        index = index * len(ascii_lowercase) + ascii_lowercase.index(letter) + 1
    return index - 1
