"""What is done to machines and places of a vSphere server: register, rename, start, remove; and what there is to choose from."""

from __future__ import annotations

from typing import Any

from imgtool.endpoints.vsphere import properties, tasks
from imgtool.endpoints.vsphere.inventory import Folders
from imgtool.endpoints.vsphere.login import Session, content
from imgtool.model.endpoint import Place, Places, Store
from imgtool.model.situation import Taken
from imgtool.progress import Stop

DEEPEST = 32
"""Pools below one another."""
FREE_EDITIONS = ("esxBasic",)
"""Beginnings of the edition keys of licences that forbid writes through the API."""


def places(session: Session) -> Places:
    """Where a machine can be put. Raises ImgtoolError."""
    folders = Folders(session)
    found = properties.all_of(session, "Datastore", ("summary.name", "summary.capacity", "summary.freeSpace", "summary.type",
                                                     "summary.accessible", "summary.maintenanceMode"), "listing the datastores")
    stores = (Store(id=identity, name=str(each.get("summary.name", "")), capacity=int(each.get("summary.capacity", 0)),
                    free=int(each.get("summary.freeSpace", 0)), kind=str(each.get("summary.type", "")),
                    writable=bool(each.get("summary.accessible")) and each.get("summary.maintenanceMode") in (None, "normal"))
              for identity, each in found.items())
    return Places(stores=tuple(sorted(stores, key=lambda one: one.name)), networks=_named(session, "Network"),
                  pools=_pools(session), hosts=_hosts(session), folders=_folders(session, folders),
                  writable=writable(session))


def _named(session: Session, kind: str) -> tuple[Place, ...]:
    found = properties.all_of(session, kind, ("name",), f"listing each {kind}")
    return tuple(sorted((Place(name=str(each.get("name", "")), id=identity) for identity, each in found.items()),
                        key=lambda one: one.name))


def _pools(session: Session) -> tuple[Place, ...]:
    """``cluster/Resources/pool``."""
    owners = properties.all_of(session, "ComputeResource", ("name",), "listing the clusters")
    found = properties.all_of(session, "ResourcePool", ("name", "parent", "owner"), "listing the resource pools")

    def place(identity: str) -> Place:
        names, at, owner = list[str](), identity, _id(found[identity].get("owner"))
        while at in found and len(names) < DEEPEST:
            names.append(str(found[at].get("name", "")))
            at = _id(found[at].get("parent"))
        names.append(str(owners.get(owner, {}).get("name", "")))
        return Place(name="/".join(reversed(names)), id=identity, top=len(names) == 2, owner=owner)

    return tuple(sorted(map(place, found), key=lambda one: one.name))


def _hosts(session: Session) -> tuple[Place, ...]:
    found = properties.all_of(session, "HostSystem", ("name", "parent"), "listing the hosts")
    return tuple(sorted((Place(name=str(each.get("name", "")), id=identity, owner=_id(each.get("parent")))
                         for identity, each in found.items()), key=lambda one: one.name))


def _id(reference: Any) -> str:
    return str(getattr(reference, "_moId", ""))


def _folders(session: Session, folders: Folders) -> tuple[Place, ...]:
    """Those that machines can stand in."""
    found = properties.all_of(session, "Folder", ("name", "parent", "childType"), "listing the folders")
    fitting = {identity: each for identity, each in found.items() if "VirtualMachine" in (each.get("childType") or ())}
    return tuple(sorted((Place(name=f"{folders.path(each.get('parent'))}/{each.get('name', '')}", id=identity,
                               top=_id(each.get("parent")) not in fitting) for identity, each in fitting.items()),
                        key=lambda one: one.name))


def taken(session: Session) -> tuple[Taken, ...]:
    """All machines, with what another one must not have as well."""
    asked = ("name", "config.uuid", "config.hardware.device")
    found = properties.all_of(session, "VirtualMachine", asked, "listing the machines")
    return tuple(Taken(name=str(each.get("name", "")), uuid=each.get("config.uuid"), macs=tuple(
        str(one.macAddress).lower() for one in each.get("config.hardware.device", ()) if getattr(one, "macAddress", None)))
        for each in found.values())


def writable(session: Session) -> bool:
    """Whether the licence allows writes, as far as a licence says; a vCenter always does."""
    licences = session.call("reading the licence", lambda stub: content(stub).licenseManager)
    found = properties.of(session, licences, ("licenses",), "reading the licence").get("licenses") or ()
    return not any(str(each.editionKey or "").startswith(FREE_EDITIONS) for each in found)


def make_directory(session: Session, path: str, datacenter: str | None) -> None:
    """``[datastore] folder``, with what is missing above it. ``datacenter`` (its id) is needed on a vCenter."""
    def ask(stub: Any) -> None:
        where = properties.bound(("Datacenter", datacenter), stub) if datacenter else None
        content(stub).fileManager.MakeDirectory(path, where, True)

    session.call(f"making the folder {path}", ask, again=False)


def remove_directory(session: Session, path: str, datacenter: str | None, stop: Stop) -> None:
    """A folder of a datastore and all that is in it."""
    def begin(stub: Any) -> Any:
        where = properties.bound(("Datacenter", datacenter), stub) if datacenter else None
        return content(stub).fileManager.DeleteDatastoreFile_Task(path, where)

    tasks.run(session, f"removing the folder {path}", begin, stop)


def register(session: Session, path: str, name: str, stop: Stop, *, folder: str, pool: str, host: str | None = None) -> str:
    """A machine from its ``.vmx``, whose disks stand beside it; its id. Raises ImgtoolError, RefusedError (the licence)."""
    def begin(stub: Any) -> Any:
        return properties.bound(("Folder", folder), stub).RegisterVM_Task(
            path, name, False, properties.bound(("ResourcePool", pool), stub),
            properties.bound(("HostSystem", host), stub) if host else None)

    return str(tasks.run(session, f"registering {name}", begin, stop))


def rename(session: Session, machine: str, name: str, stop: Stop) -> None:
    def begin(stub: Any) -> Any:
        return properties.bound(("VirtualMachine", machine), stub).Rename_Task(name)

    tasks.run(session, f"renaming the machine to {name}", begin, stop)


def start(session: Session, machine: str, stop: Stop) -> None:
    def begin(stub: Any) -> Any:
        return properties.bound(("VirtualMachine", machine), stub).PowerOnVM_Task(None)

    if power(session, machine) != "poweredOn":
        tasks.run(session, "starting the machine", begin, stop)


def power(session: Session, machine: str) -> str:
    """poweredOff, poweredOn or suspended."""
    seen = properties.of(session, ("VirtualMachine", machine), ("runtime.powerState",), "asking whether it runs")
    return str(seen.get("runtime.powerState"))


def remove(session: Session, machine: str, stop: Stop) -> None:
    """The machine and its disks."""
    def begin(stub: Any) -> Any:
        return properties.bound(("VirtualMachine", machine), stub).Destroy_Task()

    tasks.run(session, "removing the machine", begin, stop)
