"""What is on a vSphere server: machines, and what the API knows of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from imgtool.endpoints.vsphere import properties
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import UsageError
from imgtool.model.endpoint import Found, Place, Power

POWER = {"poweredOff": Power.OFF, "poweredOn": Power.RUNNING, "suspended": Power.SUSPENDED}
LISTED = 20
"""Names in a message."""
MACHINE = ("name", "parent", "runtime.powerState", "availableField", "customValue")


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


def narrow(session: Session, path: str) -> None:
    """From now on only the datacenter at ``path`` (of a URI) is seen; of an empty path all. Raises UsageError."""
    wanted = path.strip("/")
    if not wanted:
        return
    known = Folders(session).datacenters()
    if wanted not in known:
        raise UsageError(f"there is no datacenter {wanted!r} on {session.account.host}",
                         f"there are: {listed(iter(sorted(known)))}")
    session.within = known[wanted]


def listed(names: Iterator[str]) -> str:
    """Names for a message: quoted where that is needed, and not too many."""
    each = [repr(name) for name in names]
    more = f" and {len(each) - LISTED} more" if len(each) > LISTED else ""
    return (", ".join(each[:LISTED]) or "none") + more


def _found(identity: str, seen: properties.Properties, folders: Folders) -> Found:
    return Found(name=str(seen.get("name", identity)), id=identity, folder=folders.path(seen.get("parent")),
                 power=POWER.get(str(seen.get("runtime.powerState")), Power.RUNNING), tags=tuple(_tags(seen)))


def _tags(seen: properties.Properties) -> Iterator[str]:
    """A vCenter's custom attributes (vim.CustomFieldsManager): their values, and NAME=VALUE. Its tags are not in this API."""
    names = {field.key: str(field.name) for field in seen.get("availableField") or ()}
    for one in seen.get("customValue") or ():
        value = str(getattr(one, "value", "") or "")
        if value and one.key in names:
            yield from (value, f"{names[one.key]}={value}")


class Folders:
    """The tree of the inventory above machines."""

    def __init__(self, session: Session) -> None:
        self._nodes: dict[str, tuple[str, str | None, str]] = {}
        for kind in ("Folder", "Datacenter", "VirtualApp"):
            found = properties.all_of(session, kind, ("name", "parent"), "reading the inventory", everywhere=True)
            for identity, seen in found.items():
                parent = seen.get("parent")
                self._nodes[identity] = (str(seen.get("name", "")), getattr(parent, "_moId", None), kind)

    def datacenters(self) -> dict[str, str]:
        """Their ids, by ``Folder/Datacenter``; the API writes a slash in a name as %2f."""
        return {unquote("/".join(name for name, _ in reversed([*self._above(identity)]))): identity
                for identity, (_, _, kind) in self._nodes.items() if kind == "Datacenter"}

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

    def center(self, folder: str) -> Place:
        """The datacenter above a folder (its id); its name is the dcPath."""
        identity: str | None = folder
        while identity in self._nodes and self._nodes[identity][2] != "Datacenter":
            identity = self._nodes[identity][1]
        names = [name for name, _ in self._above(identity)]
        return Place(name="/".join(reversed(names)), id=identity or "")

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
