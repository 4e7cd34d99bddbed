"""What is on a libvirt host: machines, networks, storage pools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgtool.errors import UsageError
from imgtool.model.situation import Taken

if TYPE_CHECKING:
    import libvirt

MAC = re.compile(r"<mac\s+address=['\"]([0-9A-Fa-f:]{17})['\"]")
TARGET_PATH = re.compile(r"<target>.*?<path>([^<]*)</path>", re.DOTALL)
POOL_TYPE = re.compile(r"<pool\s+type=['\"]([a-z-]+)['\"]")


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
        return self.kind in ("dir", "fs", "netfs", "gluster", "vstorage")


def domains(connection: libvirt.virConnect) -> list[libvirt.virDomain]:
    return sorted(connection.listAllDomains(), key=lambda domain: domain.name())


def find(connection: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """By name or uuid. Raises UsageError with the names that there are."""
    known = domains(connection)
    for domain in known:
        if name in (domain.name(), domain.UUIDString()):
            return domain
    raise UsageError(f"there is no machine {name!r} on {connection.getURI()}",
                     "there are: " + (", ".join(domain.name() for domain in known) or "none"))


def description(domain: libvirt.virDomain) -> bytes:
    """Its XML as it will be at its next start; without passwords."""
    import libvirt

    text: str = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return text.encode("utf-8", "surrogateescape")


def running(domain: libvirt.virDomain) -> bool:
    return bool(domain.isActive())


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
    found = [f"network:{one.name()}" for one in virtual]
    found += [f"bridge:{one.bridgeName()}" for one in virtual if _bridge(one)]
    try:
        found += [f"bridge:{one.name()}" for one in connection.listAllInterfaces() if "type='bridge'" in one.XMLDesc(0)]
    except libvirt.libvirtError:  # no interface driver, as on Debian
        found += [f"bridge:{name}" for name in _bridges_by_node(connection)]
    return tuple(sorted(set(found)))


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
    text = pool.XMLDesc(0)
    kind, path = POOL_TYPE.search(text), TARGET_PATH.search(text)
    _, capacity, _, free = pool.info()
    return Pool(name=pool.name(), kind=kind[1] if kind else "dir", path=path[1] if path else None, active=bool(pool.isActive()),
                capacity=capacity, free=free)


def choose(connection: libvirt.virConnect, wanted: str | None) -> Pool:
    """The pool of that name or path; without one ``default``, or the only one. Raises UsageError with what there is."""
    found = [pool for pool in pools(connection) if pool.active]
    matching = [pool for pool in found if wanted in (pool.name, pool.path)] if wanted else \
        [pool for pool in found if pool.name == "default"] or found
    if len(matching) == 1:
        return matching[0]
    there = ", ".join(f"{pool.name} ({pool.path or pool.kind})" for pool in found) or "none"
    what = f"there is no active storage pool {wanted!r}" if wanted else "which storage pool shall it be?"
    raise UsageError(f"{what} on {connection.getURI()}", f"--storage NAME; there are: {there}")
