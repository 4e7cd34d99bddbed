"""Where machines are read from and written to. Each endpoint is a module or folder of its own, loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from imgtool.errors import UsageError
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    from imgtool.formats.disk import Disk
    from imgtool.model.endpoint import Credentials, Found, NewDisk, Placing, Seen, Uri
    from imgtool.model.machine import Machine
    from imgtool.model.situation import TargetState
    from imgtool.model.translation import World

SOURCES = {
    "path": "imgtool.endpoints.files",
    "esx": "imgtool.endpoints.vsphere", "vpx": "imgtool.endpoints.vsphere",
    "qemu": "imgtool.endpoints.libvirt", "qemu+ssh": "imgtool.endpoints.libvirt",
    "metal": "imgtool.endpoints.metal", "metal+ssh": "imgtool.endpoints.metal",
}
"""The module of a scheme; it has ``source(uri, credentials, stop)``."""
TARGETS = {scheme: module for scheme, module in SOURCES.items() if not scheme.startswith("metal")}
"""The same with ``target(uri, credentials, stop)``. Physical disks are written by ``v2p``, which knows how to be careful."""


class Sink(Protocol):
    """Where the bytes of a disk go. Called by several threads at once; offsets are the disk's."""

    def write(self, offset: int, data: memoryview) -> None:
        """``data`` is valid until this returns."""

    def zero(self, offset: int, length: int) -> None:
        """The range reads as zeros."""


class Reader(Protocol):
    """A disk of a machine, as its place gives it out. Raises UnreachableError wherever it talks to the other side."""

    size: int
    state: Mapping[str, object]
    """What tells this disk, in this state, from any other: a stopped copy goes on only where it is the same."""
    resumes: bool
    """Ranges can be asked for; else ``read`` gives the whole disk, from its beginning."""
    disk: Disk | None
    """Where it can be read in place, by this process."""

    def holes(self) -> Iterable[tuple[int, int]]:
        """Ranges [start, end) that are known to read as zeros without asking for them; sorted."""

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        """Ranges (start, end) in ascending order, in pieces that do not cross multiples of 1 MiB."""


class Source(Protocol):
    """What machines are read from. It is never changed, but by ``shut_down``. Raises UnreachableError."""

    def machines(self) -> list[Found]: ...

    def find(self, name: str) -> Found:
        """By its name, ``folder/name`` or id. UsageError with what there is."""

    def look(self, found: Found, control: Control) -> Seen: ...

    def reader(self, seen: Seen, number: int, control: Control) -> AbstractContextManager[Reader]:
        """Of the disk ``seen.parsed.machine.disks[number]``."""

    def shut_down(self, found: Found, control: Control) -> None:
        """By the guest itself, and waits until it is off. Raises ImgtoolError where it does not go."""

    def close(self) -> None: ...


class Target(Protocol):
    """What machines are written to. ``machine`` is always the id that ``define`` or ``send`` gave."""

    world: World
    """Whose hardware machines have there."""
    suffix: str
    """Of the description that it takes."""
    formats: tuple[str, ...]
    """Of disks, the usual one first."""
    temporary: str
    """Behind a machine's name until it is verified."""
    folder: str | None
    """Where disks lie as files of this host, once ``look`` has found it; None: far away, they are sent."""

    def look(self, placing: Placing, control: Control) -> TargetState:
        """Raises UsageError, with what there is, where a name is wrong or missing."""

    def rename(self, machine: str, name: str) -> None:
        """From the temporary name to its own."""

    def start(self, machine: str) -> None: ...

    def watch(self, machine: str, control: Control) -> str:
        """What is seen of a machine that was started: an agent that answers, words on its console, a screen that changes."""

    def remove(self, machine: str) -> None:
        """A half-made machine and its disks."""

    def close(self) -> None: ...


class HostTarget(Target, Protocol):
    """Disks are files of this host, in ``folder``."""

    def define(self, name: str, text: bytes, disks: Sequence[str]) -> str:
        """Under the name that stands in the text; not started, no autostart. ``disks``: the files, there already."""

    def discard(self, name: str, disks: Sequence[str]) -> tuple[list[str], list[str]]:
        """``--discard-partial``: removes the half-made machine ``name`` with some of these disks, which are ours.

        Gives what was removed, and which of ``disks`` no machine has.
        """


class FarTarget(Target, Protocol):
    """Disks are sent."""

    sets_uuid: bool
    """The description has no place for it, and the target sets it nevertheless."""

    def send(self, name: str, made: Machine, text: bytes, disks: Sequence[tuple[NewDisk, Disk]], state: str,
             control: Control) -> str:
        """Makes the machine ``name``, with what the disks hold. ``state``: a folder of this host for block maps.

        What was half made stays where the same call goes on with it, and is removed where it does not.
        """

    def compare(self, machine: str, disks: Sequence[tuple[NewDisk, Disk]], control: Control) -> None:
        """Reads back what was sent, or has it hashed there. Raises DifferError."""

    def discard(self, disks: Sequence[NewDisk], state: str) -> None:
        """``--discard-partial``: removes what a stopped ``send`` left."""


def source(uri: Uri, credentials: Credentials, stop: Stop | None = None) -> Source:
    """A place that has let us in, to read from. Raises UsageError, UnreachableError.

    ``stop``: ends waiting for the other side, as long as the place is used.
    """
    return cast("Source", _module(SOURCES, uri).source(uri, credentials, stop or Stop()))


def target(uri: Uri, credentials: Credentials, stop: Stop | None = None) -> HostTarget | FarTarget:
    """A place that has let us in, to write to; as ``source``."""
    return cast("HostTarget | FarTarget", _module(TARGETS, uri).target(uri, credentials, stop or Stop()))


def _module(known: Mapping[str, str], uri: Uri) -> ModuleType:
    name = known.get(uri.scheme)
    if name is None:
        raise UsageError(f"{uri.scheme}:// cannot be used here", "imgtool v2p writes physical disks")
    return import_module(name)
