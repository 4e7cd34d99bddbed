"""Rules about the machine and the place where it is."""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.model.devices import DiskMode
from imgtool.model.situation import Level, Situation

MANY_DISKS = 165
"""Fewer than this fit on the controllers of any hypervisor here."""
SKEW = 300.0
"""Seconds. Certificates and sessions begin to fail, and journals cannot be compared."""


def running(it: Situation) -> Iterator[str]:
    if it.source.running and not it.asked.ignore_running:
        yield f"{it.machine.name} is running: its disks change while they are read"


def suspended(it: Situation) -> Iterator[str]:
    if it.source.suspended:
        yield f"{it.machine.name} is suspended: its memory cannot be moved, and its file systems are not clean"


def encrypted(it: Situation) -> Iterator[str]:
    if it.source.encrypted:
        yield f"{it.machine.name} is encrypted by its hypervisor"
    yield from (f"disk {disk.name} is encrypted by its hypervisor" for disk in it.source.disks if disk.encrypted)


def capacity(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.name} has a capacity of {disk.capacity} bytes" for disk in it.source.disks if disk.capacity <= 0)


def no_disks(it: Situation) -> Iterator[str]:
    if not it.machine.disks:
        yield f"{it.machine.name} has no hard disk"


def many_disks(it: Situation) -> Iterator[str]:
    if len(it.machine.disks) > MANY_DISKS:
        yield f"{it.machine.name} has {len(it.machine.disks)} disks"


def datastore(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.name} is on no datastore that can be reached" for disk in it.source.disks if disk.datastore == "")


def rdm_physical(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.name} is a raw device mapping in physical mode: only the device itself can be read"
                for disk in it.source.disks if disk.kind == "rdm-physical")


def rdm_virtual(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.name} is a raw device mapping: it becomes an ordinary disk"
                for disk in it.source.disks if disk.kind == "rdm-virtual")


def shared(it: Situation) -> Iterator[str]:
    names = {disk.path for disk in it.machine.disks if disk.shared} | {disk.name for disk in it.source.disks if disk.shared}
    yield from (f"disk {name} is shared with other machines: each would get a copy of its own" for name in sorted(names))
    yield from (f"the {one.bus} controller {one.number} is shared with other machines ({one.shared})"
                for one in it.machine.controllers if one.shared)


def independent(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.path} is independent: no snapshot has it" for disk in it.machine.disks
                if disk.mode == DiskMode.INDEPENDENT)


def nonpersistent(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.path} is nonpersistent: it discards what is written to it at power off" for disk in it.machine.disks
                if disk.mode == DiskMode.NONPERSISTENT)


def snapshots(it: Situation) -> Iterator[str]:
    names = it.source.snapshots or tuple(one.name for one in it.machine.snapshots)
    if names:
        yield f"{it.machine.name} has snapshots ({', '.join(names)}): the current state is copied, the snapshots are not"


def consolidation(it: Situation) -> Iterator[str]:
    if it.source.consolidation_needed:
        yield f"the snapshots of {it.machine.name} need consolidation"


def change_tracking(it: Situation) -> Iterator[str]:
    if it.source.change_tracking:
        yield f"changed block tracking of {it.machine.name} is not carried over"


def vsan(it: Situation) -> Iterator[str]:
    yield from (f"disk {disk.name} is on {'vSAN' if disk.kind == 'vsan' else 'a virtual volume'}: there is no flat file to read"
                for disk in it.source.disks if disk.kind in ("vsan", "vvol"))


def no_resume(it: Situation) -> Iterator[str]:
    if not it.source.can_resume:
        yield "reading these disks cannot resume inside a disk: after an interruption a disk starts from its beginning"


def passthrough(it: Situation) -> Iterator[str]:
    yield from (f"the {one.kind} device {one.name or one.address or ''} belongs to the host: it is not carried over"
                for one in it.machine.passthrough)


def vtpm(it: Situation) -> Iterator[str]:
    if it.machine.tpm:
        yield f"the TPM of {it.machine.name} holds secrets that are not carried over (BitLocker, LUKS keys)"


def affinity(it: Situation) -> Iterator[str]:
    if it.machine.resources.cpu_affinity:
        yield f"{it.machine.name} is pinned to processors of its host"


def hot_add(it: Situation) -> Iterator[str]:
    if it.machine.cpu.hot_add or it.machine.memory.hot_add:
        yield f"{it.machine.name} may get processors or memory while it runs: check whether the target supports that"


def fault_tolerance(it: Situation) -> Iterator[str]:
    if it.source.fault_tolerance:
        yield f"fault tolerance of {it.machine.name} is on"


def maintenance(it: Situation) -> Iterator[str]:
    if it.source.maintenance:
        yield f"the host of {it.machine.name} is in maintenance mode"


def licence(it: Situation) -> Iterator[str]:
    if it.source.can_write is False:
        yield "the source's licence does not allow changes through the API: no export lease, no shutdown"


def tls(it: Situation) -> Iterator[str]:
    if it.source.tls == "unchecked":
        yield "the source's certificate is not checked (no_verify)"


def clock(it: Situation) -> Iterator[str]:
    for where, skew in (("source", it.source.clock_skew), ("target", it.target.clock_skew)):
        if abs(skew) > SKEW:
            yield f"the clock of the {where} is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"


def mounted_media(it: Situation) -> Iterator[str]:
    yield from (f"the {'floppy' if one.floppy else 'CD-ROM'} {one.path} is in its drive" for one in it.machine.drives if one.path)


RULES = (
    ("source.running", Level.FATAL, running, "power it off, or let --shutdown-source do it"),
    ("source.suspended", Level.FATAL, suspended, "resume it and shut it down"),
    ("source.encrypted", Level.FATAL, encrypted, "decrypt it at the source first"),
    ("source.disk.none", Level.FATAL, no_disks, "a machine without disks needs no copy: imgtool translate"),
    ("source.disk.capacity", Level.FATAL, capacity, "look at the disk's descriptor at the source"),
    ("source.disk.datastore", Level.FATAL, datastore, "bring the datastore back, or detach the disk"),
    ("source.disk.rdm-physical", Level.FATAL, rdm_physical, "make the mapping virtual, or read the device by itself"),
    ("source.disk.shared", Level.FATAL, shared, "move a cluster's disks once, with all its machines stopped; detach it here"),
    ("source.maintenance", Level.WARNING, maintenance, "wait until it is over, or move the machine to another host"),
    ("source.consolidation", Level.WARNING, consolidation, "consolidate at the source, so that the chain is whole"),
    ("source.disk.rdm-virtual", Level.WARNING, rdm_virtual, "make sure that there is room for its full size"),
    ("source.disk.independent", Level.NOTE, independent, "it is copied like the others"),
    ("source.disk.nonpersistent", Level.WARNING, nonpersistent, "it becomes a disk that keeps what is written"),
    ("source.disk.count", Level.WARNING, many_disks, "split the machine, or detach what it does not need"),
    ("source.disk.vsan", Level.WARNING, vsan, "it is read through an export lease"),
    ("source.snapshots", Level.WARNING, snapshots, "delete or consolidate them at the source if they are not needed"),
    ("source.change-tracking", Level.NOTE, change_tracking, "backup programs at the target have their own"),
    ("source.no-resume", Level.NOTE, no_resume, "plan the window for the largest disk"),
    ("source.passthrough", Level.WARNING, passthrough, "give it a device of the new host if the guest needs one"),
    ("source.vtpm", Level.WARNING, vtpm, "have recovery keys at hand, or suspend BitLocker before"),
    ("source.affinity", Level.WARNING, affinity, "pin it anew at the target if it must be"),
    ("source.hot-add", Level.NOTE, hot_add, "shut down to add, where it is not kept"),
    ("source.fault-tolerance", Level.WARNING, fault_tolerance, "turn it off at the source"),
    ("source.licence", Level.NOTE, licence, "files are read over HTTPS or SSH"),
    ("source.tls", Level.WARNING, tls, "pin it with --thumbprint, or give ?cacert=FILE"),
    ("clock", Level.WARNING, clock, "set the clocks (NTP)"),
    ("source.media", Level.NOTE, mounted_media, "the drive is empty at the target if the file is not there"),
)
