"""Each rule of preflight speaks up where it should, and nothing does about a machine that is fine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imgtool.model.devices import Bus, Controller, DiskMode, DiskSlot, Drive, Network, NetworkKind, Nic, Passthrough
from imgtool.model.machine import Cpu, Firmware, FirmwareKind, Machine, Memory, Resources, Tpm
from imgtool.model.situation import Asked, FreeSpace, Level, Situation, SourceDisk, SourceState, Taken, TargetState
from imgtool.steps.preflight import RULES, findings, problems

GIB = 1 << 30
NIC = Nic(number=0, mac="52:54:00:00:00:01", network=Network(kind=NetworkKind.BRIDGE, name="br0"))
MACHINE = Machine(name="web01", uuid="11111111-1111-1111-1111-111111111111", disks=(DiskSlot(path="web01.vmdk"),), nics=(NIC,))
DISK = SourceDisk(name="web01.vmdk", capacity=32 * GIB, data=4 * GIB, datastore="ds1")
FINE = Situation(
    machine=MACHINE, result=MACHINE, asked=Asked(new_identity=True),
    source=SourceState(running=False, disks=(DISK,), can_write=True, tools="running",
                       guest_free=(FreeSpace(mount="/", free=GIB),)),
    target=TargetState(networks=("bridge:br0",), storage="default", storages=("default",), free=100 * GIB, can_write=True,
                       machines=(Taken(name="db01", uuid="2", macs=("52:54:00:00:00:02",)),), hardware_version=13))


def changed(part: str, **fields: Any) -> Situation:
    return replace(FINE, **{part: replace(getattr(FINE, part), **fields)})


def disk(**fields: Any) -> Situation:
    return changed("source", disks=(replace(DISK, **fields),))


def slot(**fields: Any) -> Situation:
    return changed("machine", disks=(replace(MACHINE.disks[0], **fields),))


def nic(**fields: Any) -> Situation:
    return changed("result", nics=(replace(NIC, **fields),))


TRIGGERS: dict[str, Situation] = {
    "source.running": changed("source", running=True),
    "source.suspended": changed("source", suspended=True),
    "source.encrypted": disk(encrypted=True),
    "source.disk.none": changed("machine", disks=()),
    "source.disk.capacity": disk(capacity=0),
    "source.disk.datastore": disk(datastore=""),
    "source.disk.rdm-physical": disk(kind="rdm-physical"),
    "source.disk.shared": slot(shared=True),
    "source.maintenance": changed("source", maintenance=True),
    "source.consolidation": changed("source", consolidation_needed=True),
    "source.disk.rdm-virtual": disk(kind="rdm-virtual"),
    "source.disk.independent": slot(mode=DiskMode.INDEPENDENT),
    "source.disk.nonpersistent": slot(mode=DiskMode.NONPERSISTENT),
    "source.disk.count": changed("machine", disks=MACHINE.disks * 166),
    "source.disk.vsan": disk(kind="vsan"),
    "source.snapshots": changed("source", snapshots=("before the update",)),
    "source.change-tracking": changed("source", change_tracking=True),
    "source.no-resume": changed("source", can_resume=False),
    "source.passthrough": changed("machine", passthrough=(Passthrough(kind="pci", address="0000:03:00.0"),)),
    "source.vtpm": changed("machine", tpm=Tpm(version="2.0")),
    "source.affinity": changed("machine", resources=Resources(cpu_affinity=(1, 2))),
    "source.hot-add": changed("machine", cpu=Cpu(hot_add=True)),
    "source.fault-tolerance": changed("source", fault_tolerance=True),
    "source.licence": changed("source", can_write=False),
    "source.tls": changed("source", tls="unchecked"),
    "clock": changed("target", clock_skew=-301.0),
    "source.media": changed("machine", drives=(Drive(path="[ds1] x.iso"),)),
    "target.name": changed("result", name="db01"),
    "target.name.invalid": changed("result", name="a/b"),
    "target.uuid": changed("result", uuid="2"),
    "target.mac": nic(mac="52:54:00:00:00:02"),
    "target.mac.twice": changed("result", nics=(NIC, replace(NIC, number=1))),
    "target.storage": changed("target", storage="nowhere"),
    "target.room": changed("target", free=4 * GIB - 1),
    "target.staging": replace(changed("target", staging_free=GIB), asked=Asked(new_identity=True, staged=True)),
    "target.network": nic(network=Network(kind=NetworkKind.NETWORK, name="prod")),
    "target.licence": changed("target", can_write=False),
    "target.hardware": changed("result", hardware_version=14),
    "target.tools": changed("target", missing_tools=("virsh is missing: apt-get install libvirt-clients",)),
    "target.maintenance": changed("target", maintenance=True),
    "target.network.none": nic(network=Network()),
    "target.room.tight": changed("target", free=4 * GIB + 1),
    "target.room.overcommitted": changed("target", free=31 * GIB),
    "target.secure-boot": changed("machine", firmware=Firmware(kind=FirmwareKind.UEFI, secure_boot=True)),
    "target.firmware": changed("machine", firmware=Firmware(kind=FirmwareKind.UEFI, nvram="web01.nvram")),
    "target.name.odd": changed("result", name="web 01"),
    "target.identity": changed("asked", new_identity=False),
    "target.tls": changed("target", tls="unchecked"),
    "target.no-resume": changed("target", can_resume=False),
    "guest.free": changed("source", guest_free=(FreeSpace(mount="/boot", free=49 << 20),)),
    "guest.tools": changed("source", running=True, tools="missing"),
}
ALONG = {"guest.tools": {"source.running"}, "target.room.tight": {"target.room.overcommitted"}, "source.disk.none": set()}
"""Rules that rightly speak up too."""


def test_a_machine_that_is_fine_has_no_findings() -> None:
    assert findings(FINE) == ()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_speaks_up(rule: Any) -> None:
    found = findings(TRIGGERS[rule.id])
    assert {one.rule for one in found} - ALONG.get(rule.id, set()) == {rule.id}
    (mine,) = {one for one in found if one.rule == rule.id}
    assert (mine.level, mine.hint) == (rule.level, rule.hint)
    assert mine.what


def test_the_fatal_ones_come_first_and_end_the_plan() -> None:
    found = findings(replace(changed("source", running=True, snapshots=("s",)), asked=Asked()))
    assert [one.level for one in found] == sorted((one.level for one in found), key=list(Level).index)
    assert found[0].rule == "source.running"
    first, *others = problems(found)
    assert first.fatal
    assert "[source.running]" in first.what
    assert not any(one.fatal for one in others)


def test_a_machine_that_is_encrypted_as_a_whole() -> None:
    (found,) = findings(changed("source", encrypted=True))
    assert (found.rule, found.level, "encrypted by its hypervisor" in found.what) == ("source.encrypted", Level.FATAL, True)


def test_thick_needs_the_whole_capacity() -> None:
    thick = Asked(new_identity=True, thick=True)
    assert [one.rule for one in findings(replace(changed("target", free=32 * GIB - 1), asked=thick))] == ["target.room"]
    assert [one.rule for one in findings(replace(changed("target", free=40 * GIB), asked=thick))] == []


def test_a_machine_that_will_be_shut_down_may_run() -> None:
    assert findings(replace(changed("source", running=True), asked=Asked(new_identity=True, ignore_running=True))) == ()


def test_ids_are_unique_and_levels_are_grouped_by_place() -> None:
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    assert all(one.startswith(("source.", "target.", "guest.", "clock")) for one in ids)


def test_memory_and_buses_are_no_ones_business() -> None:
    other = replace(MACHINE, memory=Memory(size=GIB), controllers=(Controller(bus=Bus.SCSI, model="pvscsi"),))
    assert findings(replace(FINE, machine=other)) == ()
