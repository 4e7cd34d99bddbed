"""What the API knows of a machine beyond its description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from imgtool.endpoints.vsphere import machines, properties
from imgtool.endpoints.vsphere.inventory import POWER
from imgtool.endpoints.vsphere.login import Session, clock_skew
from imgtool.model.endpoint import Found, Power, RemoteDisk
from imgtool.model.situation import FreeSpace, SourceDisk, SourceState

ASKED = (
    "runtime.powerState", "runtime.consolidationNeeded", "runtime.host", "runtime.faultToleranceState", "config.files.vmPathName",
    "config.hardware.device", "config.changeTrackingEnabled", "config.keyId", "config.template", "snapshot",
    "guest.toolsRunningStatus", "guest.toolsVersionStatus2", "guest.disk", "layoutEx.disk", "layoutEx.file")
RDM = {"physicalMode": "rdm-physical", "virtualMode": "rdm-virtual"}
DISKS = {"FlatVer1": "flat", "FlatVer2": "flat", "SparseVer1": "sparse", "SparseVer2": "sparse", "SeSparse": "sesparse"}
STORES = {"vsan": "vsan", "vsand": "vsan", "vvol": "vvol"}
"""Kinds of datastore that give out no flat files."""
BUSES = {"IDE": "ide", "SATA": "sata", "AHCI": "sata", "NVME": "nvme"}
TOOLS = {"guestToolsNotInstalled": "missing", "guestToolsTooOld": "old", "guestToolsBlacklisted": "old"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    found: Found
    """As it is now."""
    description: str
    """Where the description stands: ``[datastore] folder/x.vmx``."""
    disks: tuple[RemoteDisk, ...]
    state: SourceState
    template: bool = False


def facts(session: Session, found: Found) -> Facts:
    """Raises ImgtoolError."""
    seen = properties.of(session, ("VirtualMachine", found.id), ASKED, f"describing {found.name}")
    disks = _disks(session, list(seen.get("config.hardware.device", ())), _allocated(seen))
    power = POWER.get(str(seen.get("runtime.powerState")), Power.RUNNING)
    state = SourceState(
        running=power is Power.RUNNING, suspended=power is Power.SUSPENDED, disks=tuple(_source_disk(one) for one in disks),
        snapshots=tuple(_snapshots(getattr(seen.get("snapshot"), "rootSnapshotList", None) or ())),
        consolidation_needed=bool(seen.get("runtime.consolidationNeeded")), encrypted=seen.get("config.keyId") is not None,
        change_tracking=seen.get("config.changeTrackingEnabled"),
        fault_tolerance=seen.get("runtime.faultToleranceState") not in (None, "notConfigured"),
        maintenance=_maintenance(session, seen.get("runtime.host")), can_write=machines.writable(session),
        tls=session.account.trust.word, tools=_tools(seen), clock_skew=clock_skew(session),
        guest_free=tuple(FreeSpace(mount=str(one.diskPath), free=int(one.freeSpace or 0))
                         for one in seen.get("guest.disk") or ()))
    return Facts(found=replace(found, power=power), description=str(seen.get("config.files.vmPathName", "")), disks=disks,
                 state=state, template=bool(seen.get("config.template")))


def _maintenance(session: Session, host: Any) -> bool:
    if host is None:
        return False
    return bool(properties.of(session, host, ("runtime.inMaintenanceMode",), "asking the host").get("runtime.inMaintenanceMode"))


def _tools(seen: properties.Properties) -> str | None:
    running = seen.get("guest.toolsRunningStatus")
    if running is None:
        return None
    bad = TOOLS.get(str(seen.get("guest.toolsVersionStatus2")))
    return bad or ("running" if running == "guestToolsRunning" else "stopped")


def _source_disk(disk: RemoteDisk) -> SourceDisk:
    kind = STORES.get(disk.datastore_kind.lower(), disk.kind) if disk.kind == "flat" else disk.kind
    return SourceDisk(name=disk.path, capacity=disk.capacity, data=disk.allocated, kind=kind, datastore=disk.datastore,
                      shared=disk.shared, encrypted=disk.encrypted)


def _kind(device: Any) -> str:
    """``VirtualTPM``: the API's name of a device's class."""
    return type(device).__name__.rsplit(".", 1)[-1]


def _snapshots(tree: Any) -> Iterator[str]:
    for each in tree:
        yield str(each.name)
        yield from _snapshots(each.childSnapshotList or ())


def _allocated(seen: properties.Properties) -> dict[int, int]:
    """Bytes that the extents of each disk take, its whole chain, by the device's key."""
    sizes = {each.key: int(each.size or 0) for each in seen.get("layoutEx.file") or () if each.type == "diskExtent"}
    return {each.key: sum(sizes.get(key, 0) for unit in each.chain or () for key in unit.fileKey or ())
            for each in seen.get("layoutEx.disk") or ()}


def _disks(session: Session, devices: list[Any], allocated: dict[int, int]) -> tuple[RemoteDisk, ...]:
    disks = [one for one in devices if _kind(one) == "VirtualDisk"]
    stores = [one.backing.datastore for one in disks if getattr(one.backing, "datastore", None) is not None]
    kinds = properties.of_all(session, stores, ("summary.type", "summary.name", "summary.accessible"), "reading the datastores")
    found = (_disk(one, {each.key: each for each in devices}, kinds) for one in disks)
    return tuple(replace(one, allocated=allocated.get(one.key)) for one in found)


def _disk(device: Any, devices: dict[int, Any], kinds: dict[str, properties.Properties]) -> RemoteDisk:
    backing = device.backing
    name = _kind(backing).removeprefix("VirtualDisk").removesuffix("BackingInfo")
    kind = RDM.get(str(getattr(backing, "compatibilityMode", ""))) or DISKS.get(name, name)
    store = kinds.get(getattr(getattr(backing, "datastore", None), "_moId", ""), {})
    controller = devices.get(device.controllerKey)
    return RemoteDisk(
        path=str(getattr(backing, "fileName", "")), key=int(device.key), kind=kind,
        capacity=int(device.capacityInBytes or 1024 * int(device.capacityInKB or 0)),
        controller=_slot(controller, device.unitNumber), thin=getattr(backing, "thinProvisioned", None),
        mode=str(getattr(backing, "diskMode", "") or "persistent"),
        shared=getattr(backing, "sharing", None) == "sharingMultiWriter" or _bus_shared(controller),
        snapshot=getattr(backing, "parent", None) is not None, change_id=getattr(backing, "changeId", None),
        encrypted=getattr(backing, "keyId", None) is not None,
        datastore=str(store.get("summary.name", "")) if store.get("summary.accessible") else "",
        datastore_kind=str(store.get("summary.type", "")))


def _bus_shared(controller: Any) -> bool:
    return getattr(controller, "sharedBus", "noSharing") in ("virtualSharing", "physicalSharing")


def _slot(controller: Any, unit: int | None) -> str:
    """``scsi0:1``, as a .vmx calls it."""
    return f"{bus(_kind(controller))}{getattr(controller, 'busNumber', 0)}:{unit or 0}"


def bus(controller: str) -> str:
    """Of a controller's class: scsi, sata, ide, nvme."""
    return next((name for word, name in BUSES.items() if word in controller), "scsi")
