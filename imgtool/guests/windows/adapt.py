"""Makes a Windows guest start on other hardware: storage drivers are started at boot, and bound to their devices.

Windows up to 7 finds the driver of its boot disk in the CriticalDeviceDatabase, from 8 on in the DriverDatabase.
"""

from __future__ import annotations

from collections.abc import Sequence

from imgtool.errors import RefusedError
from imgtool.guests.appliance import Handle
from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.windows import first_boot, given
from imgtool.guests.windows.drivers import IN_BOX, OWN, TOOLS, VIRTIO, BootDriver
from imgtool.guests.windows.first_boot import Static
from imgtool.guests.windows.given import Package
from imgtool.guests.windows.hive import EXPAND_SZ, Hive, opened
from imgtool.guests.windows.inspect import Paths, control_set, inspect, paths
from imgtool.guests.windows.versions import DRIVER_DATABASE, OLDEST, build_number
from imgtool.model.guest import AdaptRequest, AdaptResult, Capabilities, Change, FileSystem, GuestInfo, Platform

BOOT, DISABLED = 0, 4
"""Start of a service (winsvc.h)."""
KERNEL_DRIVER = 1
NICS = {Platform.KVM: ("e1000e", "e1000"), Platform.ESXI: ("e1000e", "e1000"), Platform.METAL: ()}
"""What Windows drives out of the box."""
UNTESTED = "Windows guests are changed by the documented layout of the registry; no boot of one was tested"


def adapt(handle: Handle, tree: GuestTree, filesystems: Sequence[FileSystem], request: AdaptRequest) -> AdaptResult:
    """Raises RefusedError, DamagedError, UsageError (no such drivers)."""
    info = inspect(handle, tree, filesystems)
    build = build_number(info.os.build)
    if build < OLDEST:
        return AdaptResult(os=info.os, warnings=("this Windows is older than 7 and 2008 R2: it is left as it is",))
    if info.details["fast_start"]:
        raise RefusedError("Windows Fast Startup is on: its shutdown is a hibernation",
                           "start it, run: powercfg /h off, then shut it down")
    where, warnings = paths(tree), list[str]()
    given_ = request.drivers if request.platform in given.MAKERS else None
    package = given.choose(given_, info, request.platform) if given_ else None
    keep = tree.keep if request.backup else None
    changes = list(given.copy(tree, package, keep)) if package else []
    with opened(handle, where.system, "SYSTEM", write=True, keep=keep) as hive:
        booting = _boot_drivers(hive, tree, where, info, request.platform, package)
        _stop_tools(hive, info, request.platform)
        moved = _moved(first_boot.statics(hive, control_set(hive)), request, warnings)
        changes += first_boot.install(tree, hive, control_set(hive), first_boot.script(package, moved))
    changes += hive.changes
    if package:
        with opened(handle, where.software, "SOFTWARE", write=True, keep=keep) as hive:
            _device_path(hive, package)
        changes += hive.changes
    return _result(info, request, package, booting, changes, warnings)


def _moved(found: Sequence[Static], request: AdaptRequest, warnings: list[str]) -> list[tuple[Static, str | None]]:
    """Which card gets the addresses of which interface: one of each is sure, several are taken in their order."""
    cards = list(request.nics) or [new for _, new in request.macs]
    if len(found) == 1 and len(cards) < 2:
        return [(found[0], cards[0] if cards else None)]
    pairs = list(zip(found, cards, strict=False))
    if pairs:
        guess = ", ".join(f"{static.addresses[0]} to {card}" for static, card in pairs)
        warnings.append(f"network cards were matched by their order, please check: {guess}")
    if len(found) > len(pairs):
        left = ", ".join(static.addresses[0] for static in found[len(pairs):])
        warnings.append(f"no network card is known for {left}: Windows will ask for an address anew")
    return list(pairs)


def _boot_drivers(hive: Hive, tree: GuestTree, where: Paths, info: GuestInfo, platform: Platform,
                  package: Package | None) -> list[BootDriver]:
    """Starts all that the guest has; says which. Those that were given, and virtio, may have no service yet."""
    current, booting = control_set(hive), []
    new = (*(VIRTIO if platform == Platform.KVM else ()), *(package.boot if package else ()))
    for driver in dict.fromkeys((*new, *IN_BOX[platform])):
        if tree.folded(f"{where.drivers}/{driver.service}.sys") is None:
            continue
        if not hive.has(rf"{current}\Services\{driver.service}") and driver not in new:
            continue
        _start_at_boot(hive, current, driver, new=driver in new)
        if build_number(info.os.build) < DRIVER_DATABASE:
            _critical_device(hive, current, driver)
        elif driver in new:
            _driver_database(hive, driver, info)
        booting.append(driver)
    return booting


def _start_at_boot(hive: Hive, current: str, driver: BootDriver, *, new: bool) -> None:
    key, why = rf"{current}\Services\{driver.service}", f"it drives the disk ({driver.bus})"
    if new:
        hive.put_number(key, "Type", KERNEL_DRIVER, why)
        hive.put_number(key, "ErrorControl", 1, why)
        hive.put_text(key, "Group", driver.group, why)
        hive.put_text(key, "ImagePath", rf"system32\drivers\{driver.service}.sys", why, kind=EXPAND_SZ)
    hive.put_number(key, "Start", BOOT, why)
    if hive.has(rf"{key}\StartOverride"):
        hive.put_number(rf"{key}\StartOverride", "0", BOOT, why)


def _critical_device(hive: Hive, current: str, driver: BootDriver) -> None:
    for device in driver.ids:
        key = rf"{current}\Control\CriticalDeviceDatabase\PCI#{device}"
        hive.put_text(key, "Service", driver.service, "Windows 7 looks here for the driver of its disk")
        hive.put_text(key, "ClassGUID", driver.device_class, "Windows 7 looks here for the driver of its disk")


def _driver_database(hive: Hive, driver: BootDriver, info: GuestInfo) -> None:
    """A driver package with nothing but the binding of ids to the service: enough for the boot loader and the kernel."""
    inf, configuration = f"imgtool_{driver.service}.inf", "imgtool_conf"
    architecture = {"x86_64": "amd64", "i686": "x86", "aarch64": "arm64"}[info.os.arch or "x86_64"]
    label = f"{inf}_{architecture}_0000000000000000"
    why, base = "Windows looks here for the driver of its disk", "DriverDatabase"
    hive.put_texts(rf"{base}\DriverInfFiles\{inf}", "", [label], why)
    hive.put_text(rf"{base}\DriverInfFiles\{inf}", "Active", label, why)
    hive.put_text(rf"{base}\DriverInfFiles\{inf}", "Configurations", configuration, why)
    package = rf"{base}\DriverPackages\{label}"
    version = bytes([0, 0xFF, 9]) + bytes(5) + _guid(driver.device_class) + bytes(24)
    hive.put(package, "Version", 3, version, "Version", why)
    hive.put_number(rf"{package}\Configurations\{configuration}", "ConfigFlags", 0, why)
    hive.put_text(rf"{package}\Configurations\{configuration}", "Service", driver.service, why)
    for device in driver.ids:
        hive.put(rf"{base}\DeviceIds\PCI\{device}", inf, 3, bytes([1, 0xFF, 0, 0]), inf, why)
        hive.put_text(rf"{package}\Descriptors\PCI\{device}", "Configuration", configuration, why)


def _guid(text: str) -> bytes:
    """In the order that Windows has it in memory."""
    from uuid import UUID

    return UUID(text).bytes_le


def _stop_tools(hive: Hive, info: GuestInfo, platform: Platform) -> None:
    current = control_set(hive)
    for service, tool in TOOLS.items():
        if tool in info.tools and tool not in OWN[platform] and hive.has(rf"{current}\Services\{service}"):
            hive.put_number(rf"{current}\Services\{service}", "Start", DISABLED, f"{tool} has nothing to do on {platform}")


def _device_path(software: Hive, package: Package) -> None:
    key, value = r"Microsoft\Windows\CurrentVersion", "DevicePath"
    old, folder = software.text(key, value) or r"%SystemRoot%\inf", package.maker.folder.replace("/", "\\")
    if folder.lower() not in old.lower():
        software.put_text(key, value, rf"{old};%SystemRoot%\{folder}", "Windows finds the other drivers there", kind=EXPAND_SZ)


def _result(info: GuestInfo, request: AdaptRequest, package: Package | None, booting: Sequence[BootDriver],
            changes: Sequence[Change], said: Sequence[str]) -> AdaptResult:
    warnings = [UNTESTED, *said]
    if request.platform == Platform.KVM and not any(driver in VIRTIO for driver in booting):
        warnings.append("Windows has no virtio driver: give it SATA and e1000e, or name a folder with --virtio-win")
    if request.drivers and request.platform not in given.MAKERS:
        warnings.append(f"no drivers are installed for {request.platform}: Windows has to know the hardware by itself")
    if not booting:
        warnings.append(f"Windows has no driver for the disks of {request.platform}")
    buses = tuple(dict.fromkeys(driver.bus for driver in booting))
    cards = (*(package.nic if package else ()), *NICS[request.platform])
    agent = "qemu-guest-agent" in info.tools or bool(package and package.agent)
    return AdaptResult(os=info.os, changes=tuple(changes), warnings=tuple(warnings), disk_bus=buses[0] if buses else None,
                       nic_model=cards[0] if cards else None,
                       capabilities=Capabilities(disk_buses=buses, nic_models=cards, agent=agent))
