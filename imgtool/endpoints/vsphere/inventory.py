"""What is on a vSphere server: machines, and what the API knows of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from imgtool.endpoints.vsphere import properties
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import UsageError
from imgtool.model.endpoint import Facts, Found, Power, RemoteDisk, Volume

POWER = {"poweredOff": Power.OFF, "poweredOn": Power.RUNNING, "suspended": Power.SUSPENDED}
LISTED = 20
"""Names in a message."""
MACHINE = ("name", "parent", "runtime.powerState")
ALL_FACTS = (
    "name", "parent", "runtime.powerState", "runtime.consolidationNeeded", "config.files.vmPathName", "config.hardware.device",
    "config.changeTrackingEnabled", "config.keyId", "config.template", "config.uuid", "snapshot", "guest.toolsRunningStatus",
    "guest.hostName", "guest.disk", "layoutEx.disk", "layoutEx.file")

RDM = {"physicalMode": "rdm-physical", "virtualMode": "rdm-virtual"}
DISKS = {"FlatVer1": "flat", "FlatVer2": "flat", "SparseVer1": "sparse", "SparseVer2": "sparse", "SeSparse": "sesparse"}


def machines(session: Session) -> list[Found]:
    """All machines, by folder and name. Raises ImgtoolError."""
    folders = Folders(session)
    found = properties.all_of(session, "VirtualMachine", MACHINE, "listing the machines")
    return sorted((_found(identity, each, folders) for identity, each in found.items()), key=lambda one: (one.folder, one.name))


def find(session: Session, name: str) -> Found:
    """A machine by ``name``, ``folder/name`` or id. Raises UsageError, with what there is."""
    known = machines(session)
    fitting = [one for one in known if name in (one.name, f"{one.folder}/{one.name}", one.id)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{len(fitting)} machines are called {name!r}",
                         "say which: " + ", ".join(f"{one.folder}/{one.name} ({one.id})" for one in fitting[:LISTED]))
    raise UsageError(f"there is no machine {name!r} on {session.account.host}", "there are: " + listed(one.name for one in known))


def listed(names: Iterator[str]) -> str:
    """Names for a message: quoted where that is needed, and not too many."""
    each = [repr(name) for name in names]
    more = f" and {len(each) - LISTED} more" if len(each) > LISTED else ""
    return (", ".join(each[:LISTED]) or "none") + more


def _found(identity: str, seen: properties.Properties, folders: Folders) -> Found:
    return Found(name=str(seen.get("name", identity)), id=identity, folder=folders.path(seen.get("parent")),
                 power=POWER.get(str(seen.get("runtime.powerState")), Power.RUNNING))


class Folders:
    """The tree of the inventory above machines."""

    def __init__(self, session: Session) -> None:
        self._nodes: dict[str, tuple[str, str | None, str]] = {}
        for kind in ("Folder", "Datacenter", "VirtualApp"):
            for identity, seen in properties.all_of(session, kind, ("name", "parent"), "reading the inventory").items():
                parent = seen.get("parent")
                self._nodes[identity] = (str(seen.get("name", "")), getattr(parent, "_moId", None), kind)

    def _above(self, identity: str | None) -> Iterator[tuple[str, str]]:
        """(name, kind) from the object up to the root, which has no name."""
        seen: set[str] = set()
        while identity in self._nodes and identity not in seen:
            seen.add(identity)
            name, parent, kind = self._nodes[identity]
            yield name, kind
            identity = parent

    def path(self, reference: Any) -> str:
        """``Folder/Datacenter/vm/web``, of an object of pyvmomi."""
        return "/".join(name for name, _ in reversed([*self._above(getattr(reference, "_moId", None))]))

    def datacenter(self, reference: Any) -> str:
        """The dcPath of what lies below a datacenter: its name with the folders above it, without a leading slash."""
        names = [*self._above(getattr(reference, "_moId", None))]
        kinds = [kind for _, kind in names]
        top = names[kinds.index("Datacenter"):] if "Datacenter" in kinds else []
        return "/".join(name for name, _ in reversed(top))


def datacenter(session: Session, found: Found) -> str:
    """The dcPath of a machine's datastores."""
    seen = properties.of(session, ("VirtualMachine", found.id), ("parent",), f"looking for {found.name}")
    return Folders(session).datacenter(seen.get("parent"))


def facts(session: Session, found: Found) -> Facts:
    """What the API says of a machine. Raises ImgtoolError."""
    seen = properties.of(session, ("VirtualMachine", found.id), ALL_FACTS, f"describing {found.name}")
    devices = list(seen.get("config.hardware.device", ()))
    cards = [one for one in devices if hasattr(one, "macAddress")]
    tools = seen.get("guest.toolsRunningStatus")
    return Facts(
        found=found, description=str(seen.get("config.files.vmPathName", "")), disks=_disks(session, devices, _allocated(seen)),
        snapshots=tuple(_snapshots(getattr(seen.get("snapshot"), "rootSnapshotList", None) or ())),
        networks=tuple(_network(one) for one in cards), macs=tuple(str(one.macAddress or "").lower() for one in cards),
        uuid=seen.get("config.uuid"), devices=tuple(_kind(one) for one in devices if not _is_disk(one)),
        tracking=seen.get("config.changeTrackingEnabled"), encrypted=seen.get("config.keyId") is not None,
        consolidation_needed=bool(seen.get("runtime.consolidationNeeded")), template=bool(seen.get("config.template")),
        tools_running=None if tools is None else tools == "guestToolsRunning", hostname=seen.get("guest.hostName") or None,
        volumes=tuple(Volume(path=str(one.diskPath), capacity=int(one.capacity or 0), free=int(one.freeSpace or 0))
                      for one in seen.get("guest.disk") or ()))


def _kind(device: Any) -> str:
    """``VirtualTPM``: the API's name of a device's class."""
    return type(device).__name__.rsplit(".", 1)[-1]


def _is_disk(device: Any) -> bool:
    return _kind(device) == "VirtualDisk"


def _snapshots(tree: Any) -> Iterator[str]:
    for each in tree:
        yield str(each.name)
        yield from _snapshots(each.childSnapshotList or ())


def _network(card: Any) -> str:
    backing = card.backing
    return str(getattr(backing, "deviceName", None) or getattr(getattr(backing, "port", None), "portgroupKey", None) or "")


def _allocated(seen: properties.Properties) -> dict[int, int]:
    """Bytes that the extents of each disk take, its whole chain, by the device's key."""
    sizes = {each.key: int(each.size or 0) for each in seen.get("layoutEx.file") or () if each.type == "diskExtent"}
    return {each.key: sum(sizes.get(key, 0) for unit in each.chain or () for key in unit.fileKey or ())
            for each in seen.get("layoutEx.disk") or ()}


def _disks(session: Session, devices: list[Any], allocated: dict[int, int]) -> tuple[RemoteDisk, ...]:
    disks = [one for one in devices if _is_disk(one)]
    stores = [one.backing.datastore for one in disks if getattr(one.backing, "datastore", None) is not None]
    kinds = properties.of_all(session, stores, ("summary.type",), "reading the datastores")
    found = (_disk(one, {each.key: each for each in devices}, kinds) for one in disks)
    return tuple(replace(one, allocated=allocated.get(one.key)) for one in found)


def _disk(device: Any, devices: dict[int, Any], kinds: dict[str, properties.Properties]) -> RemoteDisk:
    backing = device.backing
    name = _kind(backing).removeprefix("VirtualDisk").removesuffix("BackingInfo")
    kind = RDM.get(str(getattr(backing, "compatibilityMode", ""))) or DISKS.get(name, name)
    store = getattr(getattr(backing, "datastore", None), "_moId", "")
    controller = devices.get(device.controllerKey)
    return RemoteDisk(
        path=str(getattr(backing, "fileName", "")), key=int(device.key), kind=kind,
        capacity=int(device.capacityInBytes or 1024 * int(device.capacityInKB or 0)),
        controller=_slot(controller, device.unitNumber), thin=getattr(backing, "thinProvisioned", None),
        mode=str(getattr(backing, "diskMode", "") or "persistent"),
        shared=getattr(backing, "sharing", None) == "sharingMultiWriter" or _bus_shared(controller),
        snapshot=getattr(backing, "parent", None) is not None, tracked=bool(getattr(backing, "changeId", None)),
        datastore_kind=str(kinds.get(store, {}).get("summary.type", "")))


def _bus_shared(controller: Any) -> bool:
    return getattr(controller, "sharedBus", "noSharing") in ("virtualSharing", "physicalSharing")


def _slot(controller: Any, unit: int | None) -> str:
    """``scsi0:1``, as a .vmx calls it."""
    kind = _kind(controller)
    bus = "ide" if "IDE" in kind else "sata" if "SATA" in kind or "AHCI" in kind else "nvme" if "NVME" in kind else "scsi"
    return f"{bus}{getattr(controller, 'busNumber', 0)}:{unit or 0}"
