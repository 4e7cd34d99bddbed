"""The rules by which a machine of one world of hypervisors becomes one of another: all choices of hardware are made here.

::

    parse ──▶ Machine ──▶ retarget(machine, wishes) ──▶ Machine, notes, problems ──▶ render

``identity``  name, uuid, MAC addresses      ``storage``   disks, drives, their controllers; ``paths`` their files
``platform``  CPU, chipset, firmware, clock  ``network``   network cards
``extras``    ports, screens, agents, what cannot be moved

A machine that is of the target's world already keeps its hardware. Whatever is changed is a note, whatever is lost a problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from imgtool.model.machine import Machine
from imgtool.model.translation import Retargeted, Wishes, World
from imgtool.retarget import extras, identity, network, paths, platform, storage
from imgtool.retarget.log import Log

Rule = Callable[[Machine, Wishes, Log], Machine]
RULES: dict[World, tuple[Rule, ...]] = {
    World.KVM: (platform.to_kvm, storage.to_kvm, network.to_kvm, extras.to_kvm),
    World.ESXI: (storage.to_esxi, network.to_esxi, platform.to_esxi, extras.to_esxi),
}
"""The hardware version follows from the controllers and cards that were chosen; on KVM the buses follow from the chipset."""
STAYING: tuple[Rule, ...] = (platform.asked, paths.mapped, network.mapped)
"""For a machine that stays in its world."""


def world(machine: Machine) -> World | None:
    """Whose hardware a machine has: by what libvirt calls its accelerator, else by VMware's hardware version. None: another's."""
    if machine.accelerator in ("kvm", "qemu"):
        return World.KVM
    if machine.accelerator == "vmware" or (machine.accelerator is None and machine.hardware_version is not None):
        return World.ESXI
    return None


def retarget(machine: Machine, wishes: Wishes) -> Retargeted:
    """The machine as ``wishes.to`` can run it."""
    log = Log()
    rules = STAYING if (wishes.whose or world(machine)) is wishes.to else RULES[wishes.to]
    if rules is STAYING and wishes.to is World.ESXI:
        machine = replace(machine, accelerator=log.change("accelerator", machine.accelerator, None, "what a .vmx need not say"))
    for rule in (*rules, identity.identity):
        machine = rule(machine, wishes, log)
    return Retargeted(machine=machine, notes=tuple(log.notes), problems=tuple(log.problems), moved=tuple(log.moved.items()))
