"""What a Windows guest is, out of its registry and its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imgtool.errors import DamagedError
from imgtool.guests.appliance import Handle
from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.windows.drivers import IN_BOX, TOOLS, VIRTIO
from imgtool.guests.windows.hive import Hive, opened
from imgtool.guests.windows.versions import ARCHITECTURES, build_number
from imgtool.model.guest import BootLoader, FileSystem, GuestInfo, NicConfig, OsInfo

SYSTEM32 = "/Windows/System32"
VERSION_KEY = r"Microsoft\Windows NT\CurrentVersion"
CARDS = ("netkvm", "vmxnet3ndis6", "E1G60")
WATCHED = sorted({driver.service for drivers in (*IN_BOX.values(), VIRTIO) for driver in drivers} | set(CARDS))
MAX_INTERFACES = 256


@dataclass(frozen=True, kw_only=True)
class Paths:
    """In the letters that this volume has them in."""

    system: str
    software: str
    drivers: str


def paths(tree: GuestTree) -> Paths:
    """Raises DamagedError."""
    found = [tree.folded(f"{SYSTEM32}/{name}") for name in ("config/SYSTEM", "config/SOFTWARE", "drivers")]
    system, software, drivers = found
    if not (system and software and drivers):
        raise DamagedError("the Windows folder of the guest has no registry, or no drivers")
    return Paths(system=system, software=software, drivers=drivers)


def control_set(system: Hive) -> str:
    """The one that Windows starts with: ``ControlSet001``."""
    return f"ControlSet{system.number('Select', 'Current') or 1:03d}"


def inspect(handle: Handle, tree: GuestTree, filesystems: Sequence[FileSystem]) -> GuestInfo:
    """Raises DamagedError."""
    where = paths(tree)
    with opened(handle, where.software, "SOFTWARE", write=False) as hive:
        system_info = _release(hive)
    with opened(handle, where.system, "SYSTEM", write=False) as hive:
        current = control_set(hive)
        services = {name: start for name in (*WATCHED, *TOOLS)
                    if (start := hive.number(rf"{current}\Services\{name}", "Start")) is not None}
        session = rf"{current}\Control\Session Manager"
        architecture = hive.text(rf"{session}\Environment", "PROCESSOR_ARCHITECTURE") or ""
        host = (hive.text(rf"{current}\Control\ComputerName\ComputerName", "ComputerName")
                or hive.text(rf"{current}\Services\Tcpip\Parameters", "Hostname"))
        details: dict[str, object] = {
            "services": services,
            "fast_start": bool(hive.number(rf"{session}\Power", "HiberbootEnabled")),
            "clock_is_utc": bool(hive.number(rf"{current}\Control\TimeZoneInformation", "RealTimeIsUniversal")),
        }
        nics = tuple(_nics(hive, current))
    details["drivers"] = [name for name in WATCHED if tree.folded(f"{where.drivers}/{name}.sys")]
    uefi = handle.call("part_get_parttype", handle.call("part_to_dev", _device(filesystems))) == "gpt"
    firmware = "uefi" if uefi else "bios"
    return GuestInfo(
        os=OsInfo(family="windows", distro="windows", version=system_info.version, name=system_info.name, build=system_info.build,
                  edition=system_info.edition, arch=ARCHITECTURES.get(architecture), hostname=host),
        firmware=firmware, bootloader=BootLoader(kind="bootmgr", firmware=firmware), filesystems=tuple(filesystems), nics=nics,
        tools=tuple(dict.fromkeys(tool for service, tool in TOOLS.items() if service in services)), details=details)


def _device(filesystems: Sequence[FileSystem]) -> str:
    return next(one.device for one in filesystems if one.mounted_at == "/")


def _release(software: Hive) -> OsInfo:
    def said(value: str) -> str | None:
        return software.text(VERSION_KEY, value)

    major, minor = (software.number(VERSION_KEY, f"Current{part}VersionNumber") for part in ("Major", "Minor"))
    version = f"{major}.{minor or 0}" if major else said("CurrentVersion")
    build = said("CurrentBuildNumber") or said("CurrentBuild")
    name = said("ProductName")
    if name and build_number(build) >= 22000 and name.startswith("Windows 10"):
        name = name.replace("Windows 10", "Windows 11", 1)  # so it stands in the registry of Windows 11
    return OsInfo(family="windows", version=version, build=build, edition=said("EditionID"), name=name)


def _nics(system: Hive, current: str) -> list[NicConfig]:
    """Each interface that has an address of its own, or asks for one."""
    key = rf"{current}\Services\Tcpip\Parameters\Interfaces"
    found = []
    for name in system.children(key)[:MAX_INTERFACES]:
        dhcp = bool(system.number(rf"{key}\{name}", "EnableDHCP"))
        addresses = zip(system.texts(rf"{key}\{name}", "IPAddress"), system.texts(rf"{key}\{name}", "SubnetMask"), strict=False)
        static = tuple(f"{address}/{_prefix(mask)}" for address, mask in addresses if address != "0.0.0.0")  # noqa: S104
        if static or dhcp:
            found.append(NicConfig(name=name, system="Tcpip", path=f"HKLM\\SYSTEM\\{key}", dhcp=dhcp,
                                   addresses=() if dhcp else static))
    return found


def _prefix(mask: str) -> str:
    """255.255.255.0 → 24; as it stands where it is no mask."""
    parts = mask.split(".")
    if len(parts) != 4 or not all(re.fullmatch("[0-9]{1,3}", part) for part in parts):
        return mask
    return str(sum(int(part).bit_count() for part in parts))
