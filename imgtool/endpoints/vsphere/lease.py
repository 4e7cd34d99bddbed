"""HttpNfcLease: streamOptimized disks out of a machine (export) and into a new one (import).

The way for disks that are no files (vSAN, vVols), and the best way in. Neither can go on after a cut: the disk begins again. A
lease ends unless it hears of progress within its time-out (usually 300 s), whatever else happens: a thread tells it every two
seconds. What every lease needs in the end is Complete, or Abort (which takes a half-made machine away).
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imgtool.endpoints.vsphere import properties, tls
from imgtool.endpoints.vsphere.facts import bus
from imgtool.endpoints.vsphere.folder import refusal, send
from imgtool.endpoints.vsphere.login import Session, content, message, said
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError, UnreachableError
from imgtool.model import Allocation
from imgtool.model.endpoint import RemoteDisk
from imgtool.progress import Control

HEARTBEAT = 2.0
"""Seconds between two words of progress."""
POLL = 0.1
READY_SECONDS = 120.0
"""A host may take long to make the disks of a new machine."""
STREAM = "application/x-vnd.vmware-streamVmdk"
_SLOT = re.compile(r"/([A-Za-z]+Controller)(\d+):(\d+)$")
PROVISIONING = {Allocation.THIN: "thin", Allocation.THICK: "thick", Allocation.EAGER: "eagerZeroedThick"}


@dataclass(frozen=True, kw_only=True)
class LeasedDisk:
    """Where a stream is to be had, or to be sent."""

    key: str
    """Import: the ``deviceId`` of the import specification. Export: as ``device``."""
    device: str
    """Which of the machine's it is: see ``of``."""
    url: str
    thumbprint: str
    """Of the host that serves it; may be empty."""


class LeaseRefusedError(ImgtoolError):
    """The server takes no such machine, or gives no lease for it: there may be another way."""


class Lease:
    """A lease that is ready, and kept alive until it is ended."""

    def __init__(self, session: Session, identity: str, *, importing: bool) -> None:
        self.session, self.identity = session, identity
        self.percent = 0
        self.disks: tuple[LeasedDisk, ...] = ()
        self.machine = ""
        """Id of the machine."""
        self._importing = importing
        self._lost: ImgtoolError | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def wait(self, control: Control) -> None:
        """Until it can be used. Raises ImgtoolError with the server's reason."""
        until = time.monotonic() + READY_SECONDS
        while (state := self._state()) == "initializing":
            control.stop.check()
            if time.monotonic() > until:
                raise UnreachableError(f"{self.session.account.host}: the lease was not ready within {READY_SECONDS:.0f} s")
            time.sleep(POLL)
        if state != "ready":
            raise self.reason_of(LeaseRefusedError(f"{self.session.account.host}: no lease: {self.reason()}"))
        info = self._properties("info")["info"]
        self.machine = info.entity._moId
        self.disks = tuple(LeasedDisk(key=str((each.importKey if self._importing else each.key) or ""), url=str(each.url),
                                      device=str(each.key or ""), thumbprint=str(each.sslThumbprint or ""))
                           for each in info.deviceUrl or () if each.disk is not False)
        self._thread.start()

    def _properties(self, *paths: str) -> properties.Properties:
        return properties.of(self.session, ("HttpNfcLease", self.identity), paths, "asking for the lease")

    def _state(self) -> str:
        return str(self._properties("state").get("state"))

    def lasts(self) -> bool:
        """Whether more can be sent."""
        with suppress(ImgtoolError):
            return self._lost is None and self._state() == "ready"
        return False

    def reason_of(self, error: ImgtoolError) -> ImgtoolError:
        """No space, where the lease says so; else ``error``."""
        with suppress(ImgtoolError):
            fault = self._properties("error").get("error")
            if fault is not None and isinstance(found := said(fault, error.message), NoSpaceError):
                return found
        return error

    def reason(self) -> str:
        """Why it has ended, in the server's words."""
        error = self._properties("error").get("error")
        return message(error) if error is not None else "the server does not say why"

    def _call(self, what: str, method: str, *arguments: Any) -> None:
        self.session.call(what, lambda stub: getattr(properties.bound(("HttpNfcLease", self.identity), stub), method)(*arguments))

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT):
            try:
                self._call("keeping the lease", "HttpNfcLeaseProgress", max(0, min(99, self.percent)))
            except ImgtoolError as error:
                self._lost = error
                return

    def check(self) -> None:
        """Raises ImgtoolError if the server has ended the lease."""
        if self._lost is not None:
            raise UnreachableError(f"{self.session.account.host} has ended the lease: {self._lost.message}",
                                   "leases cannot go on: run the same command again, the disk begins anew")

    def end(self, *, good: bool) -> None:
        """Complete, or Abort. Raises ImgtoolError if Complete fails."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if good:
            self.check()
            self._call("completing the lease", "HttpNfcLeaseComplete")
        else:
            self._abort()

    def _abort(self) -> None:
        """One that is being made cannot be aborted yet: it would leave a machine behind."""
        until = time.monotonic() + READY_SECONDS
        with suppress(ImgtoolError):  # ended already, or not to be reached
            while self._state() == "initializing" and time.monotonic() < until:
                time.sleep(POLL)
            self._call("aborting the lease", "HttpNfcLeaseAbort")


def of(leased: Sequence[str], disk: RemoteDisk) -> str | None:
    """Which of the devices of a lease a disk is: they end in its key (``VirtualDisk:2000``) or its slot
    (``VirtualLsiLogicController0:1``), as the release has it. None: not to be told."""
    slots = {name: match for name in leased if (match := _SLOT.search(name))}
    for name in leased:
        if name.endswith(f"VirtualDisk:{disk.key}"):
            return name
        if name in slots and disk.controller == f"{bus(slots[name][1])}{slots[name][2]}:{slots[name][3]}":
            return name
    return leased[0] if len(leased) == 1 else None


@contextmanager
def _held(lease: Lease, control: Control) -> Iterator[Lease]:
    try:
        lease.wait(control)
        yield lease
        lease.check()
    except BaseException:
        lease.end(good=False)
        raise
    lease.end(good=True)


@contextmanager
def exporting(session: Session, machine: str, control: Control) -> Iterator[Lease]:
    """A lease of all disks of a powered-off machine (its id). Raises ImgtoolError, RefusedError (the licence)."""
    def begin(stub: Any) -> str:
        return str(properties.bound(("VirtualMachine", machine), stub).ExportVm()._moId)

    with session.kept():
        made = session.call("exporting the machine", begin, again=False)
        with _held(Lease(session, made, importing=False), control) as lease:
            yield lease


def ask(made: http.client.HTTPSConnection, lease: Lease, disk: LeasedDisk) -> http.client.HTTPResponse:
    """The disk's streamOptimized VMDK, about to be read. Raises OSError, HTTPException (also where the server is busy)."""
    made.request("GET", urlsplit(disk.url).path, headers={"Cookie": lease.session.cookie()})
    answer = made.getresponse()
    if answer.status == http.client.SERVICE_UNAVAILABLE:
        raise http.client.HTTPException("the server is busy (HTTP 503)")
    if answer.status != http.client.OK:
        raise refusal(answer.status, "of the export", lease.session)
    return answer


def connection(lease: Lease, disk: LeasedDisk) -> http.client.HTTPSConnection:
    """To the host that the lease names: ``*`` is the one we talk to. Another proves itself by the thumbprint that ours gave."""
    account = lease.session.account
    try:
        parts = urlsplit(disk.url)
        host, port = parts.hostname if parts.scheme == "https" else None, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise RefusedError(f"{account.host} gives the address {disk.url[:80]!r} for a disk: no HTTPS")
    if host in ("*", account.host):
        return tls.connection(account.host, port or account.port, lease.session.context)
    trust = tls.Trust(thumbprint=disk.thumbprint) if disk.thumbprint else account.trust
    return tls.connection(host, port or tls.PORT, trust.context())


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """What a server made of an OVF."""

    spec: Any
    items: tuple[tuple[str, str], ...]
    """(deviceId, href of the OVF) of each disk to be sent."""
    warnings: tuple[str, ...] = ()


def import_spec(session: Session, ovf: str, *, name: str, pool: str, store: str, networks: Mapping[str, str],
                allocations: Sequence[Allocation] = ()) -> ImportSpec:
    """Has the server judge an OVF. Ids of pool, datastore and networks (by the OVF's names). Disks are thin unless said.

    Raises LeaseRefusedError with all that the server has against it.
    """
    first = allocations[0] if allocations else Allocation.THIN

    def ask(stub: Any) -> Any:
        from pyVmomi import vim

        mapping = [vim.OvfManager.NetworkMapping(name=each, network=properties.bound(("Network", identity), stub))
                   for each, identity in networks.items()]
        wanted = vim.OvfManager.CreateImportSpecParams(
            entityName=name, diskProvisioning=PROVISIONING[first], networkMapping=mapping)
        return content(stub).ovfManager.CreateImportSpec(
            ovf, properties.bound(("ResourcePool", pool), stub), properties.bound(("Datastore", store), stub), wanted)

    made = session.call("checking the OVF", ask)
    if made.error or made.importSpec is None:
        raise LeaseRefusedError(f"{session.account.host} does not take this machine: "
                                + "; ".join(_fault(each) for each in made.error or ()))
    _provide(made.importSpec, allocations)
    return ImportSpec(spec=made.importSpec, items=tuple((str(each.deviceId), str(each.path)) for each in made.fileItem or ()),
                      warnings=tuple(_fault(each) for each in made.warning or ()))


def _provide(spec: Any, allocations: Sequence[Allocation]) -> None:
    """Each disk as it is wanted: an OVF has one word for all."""
    changes = getattr(getattr(spec, "configSpec", None), "deviceChange", None) or ()
    backings = [one.device.backing for one in changes if hasattr(one.device, "capacityInKB")]
    for backing, allocation in zip(backings, allocations, strict=False):
        if hasattr(backing, "thinProvisioned"):
            backing.thinProvisioned = allocation is Allocation.THIN
            backing.eagerlyScrub = allocation is Allocation.EAGER


def _fault(wrapped: Any) -> str:
    """Of a LocalizedMethodFault, which pyvmomi may have unwrapped."""
    return message(getattr(wrapped, "fault", wrapped))


def _refused(error: ImgtoolError) -> ImgtoolError:
    """A refusal of the lease, where that is what it is: no licence at all, no connection, no room are something else."""
    from pyVmomi import vim

    plain = type(error) is ImgtoolError or isinstance(error.__cause__, vim.fault.NoPermission)
    return LeaseRefusedError(error.message, error.hint) if plain else error


@contextmanager
def importing(session: Session, spec: ImportSpec, control: Control, *, pool: str, folder: str, host: str | None = None
              ) -> Iterator[Lease]:
    """A lease for the disks of a new machine, which is there when the block ends well, and gone if it does not."""
    def begin(stub: Any) -> str:
        where = properties.bound(("HostSystem", host), stub) if host else None
        return str(properties.bound(("ResourcePool", pool), stub).ImportVApp(
            spec.spec, properties.bound(("Folder", folder), stub), where)._moId)

    with session.kept():
        try:
            made = session.call("importing the machine", begin, again=False)
        except ImgtoolError as error:
            raise _refused(error) from error
        with _held(Lease(session, made, importing=True), control) as lease:
            yield lease


def upload(lease: Lease, disk: LeasedDisk, pieces: Iterable[bytes], control: Control, length: int | None = None) -> None:
    """A streamOptimized VMDK, made while it is sent; without its ``length`` in chunks of HTTP. Raises UnreachableError."""
    def checked() -> Iterator[bytes]:
        for piece in pieces:
            control.stop.check()
            lease.check()
            control.rate.take(len(piece), control.stop)
            yield piece

    headers = {"Content-Type": STREAM, "Cookie": lease.session.cookie()}
    headers |= {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    with lease.session.slots, closing(connection(lease, disk)) as made:
        status = send(made, "POST", urlsplit(disk.url).path, checked(), headers, lease.session)
    if status == http.client.INSUFFICIENT_STORAGE:
        raise NoSpaceError(f"{lease.session.account.host}: no space for the disk")
    if status not in (http.client.OK, http.client.CREATED):
        raise UnreachableError(f"{lease.session.account.host} did not take the disk: HTTP {status}")
