"""What a ``.vmx`` that was written does not say of its machine: found by reading it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from imgtool.descriptions.fields import pattern, said
from imgtool.descriptions.vmx.settings import shown
from imgtool.model.devices import Bus, Controller, DiskSlot, Drive, Nic, Port
from imgtool.model.machine import Machine
from imgtool.model.problem import Problem

HINTS = {
    "memory.maximum": "VMware lets memory grow to what the host allows: hot-add is memory.hot_add",
    "memory.current": "the balloon of VMware Tools decides that",
    "cpu.maximum": "give the machine all its virtual CPUs, or hot-add more later",
    "cpu.model": "vCenter's EVC sets the level of the processors for a whole cluster",
    "cpu.mode": "vCenter's EVC sets the level of the processors for a whole cluster",
    "graphics.password": "passwords are never carried: set a new one",
    "inputs": "VMware's own mouse knows absolute places",
    "rng": "the guest has the processor's RDRAND",
    "tools.agent": "install open-vm-tools in the guest",
    "snapshots": "snapshots are not in a .vmx: consolidate them first",
    "disks": "give it a SCSI, SATA, NVMe or IDE address, and a file that ends in .vmdk",
    "nics.model": "ESXi has vmxnet3, e1000e, e1000",
}


def lost(machine: Machine, again: Machine) -> tuple[Problem, ...]:
    """A problem for each field that is said of ``machine`` and that ``again``, read from what was written, has otherwise."""
    there = {key: value for key, _, value in _flat(again)}
    found, gone = [], set()
    for key, path, value in _flat(machine):
        device = key.partition("].")[0].removesuffix("]") + "]"
        if device in gone or (key in there and there[key] == value):
            continue
        if key == device:
            gone.add(key)
        hint = HINTS.get(pattern(path)) or HINTS.get(path.partition("[")[0])
        written = f"is written as {shown(str(there[key]))}" if key in there else "has no place in a .vmx"
        what = path if key == device else f"{path} = {shown(str(value))}"
        found.append(Problem(what=f"{what}: {written}", hint=hint))
    return tuple(found)


def _flat(machine: Machine) -> Iterator[tuple[str, str, Any]]:
    """(key, path, value) of what is said. In a key, a device has its address, so that machines can be compared; its first line
    is the device itself. VMware has two IDE channels whatever is said."""
    for one in fields(machine):
        value = getattr(machine, one.name)
        if not (isinstance(value, tuple) and value and is_dataclass(value[0])):
            continue
        for number, item in enumerate(value):
            if isinstance(item, Controller) and item.bus is Bus.IDE:
                continue
            key, path = f"{one.name}[{_address(item, number)}]", f"{one.name}[{number}]"
            yield key, path, type(item)
            yield from ((f"{key}.{name}", f"{path}.{name}", each) for name, each in said(item))
    for path, value in said(machine):
        if "[" not in path:
            yield path, path, value


def _address(item: Any, number: int) -> object:
    if isinstance(item, Controller):
        return item.bus, item.number
    if isinstance(item, DiskSlot | Drive):
        return item.bus, item.controller, item.unit
    return item.number if isinstance(item, Nic | Port) else number
