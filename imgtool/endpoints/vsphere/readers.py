"""The ways in which the bytes of a disk come, and which is taken.

============  ====================================================================================
in place      an NFS datastore that is mounted here as well
HTTPS         ``/folder``: several connections, ranges; goes on inside a disk. The usual way
lease         where there is no flat file (vSAN, vVol, snapshots), and for large disks that are
              mostly empty, whose holes HTTPS would send; begins again after a stop
ssh           where HTTPS is refused, or asked for
============  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from imgtool.endpoints.in_place import InPlace
from imgtool.endpoints.vsphere import exports, folder, mounted, ranges
from imgtool.endpoints.vsphere.exports import Exports
from imgtool.endpoints.vsphere.facts import STORES
from imgtool.endpoints.vsphere.folder import Folder, NoFileError, StorePath
from imgtool.endpoints.vsphere.lease import Lease
from imgtool.endpoints.vsphere.login import Session
from imgtool.endpoints.vsphere.shell import Shell
from imgtool.errors import ImgtoolError, RefusedError, UnreachableError, UsageError
from imgtool.formats.disk import Disk, open_disk
from imgtool.formats.locks import hold
from imgtool.model.endpoint import Extent, RemoteDisk
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    from imgtool.endpoints import Reader, Sink

MOSTLY_EMPTY = 4
"""A disk that takes less than 1/4 of its size: a lease, at a quarter of the speed, is done earlier."""
WORTH_A_LEASE = 16 << 30
"""Bytes that need not be sent; for less, a way that can go on is worth more."""


class Way(StrEnum):
    AUTO = "auto"
    HTTPS = "https"
    LEASE = "lease"
    SSH = "ssh"
    PLACE = "place"

    @property
    def resumes(self) -> bool:
        return self is not Way.LEASE


def asked(word: str) -> Way:
    """``?transport=``. Raises UsageError."""
    known = [Way.AUTO, Way.HTTPS, Way.LEASE, Way.SSH]
    if word not in known:
        raise UsageError(f"transport is one of {', '.join(known)}, not {word!r}")
    return Way(word)


@dataclass(frozen=True, kw_only=True)
class From:
    """Where the disks of one machine are read."""

    session: Session
    files: Folder
    exports: Exports
    machine: str
    shell: Shell
    way: Way = Way.AUTO
    leases: bool = True
    """The machine is off, and the licence lets us export it."""

    def choose(self, disk: RemoteDisk, stop: Stop) -> Way:
        """Raises ImgtoolError where nothing would do."""
        if self.way is not Way.AUTO:
            return self.way
        if disk.snapshot or disk.kind != "flat" or disk.datastore_kind.lower() in STORES:
            return Way.LEASE
        try:
            descriptor = self.files.read(StorePath.parse(disk.path))
            if mounted.local(self.session, disk, descriptor):
                return Way.PLACE
            if self.leases and _mostly_empty(disk):
                return Way.LEASE
            folder.extents(self.files, disk.path)
        except NoFileError:
            return Way.LEASE
        except (RefusedError, UnreachableError):
            return Way.SSH if self.leases and self._ssh_works(disk, stop) else Way.HTTPS
        return Way.HTTPS

    def _ssh_works(self, disk: RemoteDisk, stop: Stop) -> bool:
        try:
            return bool(self.shell.extents(disk.path, stop))
        except ImgtoolError:
            return False

    def open(self, disk: RemoteDisk, control: Control) -> AbstractContextManager[Reader]:
        """The disk, about to be read. Raises ImgtoolError."""
        way = self.choose(disk, control.stop)
        if way is Way.PLACE:
            return self._in_place(disk, control)
        if way is Way.LEASE:
            return self._leased(disk, control)
        return self._far(disk, way, control)

    @contextmanager
    def _far(self, disk: RemoteDisk, way: Way, control: Control) -> Iterator[Reader]:
        if way is Way.SSH:
            parts = self.shell.extents(disk.path, control.stop)
            state = self.shell.state(disk, parts, control.stop)
            yield ShellReader(size=disk.capacity, state=state, parts=parts, shell=self.shell, session=self.session)
            return
        parts = folder.extents(self.files, disk.path)
        yield HttpsReader(size=disk.capacity, state=folder.state(self.files, disk, parts), parts=parts, files=self.files)

    @contextmanager
    def _leased(self, disk: RemoteDisk, control: Control) -> Iterator[Reader]:
        state = {"path": disk.path, "capacity": disk.capacity, "change_id": disk.change_id}
        with self.exports.lease(self.machine, control) as held:
            yield LeaseReader(size=disk.capacity, state=state, held=held, there=disk)

    @contextmanager
    def _in_place(self, disk: RemoteDisk, control: Control) -> Iterator[Reader]:
        path = mounted.local(self.session, disk, self.files.read(StorePath.parse(disk.path)))
        if path is None:
            raise UnreachableError(f"{disk.path} is no longer mounted here", "run the same command again")
        with open_disk(path, stop=control.stop) as opened:
            hold(opened)
            state = folder.state(self.files, disk, folder.flat_parts(self.files.read(StorePath.parse(disk.path)), disk.path))
            yield InPlace(opened, state)


def _mostly_empty(disk: RemoteDisk) -> bool:
    return (disk.allocated is not None and disk.capacity - disk.allocated >= WORTH_A_LEASE
            and disk.allocated * MOSTLY_EMPTY < disk.capacity)


@dataclass(kw_only=True)
class _Reader:
    size: int
    state: Mapping[str, object]
    resumes: bool = True
    disk: Disk | None = None

    def holes(self) -> Iterable[tuple[int, int]]:
        """No server tells of holes without changed block tracking."""
        return ()


@dataclass(kw_only=True)
class HttpsReader(_Reader):
    parts: tuple[Extent, ...]
    files: Folder = field(repr=False)

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        ranges.read(self.files, self.parts, wanted, sink, control)


@dataclass(kw_only=True)
class ShellReader(_Reader):
    parts: tuple[Extent, ...]
    shell: Shell
    session: Session = field(repr=False)

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        self.shell.read(self.parts, wanted, sink, control, self.session.slots)


@dataclass(kw_only=True)
class LeaseReader(_Reader):
    held: Lease = field(repr=False)
    there: RemoteDisk
    resumes: bool = False

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        """All of it, whatever is wanted."""
        exports.read(self.held, self.there, sink, control)
