"""An ESXi host or a vCenter as the place that machines come from. It is only read, but for ``shut_down``."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from imgtool.descriptions import description
from imgtool.endpoints.vsphere import inventory, machines, properties
from imgtool.endpoints.vsphere.exports import Exports
from imgtool.endpoints.vsphere.facts import Facts, facts
from imgtool.endpoints.vsphere.folder import Folder, StorePath
from imgtool.endpoints.vsphere.login import Session
from imgtool.endpoints.vsphere.readers import From, Way, asked
from imgtool.endpoints.vsphere.shell import Shell, uri_of
from imgtool.errors import ImgtoolError, RefusedError
from imgtool.model.description import Parsed
from imgtool.model.devices import DiskSlot
from imgtool.model.endpoint import Found, Power, RemoteDisk, Seen, Uri
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Reader

SUFFIX = ".vmx"
SHUTDOWN_SECONDS = 600.0
"""Windows with updates to install takes its time."""
POLL = 1.0


class VSphereSource:
    """Implements ``endpoints.Source``."""

    def __init__(self, session: Session, uri: Uri) -> None:
        self.session = session
        self._uri = uri
        self._way = asked(dict(uri.query).get("transport", Way.AUTO))
        self._shell = Shell(uri_of(uri))
        self._exports = Exports(session)

    def machines(self) -> list[Found]:
        return inventory.machines(self.session)

    def find(self, name: str) -> Found:
        return inventory.find(self.session, name)

    def files(self, found: Found) -> Folder:
        """The datastores of a machine's datacenter. A folder remembers how its server wants names."""
        return Folder(self.session, inventory.datacenter(self.session, found))

    def look(self, found: Found, control: Control) -> Seen:
        """Raises RefusedError where description and host do not speak of the same disks."""
        told, files = facts(self.session, found), self.files(found)
        text = files.read(StorePath.parse(told.description))
        parsed = description(SUFFIX).parse(text)
        disks = matched(parsed, told)
        parsed = replace(parsed, machine=replace(parsed.machine, template=told.template or parsed.machine.template))
        order = {one.path: number for number, one in enumerate(disks)}
        place = self._from(told.found, files, leases=told.state.can_write is not False)
        resumes = all(place.choose(one, control.stop).resumes for one in disks)
        state = replace(told.state, can_resume=resumes,
                        disks=tuple(sorted(told.state.disks, key=lambda one: order.get(one.name, len(order)))))
        return Seen(found=told.found, suffix=SUFFIX, text=text, parsed=parsed, state=state, disks=disks)

    def _from(self, found: Found, files: Folder, *, leases: bool) -> From:
        return From(session=self.session, files=files, exports=self._exports, machine=found.id, shell=self._shell, way=self._way,
                    leases=leases and found.power is Power.OFF)

    def reader(self, seen: Seen, number: int, control: Control) -> AbstractContextManager[Reader]:
        """Raises RefusedError where the machine is not off."""
        if self._power(seen.found) != "poweredOff":
            raise RefusedError(f"{seen.found.name} is not powered off: its disks change while they are read",
                               "shut it down, or let --shutdown-source do it")
        off = replace(seen.found, power=Power.OFF)
        place = self._from(off, self.files(off), leases=seen.state.can_write is not False)
        return place.open(seen.disks[number], control)

    def shut_down(self, found: Found, control: Control) -> None:
        if self._power(found) == "poweredOff":
            return

        def begin(stub: Any) -> None:
            properties.bound(("VirtualMachine", found.id), stub).ShutdownGuest()

        try:
            self.session.call(f"shutting down {found.name}", begin, again=False)
        except RefusedError:
            raise
        except ImgtoolError as error:
            error.hint = "without VMware Tools only the guest itself can do that"
            raise
        until = time.monotonic() + SHUTDOWN_SECONDS
        while self._power(found) != "poweredOff":
            control.stop.check()
            if time.monotonic() > until:
                raise ImgtoolError(f"{found.name} has not shut down within {SHUTDOWN_SECONDS:.0f} s", "look at its console")
            time.sleep(POLL)

    def _power(self, found: Found) -> str:
        return machines.power(self.session, found.id)

    def close(self) -> None:
        self.session.close()


def matched(parsed: Parsed, told: Facts) -> tuple[RemoteDisk, ...]:
    """The disks of the host in the order of the description, by slot, else by path. RefusedError: none may be forgotten."""
    left = list(told.disks)
    found = []
    for slot in parsed.machine.disks:
        one = next((each for each in left if each.controller == f"{slot.bus}{slot.controller}:{slot.unit}"), None)
        one = one or next((each for each in left if each.path == _path(slot, told.description)), None)
        if one is None:
            raise RefusedError(f"the host shows no disk {slot.path}, which {told.description} names",
                               "was it detached or changed just now? Look at the machine's settings")
        left.remove(one)
        found.append(one)
    if left:
        raise RefusedError(f"{told.description} does not name the disk {left[0].path}, which the host shows",
                           "was it attached just now? Look at the machine's settings")
    return tuple(found)


def _path(slot: DiskSlot, vmx: str) -> str:
    """As the host writes it."""
    return slot.path if slot.path.startswith("[") else str(StorePath.parse(vmx).beside(slot.path))
