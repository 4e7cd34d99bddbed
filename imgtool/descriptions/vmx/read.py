"""A ``.vmx`` → Machine."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from imgtool.descriptions.guest_os import from_vmware, is_windows
from imgtool.descriptions.vmx.keys import ENCRYPTED, MACHINE, SCRIPTS
from imgtool.descriptions.vmx.read_disks import read_storage
from imgtool.descriptions.vmx.read_nics import read_nics
from imgtool.descriptions.vmx.read_ports import (
    read_folders,
    read_graphics,
    read_inputs,
    read_parallels,
    read_passthrough,
    read_serials,
    read_sounds,
    read_usb,
    read_videos,
)
from imgtool.descriptions.vmx.settings import Settings, shown
from imgtool.descriptions.vmx.text import take_apart
from imgtool.descriptions.vmx.values import (
    AFFINITY,
    BOOL,
    COUNT,
    CPU_SHARES,
    MAX_MIB,
    MEGABYTES,
    MEMORY_SHARES,
    MIB,
    SAID,
    genid,
    numbers,
    shares,
)
from imgtool.errors import RefusedError
from imgtool.model.description import Parsed
from imgtool.model.devices import DiskSlot, Nic, Passthrough
from imgtool.model.machine import Cpu, Firmware, GuestOs, Machine, Memory, Resources, Tools, Topology, Tpm

DEFAULT_MIB = 32
"""What VMware takes where ``memSize`` is missing."""
CONFIG_VERSION = "8"
BOOT_KINDS = {"hdd": "disk", "hd": "disk", "cdrom": "cdrom", "cd": "cdrom", "floppy": "floppy", "fd": "floppy", "net": "network"}
NIC_NAME = re.compile(r"ethernet(\d{1,4})")


def parse(text: bytes) -> Parsed:
    """What a ``.vmx`` says. Raises DamagedError if it is none; RefusedError if it is encrypted."""
    settings = Settings(take_apart(text))
    for key in ENCRYPTED:
        if settings.get(key):
            raise RefusedError(f"the machine is encrypted ({settings.entries[key].key}): nothing in it can be read",
                               "remove the encryption with VMware (VM Policies, or Access Control), then try again")
    version = settings.get("config.version")
    if version is not None and version.strip() != CONFIG_VERSION:
        settings.odd(f"config.version = {shown(version)}: VMware knows only {CONFIG_VERSION}")
    machine = _machine(settings)
    settings.left()
    return Parsed(machine=machine, trace=tuple(settings.trace), problems=tuple(dict.fromkeys(settings.problems)))


def _machine(settings: Settings) -> Machine:
    values = {one.field: settings.take(one.key, one.field, one.codec) for one in MACHINE}
    fields = {name: value for name, value in values.items() if value is not None}
    top = {name: value for name, value in fields.items() if "." not in name}
    if not fields.get("name"):
        settings.odd("displayName is missing: the machine has no name", hint="give it one")
    cpu = Cpu(**{"count": 1, **_part(fields, "cpu")})
    os = _guest_os(settings)
    storage = read_storage(settings)
    boot, disks, nics = _boot(settings, storage.disks, read_nics(settings))
    machine = Machine(
        **{"name": "", **top}, genid=_genid(settings), guest_os=os, cpu=replace(cpu, topology=_topology(settings, cpu.count)),
        memory=Memory(size=_memory(settings), **_part(fields, "memory")), firmware=Firmware(**_part(fields, "firmware")),
        tpm=Tpm(version="2.0") if settings.take("vtpm.present", "tpm.version", BOOL) else None,
        controllers=tuple(storage.controllers), disks=disks, drives=tuple(storage.drives), nics=nics, boot=boot,
        tools=Tools(scripts=_scripts(settings), **_part(fields, "tools")))
    resources = _resources(settings, machine, _part(fields, "resources"))
    return _ports(settings, replace(machine, resources=resources), storage.passthrough)


def _ports(settings: Settings, machine: Machine, passthrough: list[Passthrough]) -> Machine:
    """The machine with all that is neither storage nor network."""
    return replace(
        machine, serials=tuple(read_serials(settings)), parallels=tuple(read_parallels(settings)),
        videos=tuple(read_videos(settings)), graphics=tuple(read_graphics(settings)),
        sounds=tuple(read_sounds(settings)), usb=tuple(read_usb(settings)),
        inputs=tuple(read_inputs(settings)), passthrough=(*passthrough, *read_passthrough(settings, len(passthrough))),
        shared_folders=tuple(read_folders(settings)))


def _part(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {field.removeprefix(f"{name}."): value for field, value in fields.items() if field.startswith(f"{name}.")}


def _guest_os(settings: Settings) -> GuestOs:
    word = settings.take("guestOS", "guest_os.id", SAID)
    os = from_vmware(word) if word else GuestOs()
    if os.word:
        settings.odd(f"guestOS = {shown(os.word)}: a system that is not in our table", hint="choose the system at the target")
    if is_windows(os):
        settings.get("disk.EnableUUID")
    return os


def _genid(settings: Settings) -> str | None:
    first, second = settings.get("vm.genid"), settings.get("vm.genidX")
    if not first or not second:
        return None
    settings.note("genid", "vm.genid, vm.genidX", f"{first}, {second}")
    try:
        return genid(first, second)
    except ValueError as error:
        settings.odd(f"vm.genid = {shown(first)}, vm.genidX = {shown(second)}: {error}; ignored")
        return None


def _memory(settings: Settings) -> int:
    size: int | None = settings.take("memSize", "memory.size", numbers(4, MAX_MIB, unit=MIB))
    if size is None:
        settings.odd(f"memSize is missing or wrong: VMware gives such a machine {DEFAULT_MIB} MiB",
                     hint="set the memory that it needs")
    return size or DEFAULT_MIB * MIB


def _topology(settings: Settings, count: int) -> Topology | None:
    cores: int | None = settings.take("cpuid.coresPerSocket", "cpu.topology.cores", COUNT)
    if cores is None:
        return None
    if count % cores:
        settings.odd(f"cpuid.coresPerSocket = {cores} does not divide numvcpus = {count}: the topology is left to the target")
        return None
    return Topology(sockets=count // cores, cores=cores)


def _resources(settings: Settings, machine: Machine, fields: dict[str, Any]) -> Resources:
    """Shares, reservations and limits; what is usual (no reservation, normal shares) is not said."""
    memory = machine.memory.size // MIB
    fields |= {name: settings.take(key, f"resources.{name}", codec) for name, key, codec in (
        ("cpu_shares", "sched.cpu.shares", shares(CPU_SHARES, machine.cpu.count)),
        ("memory_shares", "sched.mem.shares", shares(MEMORY_SHARES, memory)))}
    fields["cpu_affinity"] = settings.take("sched.cpu.affinity", "resources.cpu_affinity", AFFINITY) or ()
    legacy = settings.take("sched.mem.minsize", "resources.memory_reservation", MEGABYTES)
    fields["memory_reservation"] = fields.get("memory_reservation") or legacy or None
    fields["cpu_reservation"] = fields.get("cpu_reservation") or None
    return Resources(**fields)


def _scripts(settings: Settings) -> tuple[str, ...]:
    return tuple(name for name in SCRIPTS if settings.take(f"toolScripts.{name}", "tools.scripts", BOOL))


def _boot(settings: Settings, disks: list[DiskSlot], nics: list[Nic]) -> tuple[
        tuple[str, ...], tuple[DiskSlot, ...], tuple[Nic, ...]]:
    """The order of kinds, and among disks and cards the order of each that is named."""
    kinds: dict[str, None] = {}
    cards: list[str] = []
    for word in _list(settings.take("bios.bootOrder", "boot", SAID)):
        card = NIC_NAME.fullmatch(word)
        kind = "network" if card else BOOT_KINDS.get(word)
        cards += [word] if card else []
        if kind is None:
            settings.odd(f"bios.bootOrder: {shown(word)} is no device that is known; left out")
        else:
            kinds[kind] = None
    slots = _list(settings.take("bios.hddOrder", "disks.boot_order", SAID))
    ranks = _ranks(slots, [f"{disk.bus}{disk.controller}:{disk.unit}" for disk in disks])
    turns = _ranks(cards, [f"ethernet{nic.number}" for nic in nics])
    return (tuple(kinds), tuple(replace(disk, boot_order=rank) for disk, rank in zip(disks, ranks, strict=True)),
            tuple(replace(nic, boot_order=turn) for nic, turn in zip(nics, turns, strict=True)))


def _ranks(order: list[str], names: list[str]) -> list[int | None]:
    """The rank of each name in an order, in which names of other things may stand."""
    there = set(names)
    ranks = {name: rank for rank, name in enumerate((name for name in dict.fromkeys(order) if name in there), 1)}
    return [ranks.get(name) for name in names]


def _list(text: str | None) -> list[str]:
    return [word.strip().lower() for word in (text or "").split(",") if word.strip()]
