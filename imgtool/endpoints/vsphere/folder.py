"""Files of datastores over HTTPS: ``/folder/<path>?dcPath=<datacenter>&dsName=<datastore>``.

On ESXi the datacenter is always ``ha-datacenter``. A vCenter wants its path in the inventory, and some releases want the two
names percent-encoded twice (as libvirt and virt-v2v send them): asked for simply first, twice where the server finds nothing.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import Message
from urllib.parse import quote

from imgtool.endpoints.vsphere import login, tls
from imgtool.endpoints.vsphere.login import ATTEMPTS, Session
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, NotAdmittedError, RefusedError, UnreachableError, text_of
from imgtool.formats.layer import SECTOR
from imgtool.formats.vmdk import descriptor as vmdk
from imgtool.model.endpoint import Extent, RemoteDisk

MAX_SMALL = 4 << 20
"""Bytes of a .vmx or a descriptor that are read."""
_PATH = re.compile(r"^\[([^\]]+)\] ?(.*)$", re.DOTALL)


class NoFileError(ImgtoolError):
    """There is no such file, or the server does not give it out over HTTPS."""


@dataclass(frozen=True)
class StorePath:
    """``[datastore] folder/name``."""

    store: str
    path: str

    @classmethod
    def parse(cls, text: str) -> StorePath:
        """Raises DamagedError."""
        match = _PATH.match(text)
        if match is None or "\0" in text:
            raise DamagedError(f"{text!r} is no path on a datastore")
        return cls(match[1], match[2])

    def beside(self, name: str) -> StorePath:
        """A file of the same folder."""
        head, slash, _ = self.path.rpartition("/")
        return StorePath(self.store, head + slash + name)

    def __str__(self) -> str:
        return f"[{self.store}] {self.path}"


class Folder:
    """The files of a datacenter's datastores."""

    def __init__(self, session: Session, datacenter: str) -> None:
        self.session, self.datacenter = session, datacenter
        self._twice = False

    def url(self, path: StorePath) -> str:
        return target(path, self.datacenter, twice=self._twice)

    def exists(self, path: StorePath) -> bool:
        """Whether the server gives the file out. Finds out how it wants names encoded."""
        return self.stat(path) is not None

    def stat(self, path: StorePath) -> tuple[int | None, str | None] | None:
        """(bytes, time of the last change as the server writes it) of a file, as far as it says; None: it gives out none."""
        for twice in (self._twice, not self._twice):
            status, headers, _ = self._request("HEAD", target(path, self.datacenter, twice=twice))
            if status == http.client.OK:
                self._twice = twice
                length = headers.get("Content-Length", "")
                return int(length) if length.isdecimal() else None, headers.get("Last-Modified")
            if status != http.client.NOT_FOUND:
                raise refusal(status, str(path), self.session)
        return None

    def read(self, path: StorePath) -> bytes:
        """A small file: a .vmx, a descriptor. Raises NoFileError, DamagedError (too large), UnreachableError."""
        status, _, body = self._request("GET", self.url(path))
        if status == http.client.NOT_FOUND and self.exists(path):
            status, _, body = self._request("GET", self.url(path))
        if status != http.client.OK:
            raise refusal(status, str(path), self.session)
        if len(body) > MAX_SMALL:
            raise DamagedError(f"{path} is larger than any file of its kind")
        return body

    def write(self, path: StorePath, data: bytes) -> None:
        """A small file, whole."""
        self.upload(path, [data], len(data))

    def upload(self, path: StorePath, pieces: Iterable[bytes | memoryview], length: int) -> None:
        """A file of ``length`` bytes. There is no partial PUT: what failed begins again. NoSpaceError, UnreachableError."""
        with self.session.slots, closing(self._connection()) as made:
            status = send(made, "PUT", self.url(path), pieces, {"Content-Length": str(length), **self._headers()}, self.session)
        if status == http.client.INSUFFICIENT_STORAGE:
            raise NoSpaceError(f"{self.session.account.host}: no space for {path}")
        if status not in (http.client.OK, http.client.CREATED, http.client.NO_CONTENT):
            raise refusal(status, str(path), self.session)

    def remove(self, path: StorePath) -> None:
        """A file that is not there is no error."""
        status, _, _ = self._request("DELETE", self.url(path))
        if status not in (http.client.OK, http.client.NO_CONTENT, http.client.NOT_FOUND):
            raise refusal(status, str(path), self.session)

    def _connection(self) -> http.client.HTTPSConnection:
        account = self.session.account
        return tls.connection(account.host, account.port, self.session.context)

    def _headers(self) -> dict[str, str]:
        return {"Cookie": self.session.cookie()}

    def _request(self, method: str, address: str) -> tuple[int, Message, bytes]:
        """(status, headers, at most MAX_SMALL + 1 bytes). A session that has ended is renewed once, a busy server asked again."""
        for attempt in range(ATTEMPTS):
            status, headers, body = self._once(method, address)
            if status != http.client.SERVICE_UNAVAILABLE or attempt == ATTEMPTS - 1:
                return status, headers, body
            time.sleep(login.FIRST_PAUSE * 2 ** attempt)
        raise AssertionError  # the last attempt returns

    def _once(self, method: str, address: str) -> tuple[int, Message, bytes]:
        status, found, body = 0, Message(), b""
        for _ in range(2):
            headers = self._headers()
            try:
                with closing(self._connection()) as made:
                    made.request(method, address, headers=headers)
                    answer = made.getresponse()
                    status, found, body = answer.status, answer.headers, answer.read(MAX_SMALL + 1)
            except (OSError, http.client.HTTPException) as error:
                why = text_of(error)
                raise UnreachableError(f"{self.session.account.host}: {method} broke off: {why}") from error
            if status != http.client.UNAUTHORIZED:
                break
            self.session.renew(headers["Cookie"])
        return status, found, body


def target(path: StorePath, datacenter: str, *, twice: bool = False) -> str:
    """The request's target. ``+`` is no blank here: everything but letters, digits and ``/`` is percent-encoded."""
    def encoded(name: str) -> str:
        once = quote(name, safe="")
        return quote(once, safe="") if twice else once

    return f"/folder/{quote(path.path, safe='/')}?dcPath={encoded(datacenter)}&dsName={encoded(path.store)}"


def send(made: http.client.HTTPSConnection, method: str, address: str, pieces: Iterable[bytes | memoryview],
         headers: dict[str, str], session: Session) -> int:
    """Sends a body; the status of the answer, also of one that came before the body was through. Raises UnreachableError."""
    chunked = "Content-Length" not in headers
    try:
        made.connect()
        with suppress(OSError):  # the server has said why and closed, or the answer is broken off as well
            made.request(method, address, body=pieces, headers=headers, encode_chunked=chunked)
        answer = made.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{session.account.host}: the upload broke off: {text_of(error)}",
                               "run the same command again") from error
    return answer.status


def refusal(status: int, what: str, session: Session) -> ImgtoolError:
    """What an HTTP status means here."""
    host = session.account.host
    if status == http.client.NOT_FOUND:
        return NoFileError(f"{host} has no file {what}", "on vSAN and vVols disks are not given out as files")
    if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return NotAdmittedError(f"{host} does not let {session.account.user} read {what} (HTTP {status})",
                                "the account needs the privilege Datastore > Browse datastore")
    if status == http.client.INTERNAL_SERVER_ERROR:
        return RefusedError(f"{host} does not give out {what} (HTTP 500)", "a running machine's disks are locked: shut it down")
    return UnreachableError(f"{host} answered HTTP {status} for {what}")


def flat_parts(raw: bytes, disk: str) -> Iterator[Extent]:
    """Where a descriptor (``raw``) says that the bytes of a disk lie: flat extents only, in its own folder; the rest is zeros.

    Raises NoFileError, RefusedError (a name points elsewhere), DamagedError.
    """
    place, start = StorePath.parse(disk), 0
    for line in vmdk.parse(raw, disk).extents:
        length = line.sectors * SECTOR
        if line.type in vmdk.FLAT_TYPES:
            file = place.beside(_plain(line.name, disk))
            yield Extent(path=str(file), start=start, length=length, offset=line.offset * SECTOR)
        elif line.type != "ZERO":
            raise NoFileError(f"{disk} has an extent of type {line.type}", "remove the snapshots, or export it through a lease")
        start += length


def extents(folder: Folder, disk: str) -> tuple[Extent, ...]:
    """As ``flat_parts``, of a disk's path; NoFileError also where a file is not given out."""
    found = tuple(flat_parts(folder.read(StorePath.parse(disk)), disk))
    for one in found:
        if not folder.exists(StorePath.parse(one.path)):
            raise refusal(http.client.NOT_FOUND, one.path, folder.session)
    return found


def state(folder: Folder, disk: RemoteDisk, parts: Iterable[Extent]) -> dict[str, object]:
    """What tells a disk, in this state, from any other. A disk that is opened and written to gets a new CID."""
    raw = folder.read(StorePath.parse(disk.path))
    files = [[one.path, *(folder.stat(StorePath.parse(one.path)) or ())] for one in parts]
    return {"path": disk.path, "capacity": disk.capacity, "cid": f"{vmdk.parse(raw, disk.path).cid:08x}", "files": files,
            "change_id": disk.change_id}


def _plain(name: str | None, disk: str) -> str:
    if name and "://" in name:
        raise NoFileError(f"{disk} is an object ({name.split(':', maxsplit=1)[0]}), not a file")
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise RefusedError(f"{disk} names the file {name!r}, outside its folder")
    return name
