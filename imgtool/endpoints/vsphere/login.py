"""A session of a vSphere server that renews itself, and is ended when imgtool ends.

The cookie of the login serves ``/folder`` too. Sessions end after about 30 minutes without a call; a copy that only reads data
would outlive its session, so it is renewed after ``RENEW_AFTER``.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from imgtool.endpoints.vsphere import tls
from imgtool.errors import ImgtoolError, NoSpaceError, NotAdmittedError, RefusedError, UnreachableError, text_of

log = logging.getLogger(__name__)

RENEW_AFTER = 25 * 60.0
"""Seconds."""
STREAMS = 8
"""At most so many streams of data at once from one server, over all disks."""
ATTEMPTS = 5
"""Of a call that the server was too busy for."""
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; doubled each time."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Account:
    host: str
    user: str
    password: str = field(repr=False)
    port: int = tls.PORT
    trust: tls.Trust = field(default_factory=tls.Trust)


class Session:
    """Calls go through ``call`` and get the stub that is valid now: objects of pyvmomi are never kept, their ids are."""

    def __init__(self, account: Account, *, streams: int = STREAMS) -> None:
        """Logs in. Raises UsageError, UnreachableError."""
        self.account = account
        self.context: ssl.SSLContext = account.trust.context()
        self.slots = threading.BoundedSemaphore(streams)
        self.streams = streams
        self.within: str | None = None
        """The id of the datacenter that is spoken of; None: all of the server."""
        self._lock = threading.RLock()
        self._stub: Any = None
        self._since = 0.0
        self._leases = 0
        tls.probe(account.host, account.port, self.context)
        self._login()

    def _login(self) -> None:
        """A server that is too busy is asked again; a password that was refused never is."""
        from pyVmomi import vim

        for attempt in range(ATTEMPTS):
            try:
                self._stub, self._since = self._admitted(), time.monotonic()
            except (vim.fault.InvalidLogin, vim.fault.NoPermission):
                raise NotAdmittedError(f"{self.account.host} does not accept this password for {self.account.user}",
                                       "after several wrong ones ESXi locks the account for 15 minutes") from None
            except Exception as error:
                if attempt == ATTEMPTS - 1 or not _busy(error):
                    raise said(error, f"logging in to {self.account.host}") from error
                time.sleep(FIRST_PAUSE * 2 ** attempt)
            else:
                return

    def _admitted(self) -> Any:
        from pyVim.connect import SmartStubAdapter

        account = self.account
        stub = SmartStubAdapter(host=account.host, port=account.port, sslContext=self.context,
                                httpConnectionTimeout=tls.ANSWER_SECONDS)
        content(stub).sessionManager.Login(account.user, account.password)
        return stub

    def cookie(self) -> str:
        """``name=value``, of a session that will last for a while. Raises UnreachableError."""
        with self._lock:
            if not self._leases and time.monotonic() - self._since > RENEW_AFTER:
                self.renew(self._value())
            return self._value()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """For a lease, which ends with the session that it was made in; its heartbeat keeps that alive."""
        with self._lock:
            self._leases += 1
        try:
            yield
        finally:
            with self._lock:
                self._leases -= 1

    def _value(self) -> str:
        return str(self._stub.cookie).split(";", maxsplit=1)[0]

    def renew(self, refused: str) -> None:
        """Logs in again, unless somebody else has done so since the cookie ``refused`` was sent."""
        with self._lock:
            if self._value() != refused:
                return
            log.debug("%s: the session is renewed", self.account.host)
            old = self._stub
            self._login()
            _logout(old)

    def call(self, what: str, ask: Callable[[Any], T], *, again: bool = True) -> T:
        """The answer of ``ask(stub)``; ``what`` says in messages what was tried.

        A session that has ended is renewed, a busy server is asked again. ``again``: also where the connection broke and the call
        may have been carried out. Raises ImgtoolError.
        """
        from pyVmomi import vim

        for attempt in range(ATTEMPTS):
            stub, cookie = self._stub, self._value()
            try:
                return ask(stub)
            except vim.fault.NotAuthenticated as error:
                if attempt == ATTEMPTS - 1:
                    raise said(error, what) from error
                self.renew(cookie)
            except (http.client.HTTPException, OSError) as error:
                if attempt == ATTEMPTS - 1 or not (again or _busy(error)):
                    raise said(error, what) from error
                time.sleep(FIRST_PAUSE * 2 ** attempt)
            except Exception as error:
                raise said(error, what) from error
        raise AssertionError  # the last attempt returns or raises

    def close(self) -> None:
        with self._lock:
            if self._stub is not None:
                _logout(self._stub)
                self._stub = None


def content(stub: Any) -> Any:
    """What a server has: its root folder, its managers."""
    from pyVmomi import vim

    service: Any = vim.ServiceInstance("ServiceInstance", stub)
    return service.RetrieveContent()


def clock_skew(session: Session) -> float:
    """Seconds by which the server's clock is ahead of ours."""
    from pyVmomi import vim

    def ask(stub: Any) -> float:
        before = datetime.now(UTC)
        service: Any = vim.ServiceInstance("ServiceInstance", stub)
        there: datetime = service.CurrentTime()
        return (there - before - (datetime.now(UTC) - before) / 2).total_seconds()

    return session.call("asking for the time", ask)


def _busy(error: Exception) -> bool:
    return isinstance(error, http.client.HTTPException) and str(error).startswith("503 ")


def _logout(stub: Any) -> None:
    with suppress(Exception):  # ended already, or unreachable: it times out
        content(stub).sessionManager.Logout()
    stub.DropConnections()


def said(error: BaseException, what: str) -> ImgtoolError:
    """A fault of the API, or an error on the way, as one of ours."""
    from pyVmomi import vim, vmodl

    if isinstance(error, ImgtoolError):
        return error
    if isinstance(error, vim.fault.RestrictedVersion):
        return RefusedError(f"{what}: the licence of this host forbids writes through its API",
                            "the free licence does; enter the evaluation or a paid one, or use SSH")
    if isinstance(error, vim.fault.NotAuthenticated | vim.fault.NoPermission):
        return NotAdmittedError(f"{what}: the server does not permit that", "ask for a role with more privileges")
    if isinstance(error, vim.fault.NoDiskSpace | vim.fault.InsufficientStorageSpace):
        return NoSpaceError(f"{what}: {message(error)}")
    if isinstance(error, ssl.SSLError | OSError | http.client.HTTPException):
        return UnreachableError(f"{what}: {text_of(error)}", "is the server still there?")
    if isinstance(error, vmodl.MethodFault):
        return ImgtoolError(f"{what}: {message(error)}")
    return UnreachableError(f"{what}: {text_of(error)}")


def message(fault: Any) -> str:
    """What a fault says, on one line: its kind, its words, its most telling fields."""
    kind = type(fault).__name__.rsplit(".", 1)[-1]
    words = [str(getattr(fault, name, None) or "") for name in ("msg", "name", "file", "invalidProperty", "reason")]
    return ": ".join([kind, *(" ".join(word.split()) for word in words if word.strip())])
