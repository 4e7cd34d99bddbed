"""Where machines are read from and written to. Each endpoint is a module or folder of its own, loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, cast

from imgtool.errors import UsageError
from imgtool.model.endpoint import Credentials, Facts, Found, Places, RemoteDisk, Uri
from imgtool.progress import Control

SCHEMES = {"esx": "imgtool.endpoints.vsphere", "vpx": "imgtool.endpoints.vsphere"}
"""The module that serves a scheme; it has ``connect(uri, credentials)``."""


class Sink(Protocol):
    """Where the bytes of a disk go. Called by several threads at once; offsets are the disk's."""

    def write(self, offset: int, data: memoryview) -> None:
        """``data`` is valid until this returns."""

    def zero(self, offset: int, length: int) -> None:
        """The range reads as zeros."""


class Source(Protocol):
    """What machines are read from. Raises UnreachableError wherever it talks to the other side."""

    def machines(self) -> list[Found]: ...

    def find(self, name: str) -> Found:
        """By its name, ``folder/name`` or id. UsageError with what there is."""

    def facts(self, found: Found) -> Facts: ...

    def description(self, facts: Facts) -> bytes:
        """The bytes of the .vmx, the domain's XML."""

    def read(self, found: Found, disk: RemoteDisk, sink: Sink, wanted: Iterable[tuple[int, int]], control: Control) -> None:
        """The ranges ``wanted`` (start, end) of a disk, in ascending order: a whole disk, or what a stopped run has left."""

    def close(self) -> None: ...


class Target(Protocol):
    """What machines are written to."""

    def machines(self) -> list[Found]: ...

    def places(self) -> Places: ...

    def rename(self, machine: str, name: str) -> None:
        """From the temporary name to its own. ``machine``: its id."""

    def start(self, machine: str) -> None: ...

    def remove(self, machine: str) -> None:
        """A half-made machine and its disks."""

    def close(self) -> None: ...


class Endpoint(Source, Target, Protocol):
    """Both."""


def connect(uri: Uri, credentials: Credentials) -> Endpoint:
    """An endpoint that has let us in. Raises UsageError, UnreachableError."""
    module = SCHEMES.get(uri.scheme)
    if module is None:
        raise UsageError(f"imgtool has no endpoint for {uri.scheme}", f"known: {', '.join(SCHEMES)}")
    return cast("Endpoint", import_module(module).connect(uri, credentials))
