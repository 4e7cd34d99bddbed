"""Rules about the place where the machine goes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgtool.model.devices import Network, NetworkKind, Nic
from imgtool.model.machine import FirmwareKind
from imgtool.model.situation import Level, Situation, SourceDisk
from imgtool.units import size

MARGIN = 1 << 30
"""Bytes that shall be left on a storage: a full datastore stops other machines."""
DNS_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
UNWELCOME = {"esxi": set('/[]%\\"\0')}
"""In names of machines: they separate or escape something in paths of datastores and folders."""
ELSEWHERE = set("/\0")


def name_taken(it: Situation) -> Iterator[str]:
    if any(one.name == it.result.name for one in it.target.machines):
        yield f"the target already has a machine named {it.result.name}"


def uuid_taken(it: Situation) -> Iterator[str]:
    if it.result.uuid:
        yield from (f"the uuid {it.result.uuid} belongs to {one.name} at the target" for one in it.target.machines
                    if one.uuid == it.result.uuid)


def mac_taken(it: Situation) -> Iterator[str]:
    mine = {nic.mac for nic in it.result.nics if nic.mac}
    for one in it.target.machines:
        yield from (f"the address {mac} belongs to {one.name} at the target" for mac in sorted(mine & set(one.macs)))


def mac_twice(it: Situation) -> Iterator[str]:
    macs = [nic.mac for nic in it.result.nics if nic.mac]
    yield from (f"two cards have the address {mac}" for mac in sorted({mac for mac in macs if macs.count(mac) > 1}))


def name_invalid(it: Situation) -> Iterator[str]:
    unwelcome = UNWELCOME.get(it.target.kind, ELSEWHERE)
    if unwelcome & set(it.result.name) or not it.result.name.isprintable() or it.result.name != it.result.name.strip():
        yield f"the name {it.result.name!r} has characters that the target may not take"


def name_odd(it: Situation) -> Iterator[str]:
    if not DNS_NAME.fullmatch(it.result.name) and not list(name_invalid(it)):
        yield f"the name {it.result.name!r} is not a valid host name"


def room(it: Situation) -> Iterator[str]:
    need = needed(it)
    if it.target.free is not None and need is not None and need > it.target.free:
        yield (f"{it.target.storage or 'the target'} has {size(it.target.free)} left, and {size(need)} are needed: "
               f"{size(need - it.target.free)} more")


def tight(it: Situation) -> Iterator[str]:
    need = needed(it)
    if it.target.free is not None and need is not None and need <= it.target.free < need + MARGIN:
        yield f"{it.target.storage or 'the target'} will be nearly full: {size(it.target.free - need)} left"


def overcommitted(it: Situation) -> Iterator[str]:
    most = sum(disk.capacity for disk in it.source.disks)
    if it.target.free is not None and not it.asked.thick and most > it.target.free and not list(room(it)):
        yield f"thin disks of {size(most)} can outgrow the {size(it.target.free)} that are left"


def needed(it: Situation) -> int | None:
    """Bytes at the target: the capacity of thick disks, the data of thin ones; None where nobody knows."""
    sizes = [disk.capacity if it.asked.thick else _data(disk) for disk in it.source.disks]
    return sum(sizes) if sizes else None


def _data(disk: SourceDisk) -> int:
    return disk.capacity if disk.data is None else disk.data


def staging(it: Situation) -> Iterator[str]:
    need = sum(_data(disk) for disk in it.source.disks)
    if it.asked.staged and it.target.staging_free is not None and need > it.target.staging_free:
        yield f"the staged copy needs {size(need)} here, and {size(it.target.staging_free)} are left"


def storage(it: Situation) -> Iterator[str]:
    if it.target.storages and it.target.storage not in it.target.storages:
        yield f"there is no storage {it.target.storage!r} at the target; there are: {', '.join(sorted(it.target.storages))}"


def network_missing(it: Situation) -> Iterator[str]:
    known = it.target.networks
    for nic in it.result.nics if known is not None else ():
        name = _named(nic.network)
        if nic.network.kind in (NetworkKind.BRIDGE, NetworkKind.NETWORK) and not {name, nic.network.name} & set(known or ()):
            there = ", ".join(known or ()) or "none"
            yield f"card {nic.number} is to be on {name}, which the target does not have; it has: {there}"


def _named(network: Network) -> str:
    return f"{network.kind}:{network.name}"


def network_none(it: Situation) -> Iterator[str]:
    before = {nic.number: nic for nic in it.machine.nics}
    for nic in it.result.nics:
        if nic.network.kind == NetworkKind.NONE and _was_connected(before.get(nic.number)):
            yield f"card {nic.number} will not be connected"


def _was_connected(nic: Nic | None) -> bool:
    return nic is not None and nic.network.kind != NetworkKind.NONE and nic.connected is not False


def licence(it: Situation) -> Iterator[str]:
    if it.target.can_write is False:
        yield "the target's licence does not allow changes through the API: no machine can be made there"


def maintenance(it: Situation) -> Iterator[str]:
    if it.target.maintenance:
        yield "the target host is in maintenance mode"


def hardware_version(it: Situation) -> Iterator[str]:
    known, wanted = it.target.hardware_version, it.result.hardware_version
    if known and wanted and wanted > known:
        yield f"the machine needs virtual hardware {wanted}, and the target knows {known}"


def tools(it: Situation) -> Iterator[str]:
    yield from it.target.missing_tools


def tls(it: Situation) -> Iterator[str]:
    if it.target.tls == "unchecked":
        yield "the target's certificate is not checked (no_verify)"


def no_resume(it: Situation) -> Iterator[str]:
    if not it.target.can_resume:
        yield "an upload to the target cannot resume inside a disk: after an interruption a disk is sent from its beginning"


def firmware(it: Situation) -> Iterator[str]:
    if it.machine.firmware.kind == FirmwareKind.UEFI and it.machine.firmware.nvram:
        yield "the firmware's variables are not carried over: the guest boots by its fallback loader"


def secure_boot(it: Situation) -> Iterator[str]:
    if it.machine.firmware.secure_boot and not it.result.firmware.secure_boot:
        yield "secure boot is on at the source, and off at the target"


def clone_warning(it: Situation) -> Iterator[str]:
    if it.machine.nics and not it.asked.new_identity:
        yield "the target's machine has the addresses of the source's: never start both on one network"


RULES = (
    ("target.name", Level.FATAL, name_taken, "choose another name with --name, or remove that machine"),
    ("target.name.invalid", Level.FATAL, name_invalid, "choose another with --name"),
    ("target.uuid", Level.FATAL, uuid_taken, "--new-identity gives a new one"),
    ("target.mac", Level.FATAL, mac_taken, "--new-identity gives new addresses"),
    ("target.mac.twice", Level.FATAL, mac_twice, "change one of them at the source"),
    ("target.storage", Level.FATAL, storage, "choose one of them with --storage"),
    ("target.room", Level.FATAL, room, "free some space, or choose another with --storage"),
    ("target.staging", Level.FATAL, staging, "choose another folder with --staging"),
    ("target.network", Level.FATAL, network_missing, "--map-network OLD=NEW names a network of the target"),
    ("target.licence", Level.FATAL, licence, "a licence, or a folder as target and a copy by hand"),
    ("target.hardware", Level.FATAL, hardware_version, "--hardware-version N, or a newer host"),
    ("target.tools", Level.FATAL, tools, "imgtool doctor lists what is missing, and the commands"),
    ("target.maintenance", Level.FATAL, maintenance, "choose another host, or wait"),
    ("target.network.none", Level.WARNING, network_none, "--map-network OLD=NEW names a network of the target"),
    ("target.room.tight", Level.WARNING, tight, "free some space before the machine writes"),
    ("target.room.overcommitted", Level.WARNING, overcommitted, "watch the storage, or choose --thick"),
    ("target.secure-boot", Level.WARNING, secure_boot, "turn it on when the guest has booted"),
    ("target.firmware", Level.NOTE, firmware, "imgtool adapt puts the fallback loader in place"),
    ("target.name.odd", Level.NOTE, name_odd, "another can be chosen with --name"),
    ("target.identity", Level.NOTE, clone_warning, "--new-identity, where both shall run"),
    ("target.tls", Level.WARNING, tls, "pin it with --thumbprint, or give ?cacert=FILE"),
    ("target.no-resume", Level.NOTE, no_resume, "plan the window for the largest disk"),
)
