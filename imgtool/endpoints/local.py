"""A machine in a folder of this host: its description, what stands beside it, and which files its names mean.

What a description says must not lead out of its folder, links resolved, except into folders of the user (``--disk-root``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imgtool.descriptions import description
from imgtool.errors import DamagedError, ImgtoolError, RefusedError, UsageError
from imgtool.model.description import Parsed
from imgtool.model.devices import Backing
from imgtool.model.machine import MachineSnapshot
from imgtool.ova.read import Package, read_ova, read_ovf
from imgtool.suffixes import ARCHIVE, BUNDLE, DESCRIPTIONS, MACHINES, TEMPLATE, suffix_of

MAX_TEXT = 64 << 20
"""Bytes of a description: one with 20,000 guestinfo keys has 2 MB."""
IN_DATASTORE = re.compile(r"^(?:\[[^\]]+\] ?|/vmfs/volumes/[^/]+/)")


@dataclass(frozen=True, kw_only=True)
class LocalMachine:
    """A description that was read."""

    path: str
    """Of the description's file; of the archive, if it lies in one."""
    suffix: str
    """A key of ``DESCRIPTIONS``."""
    text: bytes
    parsed: Parsed
    package: Package | None = None
    """Of an OVF or OVA."""

    @property
    def directory(self) -> str:
        return os.path.dirname(os.path.abspath(self.path))


def load(path: str) -> LocalMachine:
    """Reads a description, by its suffix, or the one in a ``.vmwarevm`` folder. Raises UsageError, DamagedError, RefusedError."""
    path = _in_bundle(path)
    suffix = suffix_of(path)
    if suffix in (".ovf", ARCHIVE):
        package = read_ova(path) if suffix == ARCHIVE else read_ovf(path)
        parsed = description(".ovf").parse(package.text)
        return LocalMachine(path=path, suffix=".ovf", text=package.text, parsed=parsed, package=package)
    template, suffix = suffix == TEMPLATE, ".vmx" if suffix == TEMPLATE else suffix
    if suffix not in DESCRIPTIONS:
        raise UsageError(f"{path}: its suffix is not that of a machine's description", f"known: {', '.join(MACHINES)}")
    text = read_text(path)
    parsed = description(suffix).parse(text)
    if template:
        parsed = replace(parsed, machine=replace(parsed.machine, template=True))
    return LocalMachine(path=path, suffix=suffix, text=text, parsed=_with_snapshots(path, parsed) if suffix == ".vmx" else parsed)


def read_text(path: str) -> bytes:
    """The bytes of a description. Raises UsageError, DamagedError (too large to be one)."""
    if not os.path.isfile(path):
        raise UsageError(f"{path} does not exist" if not os.path.exists(path) else f"{path} is no file")
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise ImgtoolError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > MAX_TEXT:
        raise DamagedError(f"{path} has more than {MAX_TEXT} bytes: no description of a machine")
    return text


def _in_bundle(path: str) -> str:
    if suffix_of(path.rstrip("/")) != BUNDLE or not os.path.isdir(path):
        return path
    found = sorted(name for name in os.listdir(path) if name.lower().endswith(".vmx"))
    if len(found) != 1:
        raise DamagedError(f"{path} has {len(found)} .vmx files", "name the one that is meant")
    return os.path.join(path, found[0])


def _with_snapshots(path: str, parsed: Parsed) -> Parsed:
    """VMware lists the snapshots of a machine in the ``.vmsd`` beside the ``.vmx``."""
    beside = os.path.splitext(path)[0] + ".vmsd"
    if not os.path.isfile(beside) or os.path.islink(beside):
        return parsed
    from imgtool.descriptions.vmx import snapshots

    found: tuple[MachineSnapshot, ...] = snapshots(read_text(beside))
    return replace(parsed, machine=replace(parsed.machine, snapshots=found or parsed.machine.snapshots))


def refuse_if_running(machine: LocalMachine) -> None:
    """Raises RefusedError: a host of VMware has the ``.vmx`` open."""
    lock = f"{machine.path}.lck"
    if machine.suffix == ".vmx" and os.path.lexists(lock):
        raise RefusedError(f"{lock} says that the machine runs",
                           "power the machine off; if you know that it is off: --ignore-lock")


def locate(machine: LocalMachine, name: str, roots: tuple[str, ...]) -> str | None:
    """The file that a name in the description means; None where there is none that it may mean."""
    allowed = [os.path.realpath(folder) for folder in (machine.directory, *roots)]
    for place in _places(machine.directory, name, roots):
        real = os.path.realpath(place)
        if os.path.exists(real) and not os.path.isdir(real) and any(_inside(real, folder) for folder in allowed):
            return os.path.normpath(place)
    return None


def disk_file(machine: LocalMachine, name: str, backing: Backing, roots: tuple[str, ...]) -> str:
    """The file of a disk, which must be there. Raises RefusedError (outside, or no file), DamagedError (missing)."""
    if backing in (Backing.NETWORK, Backing.CLIENT):
        raise RefusedError(f"{machine.path} names the disk {name!r}, which is not on this host", "copy it into a file first")
    if found := locate(machine, name, roots):
        return found
    outside = os.path.isabs(name) or ".." in name.split("/") or os.path.exists(os.path.join(machine.directory, name))
    if outside or backing is not Backing.FILE:
        raise RefusedError(f"{machine.path} names the disk {name!r}, which is not in its directory",
                           "say in which folder it may be: --disk-root DIR")
    raise DamagedError(f"{machine.path} needs the disk {name!r}, which is missing", "bring the file back, or say --disk-root DIR")


def _places(directory: str, name: str, roots: tuple[str, ...]) -> Iterator[str]:
    """Where a name may lead: first as it stands, then below each folder that the user names."""
    if "\0" in name or not name:
        return
    yield os.path.join(directory, name)
    rest = IN_DATASTORE.sub("", name)
    for root in (os.path.abspath(root) for root in roots):
        yield from (os.path.join(root, part) for part in dict.fromkeys((rest.lstrip("/"), os.path.basename(rest))) if part)


def _inside(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder
