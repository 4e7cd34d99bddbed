"""Machines of a libvirt host, to be read from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from imgtool.descriptions import description
from imgtool.endpoints.libvirt import disks, far, inventory, near
from imgtool.endpoints.libvirt.connection import Host
from imgtool.errors import ImgtoolError, RefusedError
from imgtool.model.endpoint import Found, Power, Seen
from imgtool.model.situation import SourceState
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Reader

AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0']"
OFF_SECONDS = 300
"""That a guest gets to shut down. Windows with updates takes longer: the error says what to do."""
ASK_SECONDS = 60
"""Between two presses of the power button: a guest that is starting does not see the first."""
POLL_SECONDS = 0.5


class LibvirtSource:
    """A ``Source``."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def machines(self) -> list[Found]:
        with self._host.asked() as connection:
            return inventory.machines(connection)

    def find(self, name: str) -> Found:
        with self._host.asked() as connection:
            return inventory.find(connection, name, self._host.name)

    def look(self, found: Found, control: Control) -> Seen:
        """The description is that of the next start. Raises DamagedError where it cannot be understood."""
        control.stop.check()
        with self._host.asked() as connection:
            domain = connection.lookupByUUIDString(found.id)
            text = inventory.description(domain)
            parsed = description(".xml").parse(text)
            behind = disks.behind(domain, connection, text, parsed.machine.disks)
            now = inventory.found(domain)
            state = SourceState(running=now.power is Power.RUNNING or bool(domain.isActive()),
                                suspended=now.power is Power.SUSPENDED, disks=tuple(one.situation() for one in behind),
                                snapshots=inventory.snapshots(domain), tools=_tools(domain),
                                tls="checked" if self._host.uri.verify or not self._host.far else "unchecked")
        return Seen(found=now, suffix=".xml", text=text, parsed=parsed, state=state,
                    disks=tuple(one.remote(number) for number, one in enumerate(behind)))

    def reader(self, seen: Seen, number: int, control: Control) -> AbstractContextManager[Reader]:
        """Raises RefusedError where the disk cannot be read in place, UnreachableError."""
        return self._reader(seen, number, control)

    @contextmanager
    def _reader(self, seen: Seen, number: int, control: Control) -> Iterator[Reader]:
        with self._host.asked() as connection:
            domain = connection.lookupByUUIDString(seen.found.id)
            one = disks.behind(domain, connection, seen.text, seen.parsed.machine.disks)[number]
            folders = [pool.path for pool in inventory.pools(connection) if pool.path and pool.holds_files]
        one.file()
        opening: AbstractContextManager[Reader] = \
            far.opened(self._host, one, folders, control) if self._host.far else near.opened(one, folders, control)
        with opening as reader:
            yield reader

    def shut_down(self, found: Found, control: Control) -> None:
        """Through the agent where it answers, else by the power button. Raises RefusedError, ImgtoolError."""
        with self._host.asked() as connection:
            domain = connection.lookupByUUIDString(found.id)
            if domain.isActive() and not domain.isPersistent():
                raise RefusedError(f"{found.name} is transient: it would be gone once it is off",
                                   "keep its description first: virsh dumpxml, virsh define")
            _shut_down(domain, found.name, control)

    def close(self) -> None:
        self._host.close()


def _shut_down(domain: Any, name: str, control: Control) -> None:
    began = time.monotonic()
    asked = None
    while domain.isActive():
        control.stop.check()
        now = time.monotonic()
        if now - began > OFF_SECONDS:
            raise ImgtoolError(f"{name} did not shut down within {OFF_SECONDS} s",
                               "shut it down in the guest, and run the same command again")
        if asked is None or now - asked > ASK_SECONDS:
            asked = now
            _press(domain)
        time.sleep(POLL_SECONDS)


def _press(domain: Any) -> None:
    """Asks once more. A guest that has just gone off does not mind."""
    import libvirt

    for flags in (libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, libvirt.VIR_DOMAIN_SHUTDOWN_DEFAULT):
        try:
            domain.shutdownFlags(flags)
        except libvirt.libvirtError:
            if flags == libvirt.VIR_DOMAIN_SHUTDOWN_DEFAULT and domain.isActive():
                raise
        else:
            return


def _tools(domain: Any) -> str | None:
    """running, stopped, missing; None of a machine that is off."""
    import libvirt
    from lxml import etree

    if not domain.isActive():
        return None
    root = None
    with suppress(libvirt.libvirtError):
        root = etree.fromstring(domain.XMLDesc(0))
    channel = root.find(AGENT) if root is not None else None
    if channel is None:
        return "missing"
    return "running" if channel.get("state") == "connected" else "stopped"
