"""A new machine on a vSphere server: where it goes, and its disks on their way, several at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from imgtool.endpoints.vsphere import lease, login
from imgtool.endpoints.vsphere.inventory import listed
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import ImgtoolError, UnreachableError, UsageError
from imgtool.model import Allocation
from imgtool.model.endpoint import Place, Places, Store
from imgtool.progress import Control

Stream = Callable[[], Iterable[bytes]]
"""Makes the bytes of a streamOptimized VMDK; called when the server is ready for them."""
T = TypeVar("T", Place, Store)
log = logging.getLogger(__name__)
ATTEMPTS = 3
"""Of a whole disk."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Names, as a user gives them; None: the only one there is."""

    store: str | None = None
    pool: str | None = None
    folder: str | None = None
    host: str | None = None
    networks: Mapping[str, str] = field(default_factory=dict)
    """The machine's networks (OVF's names) and those of the server that they become; others keep their names."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The same as ids."""

    store: str
    pool: str
    folder: str
    host: str | None = None
    networks: Mapping[str, str] = field(default_factory=dict)

def destination(places: Places, wanted: Wanted, networks: Iterable[str]) -> Destination:
    """Where a machine with these networks goes. Raises UsageError, with all that there is where a name is wrong or missing."""
    host = pick("host", wanted.host, places.hosts) if wanted.host is not None else None
    pools = [one for one in places.pools if host is None or one.owner == host.owner]
    return Destination(
        store=pick("datastore", wanted.store, [one for one in places.stores if one.writable]).id,
        pool=pick("resource pool", wanted.pool, pools).id, folder=pick("folder", wanted.folder, places.folders).id,
        host=host.id if host else None,
        networks={name: pick("network", wanted.networks.get(name, name), places.networks).id for name in networks})


def pick(what: str, name: str | None, among: Iterable[T]) -> T:
    """The one with that name (or the end of it, behind a slash) or id; without a name, the only one. Raises UsageError."""
    known = list(among)
    fitting = [one for one in known if name in (one.name, one.id) or (name is None and getattr(one, "top", True))]
    fitting = fitting or [one for one in known if name is not None and one.name.endswith(f"/{name}")]
    if len(fitting) == 1:
        return fitting[0]
    there = f"there are: {listed(one.name for one in known)}"
    if name is None:
        raise UsageError(f"which {what}?", there)
    if fitting:
        raise UsageError(f"{len(fitting)} of {what} are called {name!r}", "say which: " + ", ".join(one.id for one in fitting))
    raise UsageError(f"there is no {what} {name!r}", there)


class Imported(NamedTuple):
    machine: str
    """Its id."""
    devices: dict[str, str]
    """Of each file of the OVF, as ``lease.of`` knows it."""


def create(session: Session, ovf: str, name: str, to: Destination, streams: Mapping[str, Stream], control: Control, *,
           allocations: Sequence[Allocation] = (), begun: Callable[[str], None] | None = None) -> Imported:
    """A powered-off machine from an OVF; ``begun`` is told its id before the first byte is sent. What fails leaves nothing.

    ``streams`` by the OVF's file names. ``allocations``: of its disks, in their order. Raises ImgtoolError,
    LeaseRefusedError, what a stream raises.
    """
    spec = lease.import_spec(session, ovf, name=name, pool=to.pool, store=to.store, networks=to.networks, allocations=allocations)
    if missing := {href for _, href in spec.items} - streams.keys():
        raise UsageError(f"the OVF names files that nobody sends: {listed(iter(sorted(missing)))}")
    with lease.importing(session, spec, control, pool=to.pool, folder=to.folder, host=to.host) as held:
        if begun:
            begun(held.machine)
        urls = {disk.key: disk for disk in held.disks}
        if unknown := [device for device, _ in spec.items if device not in urls]:
            raise ImgtoolError(f"the server gives no address for {listed(iter(unknown))}")
        _all(held, [(urls[device], streams[href]) for device, href in spec.items], control)
        return Imported(held.machine, {href: urls[device].device for device, href in spec.items})


def _all(held: lease.Lease, disks: list[tuple[lease.LeasedDisk, Stream]], control: Control) -> None:
    """Sends all disks at once. The first that fails stops the others."""
    failed: list[BaseException] = []

    def one(disk: lease.LeasedDisk, stream: Stream) -> None:
        try:
            _one(held, disk, stream, failed, control)
        except BaseException as error:
            failed.append(error)
            raise

    with ThreadPoolExecutor(max(1, len(disks)), thread_name_prefix="upload") as pool:
        for disk, stream in disks:
            pool.submit(one, disk, stream)
    if failed:
        raise failed[0]


def _one(held: lease.Lease, disk: lease.LeasedDisk, stream: Stream, failed: list[BaseException], control: Control) -> None:
    """After a cut the disk is sent again, while the lease lasts."""
    for attempt in range(ATTEMPTS):
        try:
            lease.upload(held, disk, _until(stream(), failed), control)
        except UnreachableError as error:
            if attempt == ATTEMPTS - 1 or failed or not held.lasts():
                raise held.reason_of(error) from error
            log.debug("%s: %s, once more", disk.key, error.message)
            time.sleep(login.FIRST_PAUSE * 2 ** attempt)
        else:
            control.stop.check()  # what came last went into a buffer, without being asked whether to stop
            return


def _until(pieces: Iterable[bytes], failed: list[BaseException]) -> Iterator[bytes]:
    for piece in pieces:
        if failed:
            raise failed[0]
        yield piece
