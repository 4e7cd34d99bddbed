"""What is on a libvirt host: machines, networks, storage pools. Functions raise libvirtError unless they say otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgtool.errors import UsageError
from imgtool.model.endpoint import Found, Power
from imgtool.model.situation import Taken

if TYPE_CHECKING:
    import libvirt

MAC = re.compile(r"<mac\s+address=['\"]([0-9A-Fa-f:]{17})['\"]")
FILE_POOLS = ("dir", "fs", "netfs", "gluster", "vstorage")
SHOWN = 40
"""Names that an error lists."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A storage pool. Sizes are bytes."""

    name: str
    kind: str
    """dir, fs, netfs, logical, …"""
    path: str | None
    active: bool
    capacity: int
    free: int

    @property
    def holds_files(self) -> bool:
        """Volumes are files, which can be thin and of any format; else they are raw block devices."""
        return self.kind in FILE_POOLS


def domains(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
    return sorted(connection.listAllDomains(), key=lambda domain: domain.name())


def machines(connection: libvirt.virConnect) -> list[Found]:
    return [found(domain) for domain in domains(connection)]


def found(domain: libvirt.virDomain) -> Found:
    return Found(name=domain.name(), id=domain.UUIDString(), power=power(domain))


def power(domain: libvirt.virDomain) -> Power:
    """A machine whose memory was saved is suspended; one that only pauses is running."""
    import libvirt

    if domain.isActive():
        return Power.SUSPENDED if domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED else Power.RUNNING
    return Power.SUSPENDED if domain.hasManagedSaveImage() else Power.OFF


def find(connection: libvirt.virConnect, name: str, where: str) -> Found:
    """By name or uuid. Raises UsageError with the names that there are."""
    known = machines(connection)
    for one in known:
        if name in (one.name, one.id):
            return one
    raise UsageError(f"there is no machine {name!r} on {where}", f"there are: {listed([one.name for one in known])}")


def listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def description(domain: libvirt.virDomain) -> bytes:
    """Its XML as it will be at its next start; without passwords."""
    import libvirt

    text: str = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return text.encode("utf-8", "surrogateescape")


def snapshots(domain: libvirt.virDomain) -> tuple[str, ...]:
    return tuple(sorted(domain.snapshotListNames()))


def taken(connection: libvirt.virConnect) -> tuple[Taken, ...]:
    """Names, uuids and addresses of all machines of the host."""
    return tuple(Taken(name=domain.name(), uuid=domain.UUIDString(),
                       macs=tuple(mac.lower() for mac in MAC.findall(domain.XMLDesc(0)))) for domain in domains(connection))


def networks(connection: libvirt.virConnect) -> tuple[str, ...]:
    """``network:NAME`` of the virtual networks, ``bridge:NAME`` of the host's bridges where libvirt can list them."""
    import libvirt

    virtual = connection.listAllNetworks()
    names = [f"network:{one.name()}" for one in virtual]
    names += [f"bridge:{one.bridgeName()}" for one in virtual if _bridge(one)]
    try:
        names += [f"bridge:{one.name()}" for one in connection.listAllInterfaces() if "type='bridge'" in one.XMLDesc(0)]
    except libvirt.libvirtError:  # no interface driver
        names += [f"bridge:{name}" for name in _bridges_by_node(connection)]
    return tuple(sorted(set(names)))


def _bridge(network: libvirt.virNetwork) -> bool:
    import libvirt

    try:
        return bool(network.bridgeName())
    except libvirt.libvirtError:
        return False


def _bridges_by_node(connection: libvirt.virConnect) -> Iterator[str]:
    """Network devices of the host; which of them are bridges it does not say."""
    import libvirt

    try:
        devices = connection.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET)
    except libvirt.libvirtError:
        return
    for device in devices:
        match = re.search(r"<interface>([^<]+)</interface>", device.XMLDesc(0))
        if match:
            yield match[1]


def pools(connection: libvirt.virConnect) -> tuple[Pool, ...]:
    return tuple(sorted((_pool(one) for one in connection.listAllStoragePools()), key=lambda pool: pool.name))


def _pool(pool: libvirt.virStoragePool) -> Pool:
    from lxml import etree

    root = etree.fromstring(pool.XMLDesc(0))
    _, capacity, _, free = pool.info()
    return Pool(name=pool.name(), kind=root.get("type", "dir"), path=root.findtext("target/path"), active=bool(pool.isActive()),
                capacity=capacity, free=free)


def choose(known: tuple[Pool, ...], wanted: str | None, where: str) -> Pool:
    """The pool of that name or path; without one ``default``, or the only one. Raises UsageError with what there is."""
    usable = [pool for pool in known if pool.active and pool.holds_files and pool.path]
    matching = [pool for pool in usable if wanted in (pool.name, pool.path)] if wanted else \
        [pool for pool in usable if pool.name == "default"] or usable
    if len(matching) == 1:
        return matching[0]
    raise UsageError(f"{_why(known, wanted)} on {where}", "--storage NAME; there are: " +
                     listed([f"{pool.name} ({pool.path})" for pool in usable]))


def _why(known: tuple[Pool, ...], wanted: str | None) -> str:
    if wanted is None:
        return "which storage pool shall it be?"
    there = next((pool for pool in known if wanted in (pool.name, pool.path)), None)
    if there is None:
        return f"there is no storage pool {wanted!r}"
    if not there.active:
        return f"the storage pool {wanted!r} is not active (virsh pool-start starts it)"
    return f"the storage pool {wanted!r} is of type {there.kind}: its volumes are no files"


def accelerator(connection: libvirt.virConnect) -> str:
    """kvm, or qemu where the host can only emulate."""
    from lxml import etree

    root = etree.fromstring(connection.getCapabilities())
    guests = [guest for guest in root.iterfind("guest") if guest.findtext("os_type") == "hvm"]
    kinds = {one.get("type") for guest in guests for one in guest.iterfind("arch[@name='x86_64']/domain")}
    return "kvm" if "kvm" in kinds else "qemu"


def owner(connection: libvirt.virConnect) -> tuple[int, int] | None:
    """(uid, gid) that QEMU runs as; None where libvirt does not say. libvirt gives it files only while they are in use, and only
    where ``dynamic_ownership`` is on: what belongs to it already is right in both cases."""
    from lxml import etree

    root = etree.fromstring(connection.getCapabilities())
    for label in root.iterfind("host/secmodel[model='dac']/baselabel"):
        if match := re.fullmatch(r"\+(\d+):\+(\d+)", label.text or ""):
            return int(match[1]), int(match[2])
    return None
