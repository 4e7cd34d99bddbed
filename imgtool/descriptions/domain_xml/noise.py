"""What of a domain XML is not carried over: what means nothing elsewhere is left silently, the rest becomes a problem."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from imgtool.descriptions.domain_xml.document import SECRET, SHOWN, Notes
from imgtool.model.problem import Problem

ANYWHERE = frozenset({"alias", "address", "seclabel", "stats", "backenddomain"})
"""Names of devices, their places on the host's PCI bus, labels of its security driver."""


def _within(parent: str, names: str) -> frozenset[str]:
    return frozenset(f"{parent}/{name}".lstrip("/") for name in names.split())


SILENT = frozenset().union(
    _within("", "@id resource seclabel vcpus pm vcpu/@placement memory/@dumpCore clock/@basis"),
    _within("os", "smbios acpi type/@machine loader"),
    _within("os/loader", "@readonly @type @format @stateless"),
    _within("os/nvram", "@template @templateFormat @type @format"),
    _within("cpu", "@match @check @migratable @vendor_id model/@fallback vendor maxphysaddr"),
    _within("features", "acpi apic pae smm vmport vmcoreinfo gic hap viridian hyperv/@mode"),
    _within("devices", "emulator audio hub"),
    _within("devices/disk", "@model @snapshot @rawio driver/@name source/@index source/@startupPolicy target/@tray"),
    _within("devices/disk", "driver/@detect_zeroes target/@rotation_rate source/slices backingStore source/privateData"),
    _within("devices/controller", "target model"),
    _within("devices/interface", "@managed @trustGuestRxFilters source/@portid target/@managed"),
    _within("devices/interface", "virtualport/parameters driver/@name rom backend"),
    _within("devices/serial", "log source/@tls source/reconnect target/model target/@type"),
    _within("devices/parallel", "target/@type"),
    _within("devices/channel", "source log"),
    _within("devices/graphics", "@autoport @tlsPort @websocket @websocketGenerated @passwdValidTo @connected listen/@network"),
    _within("devices/graphics", "@socket image channel streaming mouse clipboard gl"),
    _within("devices/video", "driver model/@ram model/@vgamem model/@vram64 model/@primary"),
    _within("devices/sound", "codec audio"),
    _within("devices/hostdev", "@managed driver rom"),
    _within("devices/memballoon", "@autodeflate @freePageReporting"),
    _within("devices/filesystem", "driver/@type"),
    _within("devices/tpm", "backend/@persistent_state"),
)
"""What every domain has and what means nothing for another host: its own identifiers, files, addresses and defaults."""

USUAL = {
    "on_poweroff": ("destroy",), "on_reboot": ("restart",), "on_crash": ("destroy", "restart"), "on_lockfailure": ("poweroff",),
    "devices/filesystem/@accessmode": ("passthrough", "mapped"), "devices/disk/driver/@io": ("threads", "io_uring", "native"),
    "devices/disk/driver/@error_policy": ("stop", "report"), "devices/disk/driver/@rerror_policy": ("stop", "report"),
    "devices/rng/@model": ("virtio",), "devices/hostdev/@mode": ("subsystem",),
    "clock/@adjustment": ("0", "reset"),
    "devices/interface/source/@mode": ("bridge",), "devices/graphics/@sharePolicy": ("allow-exclusive", "ignore", "force-shared"),
    "devices/interface/driver/@queues": ("1",), "devices/redirdev/@bus": ("usb",),
}
"""Values that are the default, or as good."""

MEANS = {
    "title": ("a short description", "put it into the description"),
    "metadata/": ("data of the program that manages this host", "what it manages has to be set up at the target"),
    "qemu:commandline": ("arguments for QEMU itself", "find out what they are for; nothing of them is carried over"),
    "qemu:capabilities": ("capabilities of QEMU, switched by hand", None),
    "qemu:override": ("properties of QEMU's devices, set by hand", None),
    "vmware:datacenterpath": ("where vCenter keeps it", None),
    "vmware:moref": ("vCenter's own name for it", None),
    "sysinfo": ("what the guest's DMI tables say", "a licence in the guest may ask for the serial numbers"),
    "bootloader": ("the host's program that finds a Xen guest's kernel", "the disk needs a boot loader of its own"),
    "bootloader_args": ("for the host's boot loader of a Xen guest", None),
    "os/kernel": ("the guest boots a kernel from a file of the host", "install a kernel and a boot loader on its disk"),
    "os/initrd": ("the guest boots an initramfs from a file of the host", "install a kernel and a boot loader on its disk"),
    "os/cmdline": ("kernel command line that the host gives", "put it into the guest's boot loader"),
    "os/dtb": ("device tree from a file of the host", None),
    "cputune": ("how virtual CPUs are scheduled on this host", "set it at the target for its processors"),
    "memtune": ("limits of memory on this host", "set them at the target"),
    "blkiotune": ("weights of disk traffic on this host", "set them at the target"),
    "on_poweroff": ("what happens when the guest turns itself off", "set it at the target"),
    "on_reboot": ("what happens when the guest reboots", "set it at the target"),
    "on_crash": ("what happens when the guest crashes", "set it at the target"),
    "os/bios": ("settings of the BIOS", None),
    "os/bootmenu/@timeout": ("how long the boot menu waits", None),
    "clock/@timezone": ("the zone that the guest's clock runs in", "set the clock to utc, and the zone in the guest"),
    "clock/@start": ("the time at which the guest's clock begins", None),
    "clock/@adjustment": ("how far the guest's clock was from the host's", "it begins anew at the host's time"),
    "clock/timer": ("details of a timer", None),
    "numatune": ("memory of which NUMA nodes of this host", "set it at the target for its nodes"),
    "cpu/numa": ("NUMA nodes of the guest", "set them at the target"),
    "cpu/cache": ("what the guest sees of the CPU's cache", None),
    "memoryBacking": ("how this host backs the memory", "set it at the target"),
    "iothreads": ("threads for disks", "set them at the target"),
    "iothreadids": ("threads for disks", "set them at the target"),
    "perf": ("performance counters of this host", None),
    "keywrap": ("keys of IBM Z", None),
    "launchSecurity": ("encrypted memory (SEV, TDX)", "the target needs the same kind of processor"),
    "idmap": ("user ids of a container", None),
    "devices/watchdog": ("one more watchdog", None),
    "devices/hostdev": ("how the device is passed through", None),
    "devices/filesystem": ("how the folder is shared", "share it at the target"),
    "devices/serial/source": ("the other end of the port", None),
    "devices/redirdev": ("USB over the SPICE console", "plug the device in at the target"),
    "devices/redirfilter": ("which USB devices the SPICE console may bring", None),
    "devices/smartcard": ("a smart card reader", "the guest loses its smart card"),
    "devices/panic": ("a device by which the guest tells that it crashed", None),
    "devices/vsock": ("a socket between host and guest", "programs that talk over it need a network instead"),
    "devices/iommu": ("an IOMMU that the guest sees", None),
    "devices/memory": ("a module of memory", "its size is part of memory"),
    "devices/shmem": ("memory shared with other guests", "programs that use it need a network instead"),
    "devices/nvram": ("NVRAM of a POWER machine", None),
    "devices/lease": ("a lease of the lock manager", None),
    "devices/crypto": ("a cryptographic device", None),
    "devices/pstore": ("storage for a crashed kernel's last words", None),
    "devices/console": ("a console beside the serial port", "give the guest a serial port"),
    "devices/channel": ("a channel to a program of the host", "only QEMU's guest agent is carried over"),
    "devices/controller/driver": ("tuning of the controller", "set it at the target"),
    "devices/disk/mirror": ("a copy of the disk is being made", "wait for it, or stop it: `virsh blockjob`"),
    "devices/disk/auth": ("credentials for the storage", "never carried: define the secret at the target"),
    "devices/disk/driver": ("tuning of the disk", "set it at the target"),
    "devices/disk/@sgio": ("which SCSI commands the guest may send", "set it at the target"),
    "devices/disk/source/reservations": ("a cluster's reservations of the disk", "set them up at the target"),
    "devices/disk/source/@query": ("the end of the URL", "add it at the target"),
    "devices/disk/source/cookies": ("cookies for the storage", "never carried: set them at the target"),
    "devices/disk/vendor": ("whose disk the guest sees", None),
    "devices/disk/product": ("which disk the guest sees", None),
    "devices/disk/geometry": ("cylinders, heads and sectors", "old guests may not boot without them"),
    "devices/disk/blockio": ("block sizes that the guest sees", "a guest on 4096-byte sectors needs them again"),
    "devices/disk/iotune": ("limits of the disk's traffic", "set them at the target"),
    "devices/interface/driver": ("tuning of the network card", "set it at the target"),
    "devices/interface/filterref": ("packet filter of this host", "set up a firewall at the target"),
    "devices/interface/bandwidth": ("limits of the network traffic", "set them at the target"),
    "devices/interface/source/@mode": ("how macvtap is connected", "it is written as a bridge"),
    "devices/interface/script": ("a script of the host", None),
    "devices/interface/ip": ("an address for a container", None),
    "features": ("a switch of the virtual hardware", None),
    "features/hyperv": ("an enlightenment of Hyper-V", "the usual six are written for a guest whose libosinfo id says Windows"),
    "features/kvm": ("what the guest sees of KVM", None),
    "cpu/feature": ("a feature of the CPU", None),
}
"""What a part is for, and what to do now that it is not carried over."""


def leftovers(notes: Notes, root: etree._Element) -> Iterator[Problem]:
    """A problem for each part that was not read and is not noise, in the order of the document. Secrets are not shown."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        key = _pattern(notes.paths[element])
        if (element, "*") in notes.read or _silent(key, _text(element)):
            continue
        if (element, "") not in notes.read:
            yield _problem(notes.paths[element], key, _text(element))
            continue
        if _text(element) and (element, "text()") not in notes.read:
            yield _problem(notes.paths[element], key, _text(element))
        for name, value in ((str(name), str(value)) for name, value in element.attrib.items()):
            part = f"@{etree.QName(name).localname}"
            inner = f"{key}/{part}".lstrip("/")
            if (element, f"@{name}") not in notes.read and not _silent(inner, value):
                yield _problem(f"{notes.paths[element]}/{part}", inner, value)
        waiting += reversed(list(element.iterchildren("*")))


def _text(element: etree._Element) -> str:
    return (element.text or "").strip()


def _pattern(path: str) -> str:
    """``/domain/devices/disk[2]/source`` → ``devices/disk/source``."""
    return re.sub(r"\[\d+\]", "", path).removeprefix("/domain").lstrip("/")


def _silent(key: str, value: str) -> bool:
    return key in SILENT or key.rpartition("/")[2] in ANYWHERE or value in USUAL.get(key, ())


def _problem(path: str, key: str, value: str) -> Problem:
    steps = set(key.split("/"))
    shown = f" = {value[:SHOWN]}" if value and not steps & SECRET else ""
    means, hint = _meaning(key)
    return Problem(what=f"{path}{shown}: {means + ': ' if means else ''}not carried over", hint=hint)


def _meaning(key: str) -> tuple[str | None, str | None]:
    """Of the part itself, or of what it stands in."""
    while key:
        for name in (key, f"{key.partition('/')[0]}/"):
            if name in MEANS:
                return MEANS[name]
        key = key.rpartition("/")[0]
    return None, None
