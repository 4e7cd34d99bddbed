"""Machine → the settings of a ``.vmx``, in the order in which they are written. ``check`` finds what had to be left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from imgtool.descriptions.guest_os import is_windows, to_vmware
from imgtool.descriptions.guest_os_table import SYSTEMS
from imgtool.descriptions.vmx.hardware import LOWEST, lowest_hardware
from imgtool.descriptions.vmx.keys import INPUTS, MACHINE, SCRIPTS, USB
from imgtool.descriptions.vmx.read import CONFIG_VERSION
from imgtool.descriptions.vmx.values import AFFINITY, MEMORY_STEP, MIB, Codec, Field, vmware_genid
from imgtool.model.machine import FirmwareKind, Machine

ROOT_PORTS = (4, 5, 6, 7)
"""PCI bridges that VMware makes of eight functions each."""
ENABLE_UUID_SINCE = 8
"""Windows of this hardware version (2012) and later look for the serial numbers of disks."""


class Setting(NamedTuple):
    """A line to be."""

    key: str
    value: str
    field: str | None = None
    """Of Machine; None: every file has this line."""


def settings(machine: Machine, devices: Iterable[Setting]) -> list[Setting]:
    """All settings of a machine; ``devices`` are those of its devices."""
    version = machine.hardware_version or lowest_hardware(machine)
    return [Setting(".encoding", "UTF-8"), Setting("config.version", CONFIG_VERSION),
            Setting("virtualHW.version", str(version), "hardware_version"), *_platform(version),
            Setting("guestOS", to_vmware(machine.guest_os, version), "guest_os.id"), *_machine(machine), *_memory(machine),
            *_identity(machine), *_resources(machine), *_tools(machine), *devices, *_boot(machine), *_switches(machine)]


def fields(thing: Any, table: Iterable[Field], head: str, where: str) -> Iterator[Setting]:
    """The settings that stand for one field each: ``head`` and ``where`` come before their keys and fields."""
    for one in table:
        value = getattr(thing, one.field)
        text = written(one.codec, value)
        if text is not None:
            yield Setting(head + one.key, text, where + one.field)


def written(codec: Codec, value: Any) -> str | None:
    """A value as text; None where nothing is said, or where there is no way to say it."""
    if value is None or value in ("", ()):
        return None
    try:
        return codec.write(value)
    except (KeyError, ValueError):
        return None


def _platform(version: int) -> Iterator[Setting]:
    """Without the bridges no PCI Express device finds a slot."""
    yield Setting("uuid.action", "keep")
    if version < LOWEST:
        return
    yield Setting("pciBridge0.present", "TRUE")
    for number in ROOT_PORTS:
        yield Setting(f"pciBridge{number}.present", "TRUE")
        yield Setting(f"pciBridge{number}.virtualDev", "pcieRootPort")
        yield Setting(f"pciBridge{number}.functions", "8")
    yield Setting("vmci0.present", "TRUE")
    yield Setting("hpet0.present", "TRUE")


def _machine(machine: Machine) -> Iterator[Setting]:
    for one in MACHINE:
        value: Any = machine
        for name in one.field.split("."):
            value = getattr(value, name)
        usual = one.field == "hardware_version" or value is FirmwareKind.BIOS
        text = None if usual else written(one.codec, value)
        if text is not None:
            yield Setting(one.key, text, one.field)
    if machine.cpu.topology:
        shape = machine.cpu.topology
        each = shape.cores * shape.dies * shape.threads
        if shape.sockets * each == machine.cpu.count:
            yield Setting("cpuid.coresPerSocket", str(each), "cpu.topology.cores")


def _memory(machine: Machine) -> Iterator[Setting]:
    if machine.memory.size:
        size = -(-machine.memory.size // MEMORY_STEP) * MEMORY_STEP
        yield Setting("memSize", str(size // MIB), "memory.size")


def _identity(machine: Machine) -> Iterator[Setting]:
    with suppress(ValueError):
        if machine.genid:
            for key, value in zip(("vm.genid", "vm.genidX"), vmware_genid(machine.genid), strict=True):
                yield Setting(key, value, "genid")
    if machine.tpm:
        yield Setting("vtpm.present", "TRUE", "tpm.version")
    system = SYSTEMS.get(machine.guest_os.id)
    if is_windows(machine.guest_os) and system and system.since >= ENABLE_UUID_SINCE:
        yield Setting("disk.EnableUUID", "TRUE")


def _resources(machine: Machine) -> Iterator[Setting]:
    given = machine.resources
    for key, value, name in (("sched.cpu.shares", given.cpu_shares, "cpu_shares"),
                             ("sched.mem.shares", given.memory_shares, "memory_shares")):
        if value is not None:
            yield Setting(key, str(value), f"resources.{name}")
    if given.cpu_affinity:
        yield Setting("sched.cpu.affinity", AFFINITY.write(given.cpu_affinity), "resources.cpu_affinity")


def _tools(machine: Machine) -> Iterator[Setting]:
    """VMware runs each script unless it is told not to."""
    for name in SCRIPTS if machine.tools.scripts else ():
        yield Setting(f"toolScripts.{name}", "TRUE" if name in machine.tools.scripts else "FALSE", "tools.scripts")


def _boot(machine: Machine) -> Iterator[Setting]:
    kinds = machine.boot or _kinds(machine)
    cards = sorted((nic for nic in machine.nics if nic.boot_order is not None), key=lambda nic: nic.boot_order or 0)
    names = ",".join(f"ethernet{nic.number}" for nic in cards or machine.nics) or "ethernet0"
    words = {"disk": "hdd", "cdrom": "cdrom", "floppy": "floppy", "network": names}
    order = ",".join(words[kind] for kind in kinds if kind in words)
    if order:
        yield Setting("bios.bootOrder", order, "boot")
    disks = sorted((disk for disk in machine.disks if disk.boot_order is not None), key=lambda disk: disk.boot_order or 0)
    if disks:
        yield Setting("bios.hddOrder", ",".join(f"{disk.bus}{disk.controller}:{disk.unit}" for disk in disks), "disks.boot_order")


def _kinds(machine: Machine) -> list[str]:
    """The order of kinds, where only devices have one."""
    ranks = [*((disk.boot_order, "disk") for disk in machine.disks), *((nic.boot_order, "network") for nic in machine.nics),
             *((drive.boot_order, "floppy" if drive.floppy else "cdrom") for drive in machine.drives)]
    said = sorted((rank, kind) for rank, kind in ranks if rank is not None)
    return list(dict.fromkeys(kind for _, kind in said))


def _switches(machine: Machine) -> Iterator[Setting]:
    for head, model in USB.items():
        if model in machine.usb:
            yield Setting(f"{head}.present", "TRUE", "usb")
    for name, key in INPUTS.items():
        if name in machine.inputs:
            yield Setting(key, "TRUE", "inputs")
