"""What a physical machine is made of, as a Machine: from what its /sys and /proc say (``far``'s ``files``).

Sources: Documentation/ABI of the kernel (sysfs-devices-system-cpu, sysfs-class-net, sysfs-firmware-dmi), proc(5), and the class
codes of the PCI Code and ID Assignment Specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from imgtool.model.devices import Bus, DiskSlot, Network, NetworkKind, Nic
from imgtool.model.machine import Cpu, Firmware, FirmwareKind, GuestOs, Machine, Memory, Topology, Tpm
from imgtool.model.metal import PhysicalDisk
from imgtool.model.problem import Problem

HOSTNAME = "/proc/sys/kernel/hostname"
PATTERNS = (
    HOSTNAME, "/proc/meminfo", "/sys/devices/system/cpu/online", "/sys/devices/system/memory/block_size_bytes",
    "/sys/devices/system/cpu/cpu*/topology/physical_package_id", "/sys/devices/system/cpu/cpu*/topology/core_id",
    "/sys/class/dmi/id/*", "/sys/firmware/efi/fw_platform_size", "/sys/firmware/efi/efivars/SecureBoot-*",
    "/sys/class/net/*/address", "/sys/class/net/*/type", "/sys/class/net/*/device", "/sys/class/net/*/device/driver",
    "/sys/class/net/*/operstate", "/sys/class/net/*/bonding_slave/perm_hwaddr", "/sys/class/tpm/*/tpm_version_major",
    "/sys/bus/pci/devices/*/class", "/sys/bus/pci/devices/*/vendor", "/sys/bus/pci/devices/*/device", "/etc/os-release",
)
CARRIED = {0x01: "storage", 0x02: "network", 0x05: "memory", 0x06: "bridge", 0x08: "system", 0x0b: "processor", 0x11: "signal",
           0x13: "instrumentation"}
"""PCI base classes that a virtual machine has its own of, or needs none."""
ON_BOARD = {0x0300: "VGA", 0x0c03: "USB", 0x0c05: "SMBus", 0x0c07: "IPMI", 0x0700: "serial port", 0x0780: "communication",
            0x0403: "audio", 0x0401: "audio"}
"""Classes (with subclass) that stay behind without loss."""
VIRTIO = "0x1af4"
"""Devices of a hypervisor: a machine that is virtual already."""
ETHERNET = "1"
"""ARPHRD_ETHER of net/if_arp.h."""
MAX_CPUS = 8192
"""As in the kernel (NR_CPUS of x86)."""
MIB = 1 << 20
Files = Mapping[str, str]


def machine(files: Files, disks: Sequence[PhysicalDisk], name: str | None = None) -> tuple[Machine, tuple[Problem, ...]]:
    """The machine with these disks, in their order, and what of it cannot go along."""
    host = _words(files, HOSTNAME).split(".")[0] or "metal"
    secure = next((text for path, text in files.items() if "/efivars/SecureBoot-" in path), None)
    uefi = "/sys/firmware/efi/fw_platform_size" in files
    found = Machine(
        name=name or host, uuid=None, description=_box(files), guest_os=GuestOs(), cpu=_cpu(files), memory=_memory(files),
        firmware=Firmware(kind=FirmwareKind.UEFI if uefi else FirmwareKind.BIOS, secure_boot=_secure(secure) if uefi else None),
        tpm=_tpm(files), nics=tuple(_nics(files)),
        disks=tuple(DiskSlot(path=disk.path, bus=Bus.SATA, unit=number, format="raw", capacity=disk.size)
                    for number, disk in enumerate(disks)))
    return found, tuple(_left_behind(files))


def _box(files: Files) -> str | None:
    words = (_words(files, f"/sys/class/dmi/id/{key}") for key in ("sys_vendor", "product_name", "product_serial"))
    return " ".join(word for word in words if word) or None


def _words(files: Files, path: str) -> str:
    """What firmware and administrators wrote, without control characters."""
    return "".join(char for char in files.get(path, "") if char.isprintable()).strip()


def _cpu(files: Files) -> Cpu:
    count = sum(1 for _ in islice(_numbers(files.get("/sys/devices/system/cpu/online", "0").strip()), MAX_CPUS))
    sockets, cores = set(), set()
    for path, text in files.items():
        if path.endswith("/topology/physical_package_id"):
            core = files.get(path.replace("physical_package_id", "core_id"), "0").strip()
            sockets.add(text.strip())
            cores.add((text.strip(), core))
    if not sockets or not cores or len(cores) % len(sockets) or count % len(cores):
        return Cpu(count=max(1, count))
    topology = Topology(sockets=len(sockets), cores=len(cores) // len(sockets), threads=count // len(cores))
    return Cpu(count=count, topology=topology)


def _numbers(ranges: str) -> Iterator[int]:
    """``0-3,8`` → 0 1 2 3 8: the kernel's lists of processors."""
    for part in ranges.split(","):
        if match := re.fullmatch("([0-9]{1,6})(?:-([0-9]{1,6}))?", part):
            yield from range(int(match[1]), int(match[2] or match[1]) + 1)


def _memory(files: Files) -> Memory:
    """What the system sees, rounded up to whole GiB (from 1 GiB on): firmware keeps some of what is built in."""
    match = re.search(r"^MemTotal:\s*(\d{1,15}) kB", files.get("/proc/meminfo", ""), re.MULTILINE)
    seen = int(match[1]) * 1024 if match else 1 << 30
    unit = 1 << 30 if seen > 1 << 30 else 64 * MIB
    return Memory(size=-(-seen // unit) * unit)


def _secure(text: str | None) -> bool | None:
    """efivarfs: four bytes of attributes, then the variable: 1 where it is on."""
    return text.endswith("\x01") if text else None


def _tpm(files: Files) -> Tpm | None:
    major = next((text.strip() for path, text in sorted(files.items()) if path.endswith("/tpm_version_major")), None)
    return Tpm(version={"2": "2.0", "1": "1.2"}.get(major)) if major else None


def _nics(files: Files) -> Iterator[Nic]:
    """Ethernet cards with a device behind them: no bridges, bonds, VLANs, tunnels, Wi-Fi."""
    number = 0
    for path in sorted(files):
        match = re.fullmatch(r"/sys/class/net/([^/]+)/address", path)
        if not match:
            continue
        base = f"/sys/class/net/{match[1]}"
        if files.get(f"{base}/type", "").strip() != ETHERNET or f"{base}/device" not in files:
            continue
        mac = (files.get(f"{base}/bonding_slave/perm_hwaddr") or files[path]).strip().lower()
        if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac):
            yield Nic(number=number, mac=mac, mac_kind="static", network=Network(kind=NetworkKind.NETWORK, name="default"),
                      connected=files.get(f"{base}/operstate", "").strip() != "down")
            number += 1


def _left_behind(files: Files) -> Iterator[Problem]:
    for path in sorted(files):
        match = re.fullmatch(r"/sys/bus/pci/devices/([0-9a-f:.]+)/class", path)
        code = _hexadecimal(files[path]) if match else None
        if not match or code is None or code >> 16 in CARRIED or code >> 8 in ON_BOARD:
            continue
        vendor, device = (files.get(path.replace("/class", f"/{key}"), "?").strip() for key in ("vendor", "device"))
        if vendor == VIRTIO:
            continue
        what = "graphics processor" if code >> 16 == 0x03 else "encryption device" if code >> 16 == 0x10 else "device"
        yield Problem(what=f"the {what} at {match[1]} ({vendor}:{device}, class {code:06x}) does not go along",
                      hint="the guest will not find it; pass one of the new host through to it if it must have one")
    if any(path.endswith("/tpm_version_major") for path in files):
        yield Problem(what="the TPM and its keys stay behind",
                      hint="have recovery keys of encrypted disks (BitLocker, LUKS) at hand")


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text.strip(), 16)
    except ValueError:
        return None


