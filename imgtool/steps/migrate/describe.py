"""The machine as the target shall have it, and its description there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from imgtool.endpoints import FarTarget, HostTarget
from imgtool.kvm import kvm_state
from imgtool.model.endpoint import Seen
from imgtool.model.guest import Capabilities
from imgtool.model.machine import Machine
from imgtool.model.migration import MigrateRequest
from imgtool.model.situation import TargetState
from imgtool.model.translation import NOBODY_LOOKED, PlacedFile, Translation, Wishes
from imgtool.retarget import retarget
from imgtool.steps.translate import rendered, world_of


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must be the same each time the machine is described: drawn once."""

    uuid: str
    genid: str | None = None
    macs: tuple[str | None, ...] = ()

    def given_to(self, machine: Machine) -> Machine:
        nics = tuple(replace(nic, mac=mac) for nic, mac in zip(machine.nics, self.macs, strict=True))
        return replace(machine, uuid=self.uuid, genid=self.genid, nics=nics)


def describe(request: MigrateRequest, seen: Seen, target: HostTarget | FarTarget, state: TargetState, *,
             files: Iterable[PlacedFile], capabilities: Capabilities = NOBODY_LOOKED, sizes: Iterable[int] = (),
             identity: Identity | None = None, suffix: str = "") -> Translation:
    """``files``: where the disks will stand; ``sizes``: of the disks, in bytes; ``suffix``: behind the machine's name."""
    wishes = Wishes(
        to=target.world, whose=world_of(seen.suffix, seen.parsed.machine),
        accelerator=state.accelerator or ("kvm" if kvm_state()[0] else "qemu"),
        capabilities=capabilities, networks=request.networks, storage=request.storage, files=tuple(files),
        origin=os.path.dirname(seen.found.id) if seen.found.id.startswith("/") else "/", home=target.folder,
        name=request.new_name or seen.found.name, new_identity=request.new_identity and identity is None,
        hardware_version=request.hardware_version)
    made = retarget(_sized(seen.parsed.machine, tuple(sizes)), wishes)
    machine = identity.given_to(made.machine) if identity else made.machine
    machine = replace(machine, name=machine.name + suffix)
    told = replace(machine, uuid=None) if getattr(target, "sets_uuid", False) else machine
    done = rendered(seen.parsed, replace(made, machine=told), target.suffix)
    return replace(done, machine=replace(done.machine, uuid=machine.uuid))


def _sized(machine: Machine, sizes: tuple[int, ...]) -> Machine:
    """An OVF tells how large each disk is."""
    if len(sizes) != len(machine.disks):
        return machine
    return replace(machine, disks=tuple(replace(disk, capacity=size or None)
                                        for disk, size in zip(machine.disks, sizes, strict=True)))
