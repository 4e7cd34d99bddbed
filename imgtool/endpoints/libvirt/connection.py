"""A connection to libvirtd, opened again when it was lost: a copy may take a day.

URIs are libvirt's own: ``qemu:///system``, ``qemu+ssh://user@host/system?keyfile=…``. The far libvirtd is reached through
a socket that our own ssh forwards, so that there is one way in, with one set of keys, known hosts and time limits; nothing but
ssh and libvirtd is needed at the far end.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from imgtool.endpoints.far import tunnel
from imgtool.errors import ImgtoolError, MissingToolError, NoSpaceError, RefusedError, UnreachableError, UsageError
from imgtool.model.endpoint import Uri
from imgtool.progress import Stop

if TYPE_CHECKING:
    import libvirt

PATHS = ("system", "session")
KNOWN = {"qemu": ("socket",), "qemu+ssh": ("socket", "keyfile", "known_hosts")}
"""Parameters. libvirt's ``command`` and ``netcat`` name programs to be run: an address may come from a stranger's runbook."""
SOCKETS = ("libvirt/libvirt-sock", "libvirt/virtqemud-sock")
"""Below the folder for running daemons: of libvirtd or of its proxy, of the daemon for QEMU alone."""


class Host:
    """A libvirt host. Raises UsageError, MissingToolError, UnreachableError."""

    def __init__(self, uri: Uri, stop: Stop) -> None:
        self.uri, self.stop, self.far = uri, stop, uri.scheme == "qemu+ssh"
        _check(uri)
        self.name = f"{uri.host}" if self.far else f"{uri.scheme}:///{uri.path}"
        self.tools: frozenset[str] = frozenset()
        """At the far end: which of ``tunnel.TOOLS`` are there."""
        self._stack, self._lock = ExitStack(), threading.Lock()
        self._connection: libvirt.virConnect | None = None
        self.connection()

    def connection(self) -> libvirt.virConnect:
        """A live one. Threads may ask at the same time."""
        with self._lock:
            if self._connection is None or not self._alive(self._connection):
                self.close()
                try:
                    self._connection = self._open()
                except BaseException:
                    self._stack.close()
                    raise
            return self._connection

    @staticmethod
    def _alive(connection: libvirt.virConnect) -> bool:
        """isAlive only says what the last call met."""
        import libvirt

        try:
            connection.getLibVersion()
        except libvirt.libvirtError:
            return False
        return bool(connection.isAlive())

    def _open(self) -> libvirt.virConnect:
        libvirt = load()
        text = self._local_text()
        try:
            return libvirt.open(text)
        except libvirt.libvirtError as error:
            hint = "see whether libvirtd runs there, and whether its sshd forwards sockets (AllowStreamLocalForwarding)" \
                if self.far else f"virsh -c {text} list --all shows the same"
            raise UnreachableError(f"{self.name}: {error.get_error_message()}", hint) from error

    def _local_text(self) -> str:
        socket = dict(self.uri.query).get("socket")
        if self.far:
            there = tunnel.look(self.uri, (socket,) if socket else SOCKETS, session=self.uri.path == "session", stop=self.stop)
            self.tools = there.tools
            if there.socket is None:
                raise UnreachableError(f"{self.name}: no libvirtd listens on that host for {self.uri.path} connections",
                                       "start it there (systemctl start libvirtd), or say where its socket is: ?socket=PATH")
            socket = self._stack.enter_context(tunnel.forwarded(self.uri, there.socket, stop=self.stop))
        return f"qemu:///{self.uri.path}" + (f"?socket={quote(socket)}" if socket else "")

    @contextmanager
    def asked(self) -> Iterator[libvirt.virConnect]:
        """A live connection; in the block libvirt's errors become ours."""
        libvirt = load()
        connection = self.connection()
        try:
            yield connection
        except libvirt.libvirtError as error:
            failed(error, self.name)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(load().libvirtError):
                connection.close()
        self._stack.close()


def _check(uri: Uri) -> None:
    if uri.path not in PATHS:
        raise UsageError(f"{uri.scheme}:// needs the path /system or /session",
                         f"{uri.scheme}://{'user@host' if uri.host else ''}/system")
    for name, value in uri.query:
        if name not in KNOWN[uri.scheme]:
            known = (*KNOWN[uri.scheme], "no_verify") if uri.host else KNOWN[uri.scheme]
            raise UsageError(f"{name!r} is no parameter of {uri.scheme}:// here", f"known: {', '.join(known)}")
        if not value or "\n" in value:
            raise UsageError(f"the parameter {name} of the {uri.scheme}:// address is empty")


def load() -> Any:
    """The module. Raises MissingToolError."""
    try:
        import libvirt
    except ImportError as error:
        raise MissingToolError("the Python binding of libvirt is not installed", "apt-get install python3-libvirt") from error
    libvirt.registerErrorHandler(_silent, None)
    return libvirt


def _silent(_context: object, _error: object) -> None:
    """libvirt prints each error by default; ours say it."""


def failed(error: libvirt.libvirtError, where: str) -> NoReturn:
    """libvirt's error in our words. Raises UnreachableError, RefusedError, NoSpaceError, ImgtoolError."""
    import libvirt

    code, words = error.get_error_code(), error.get_error_message() or str(error)
    if code in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED) \
            or error.get_error_domain() == libvirt.VIR_FROM_RPC:
        raise UnreachableError(f"{where}: {words}") from error
    if code in (libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_ERR_OPERATION_DENIED):
        hint = "a user who may manage machines is needed (group libvirt, or root)"
        raise UnreachableError(f"{where}: {words}", hint) from error
    if error.get_int1() == errno.ENOSPC or "No space left on device" in words:
        raise NoSpaceError(f"{where}: {words}") from error
    if code in (libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_ERR_STORAGE_VOL_EXIST):
        hint = "another name for the machine; or, if a run that was killed has left that: virsh undefine, virsh vol-delete"
        raise RefusedError(f"{where}: {words}", hint) from error
    raise ImgtoolError(f"{where}: {words}") from error
