"""A connection to libvirtd. URIs are libvirt's own: ``qemu:///system``, ``qemu+ssh://user@host/system?keyfile=…``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from imgtool.errors import ImgtoolError, MissingToolError, NoSpaceError, RefusedError, UnreachableError

if TYPE_CHECKING:
    import libvirt

LOCAL = ("qemu:///", "qemu+unix:///", "qemu:///embed")
"""Beginnings of URIs whose storage is this machine's."""


def is_local(uri: str) -> bool:
    """Whether the files of its pools are files of this machine."""
    return uri.startswith(LOCAL)


@contextmanager
def connected(uri: str, *, read_only: bool = False) -> Iterator[libvirt.virConnect]:
    """Raises MissingToolError, UnreachableError; in the block, what ``failed`` makes of libvirt's errors."""
    try:
        import libvirt
    except ImportError as error:
        raise MissingToolError("the Python binding of libvirt is not installed", "apt-get install python3-libvirt") from error
    libvirt.registerErrorHandler(_silent, None)
    try:
        connection = libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise UnreachableError(f"{uri}: {error.get_error_message()}", "virsh -c URI list --all shows the same") from error
    try:
        yield connection
    except libvirt.libvirtError as error:
        failed(error, uri)
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


def _silent(_context: object, _error: object) -> None:
    """libvirt prints each error by default; ours say it."""


def failed(error: libvirt.libvirtError, where: str) -> NoReturn:
    """libvirt's error in our words. Raises UnreachableError, RefusedError, NoSpaceError, ImgtoolError."""
    import libvirt

    code, words = error.get_error_code(), error.get_error_message() or str(error)
    if code in (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED):
        raise UnreachableError(f"{where}: {words}") from error
    if code in (libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_ERR_OPERATION_DENIED):
        hint = "a user who may manage machines is needed (group libvirt, or root)"
        raise UnreachableError(f"{where}: {words}", hint) from error
    if error.get_int1() == errno.ENOSPC or "No space left on device" in words:
        raise NoSpaceError(f"{where}: {words}") from error
    if code in (libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_ERR_STORAGE_VOL_EXIST):
        raise RefusedError(f"{where}: {words}") from error
    raise ImgtoolError(f"{where}: {words}") from error
