"""Disks read through export leases: as streamOptimized streams, unpacked on the way, never a file in between.

A stream comes once, from its beginning, holes left out. After a cut it is asked for again; what the sink has already is passed
over.
"""

from __future__ import annotations

import http.client
import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from imgtool.copying.zeros import all_zero
from imgtool.endpoints.vsphere import lease, login
from imgtool.endpoints.vsphere.lease import Lease, LeasedDisk
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import ImgtoolError, UnreachableError, text_of
from imgtool.formats.vmdk.unstream import grains
from imgtool.model.endpoint import RemoteDisk
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Of a whole disk."""
BUFFER = 1 << 20


@dataclass
class _Shared:
    lease: Lease
    ends: ExitStack
    users: int = 0
    error: list[BaseException] = field(default_factory=list)


class Exports:
    """One lease for all disks of a machine that are read at the same time: a host gives no second one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._open: dict[str, _Shared] = {}

    @contextmanager
    def lease(self, machine: str, control: Control) -> Iterator[Lease]:
        """Of a powered-off machine (its id). Raises ImgtoolError, RefusedError (the licence)."""
        shared = self._enter(machine, control)
        try:
            yield shared.lease
        except BaseException as error:
            shared.error.append(error)
            raise
        finally:
            self._leave(machine, shared)

    def _enter(self, machine: str, control: Control) -> _Shared:
        with self._lock:
            if machine not in self._open:
                ends = ExitStack()
                self._open[machine] = _Shared(ends.enter_context(lease.exporting(self._session, machine, control)), ends)
            self._open[machine].users += 1
            return self._open[machine]

    def _leave(self, machine: str, shared: _Shared) -> None:
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
            del self._open[machine]
        if shared.error:
            error = shared.error[0]
            shared.ends.__exit__(type(error), error, error.__traceback__)
        else:
            shared.ends.close()


def read(held: Lease, disk: RemoteDisk, sink: Sink, control: Control) -> None:
    """The whole disk into ``sink``, in ascending order. Raises UnreachableError, DamagedError."""
    device = lease.of([one.device for one in held.disks], disk)
    leased = next((one for one in held.disks if one.device == device), None)
    if leased is None:
        raise ImgtoolError(f"{held.session.account.host} does not say which of its exports is {disk.path}",
                           "try ?transport=https or ?transport=ssh")
    job = _Job(held, leased, disk.capacity, sink, control)
    for attempt in range(ATTEMPTS):
        try:
            job.attempt()
            break
        except _BrokenError as error:
            held.check()
            if attempt == ATTEMPTS - 1:
                raise UnreachableError(f"{held.session.account.host}: the export broke off {ATTEMPTS} times: {error}",
                                       "run the same command again") from error
            log.debug("export: %s, once more", error)
            time.sleep(login.FIRST_PAUSE * 2 ** attempt)


class _BrokenError(Exception):
    """The connection, not the sink."""


@contextmanager
def _breaking() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(text_of(error)) from error


class _Job:
    def __init__(self, held: Lease, disk: LeasedDisk, size: int, sink: Sink, control: Control) -> None:
        self._held, self._disk, self._size, self._sink, self._control = held, disk, size, sink, control
        self._reached = 0

    def attempt(self) -> None:
        with self._held.session.slots, closing(lease.connection(self._held, self._disk)) as made:
            with _breaking():
                come = io.BufferedReader(cast("io.RawIOBase", lease.ask(made, self._held, self._disk)), BUFFER)

            def take(count: int) -> bytes:
                with _breaking():
                    data = come.read(count)
                    if len(data) < count:
                        raise http.client.IncompleteRead(b"", count - len(data))
                return data

            for start, data in grains(take, self._size, "the export"):
                self._control.stop.check()
                self._held.check()
                self._control.rate.take(len(data), self._control.stop)
                self._hand_on(start, data)
            self._zeros(self._size)

    def _hand_on(self, start: int, data: memoryview) -> None:
        if start < self._reached:
            return
        self._zeros(start)
        if all_zero(data):
            self._sink.zero(start, len(data))
        else:
            self._sink.write(start, data)
        self._reached = start + len(data)
        self._held.percent = 100 * self._reached // self._size

    def _zeros(self, end: int) -> None:
        if end > self._reached:
            self._sink.zero(self._reached, end - self._reached)
            self._reached = end
