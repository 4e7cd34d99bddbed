"""What a machine's move from one world of hypervisors to another is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from imgtool.model.description import Rendered
from imgtool.model.devices import Network
from imgtool.model.guest import Capabilities
from imgtool.model.machine import Machine
from imgtool.model.problem import Problem
from imgtool.model.request import ConvertRequest
from imgtool.model.result import ConvertResult

NOBODY_LOOKED = Capabilities()


class World(StrEnum):
    """Whose hardware a machine is made of. An OVF counts as ESXi's: that is what reads it."""

    KVM = "kvm"
    ESXI = "esxi"


class PlacedFile(NamedTuple):
    """Where a file that a description names stands now, or will stand."""

    named: str
    """In the description."""
    path: str
    """Absolute."""
    format: str | None = None
    """Of a disk: raw, qcow2, vmdk."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What retargeting is told from outside; it looks at nothing itself."""

    to: World
    whose: World | None = None
    """Whose hardware the machine has, where the format of its description says it; None: found out."""
    accelerator: str = "kvm"
    """kvm, or qemu where the host has none."""
    capabilities: Capabilities = NOBODY_LOOKED
    networks: tuple[tuple[str, Network], ...] = ()
    """Name of a network there → the network here (``--map-network``)."""
    storage: tuple[tuple[str, str], ...] = ()
    """Folder, or ``[datastore]``, there → the same here (``--map-storage``)."""
    files: tuple[PlacedFile, ...] = ()
    """Files that are known to be there; of other names only the words are translated."""
    origin: str = "/"
    """The folder of the description there: a name without a path means a file in it."""
    home: str | None = None
    """The folder in which the description will stand: ESXi names what lies in it without a path."""
    name: str | None = None
    new_identity: bool = False
    """New uuid, generation id and MAC addresses: for a clone or a template."""
    draw: str | None = None
    """A machine that is described twice with the same words here, for its plan and for good, gets the same new identity."""
    hardware_version: int | None = None


class Note(NamedTuple):
    """Something that was changed on the way, and why: for ``--explain``."""

    field: str
    """Of the machine as it was: ``disks[0].bus``."""
    before: str
    after: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Retargeted:
    """A machine in the other world."""

    machine: Machine
    notes: tuple[Note, ...] = ()
    problems: tuple[Problem, ...] = ()
    """What could not be carried over."""
    moved: tuple[tuple[str, str], ...] = ()
    """Devices that have another place in their row: ``("disks[1]", "disks[0]")``."""


@dataclass(frozen=True, kw_only=True)
class TranslateRequest:
    """``imgtool translate``."""

    source: str
    destination: str | None
    """None: the text is only given."""
    suffix: str
    """Of the destination: .vmx, .xml, .ovf."""
    onto: str | None = None
    """A description that is changed instead of written anew."""
    networks: tuple[tuple[str, Network], ...] = ()
    storage: tuple[tuple[str, str], ...] = ()
    disk_roots: tuple[str, ...] = ()
    placed: tuple[PlacedFile, ...] = ()
    """Disks that are converted on the way."""
    name: str | None = None
    new_identity: bool = False
    hardware_version: int | None = None
    strict: bool = False
    force: bool = False


class Line(NamedTuple):
    """One row of ``translate --explain``; an empty key: the other side does not say it."""

    source_key: str
    source_value: str
    field: str
    target_key: str
    target_value: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A description in another format."""

    machine: Machine
    rendered: Rendered
    problems: tuple[Problem, ...] = ()
    """Of reading, of retargeting and of writing, each once."""
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TranslateResult:
    """What ``imgtool translate --json`` says."""

    source: str
    destination: str | None
    format: str
    """vmx, xml, ovf."""
    name: str
    """Of the machine."""
    problems: tuple[Problem, ...] = ()
    fields: tuple[Line, ...] = ()
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class MachineRequest:
    """``imgtool convert MACHINE DIR``."""

    convert: ConvertRequest
    """Its source is the description, its destination the folder, or an ``.ova``; the rest goes for each disk."""
    translate: TranslateRequest
    """Of the description."""


@dataclass(frozen=True, kw_only=True)
class MachineResult:
    """What ``imgtool convert MACHINE DIR --json`` says."""

    source: str
    destination: str
    description: str
    """The file that describes the machine for the other side; in an OVA its member's name."""
    name: str
    format: str
    disks: tuple[ConvertResult, ...]
    problems: tuple[Problem, ...] = ()
    seconds: float = 0.0
    verified: bool = True
    warnings: tuple[str, ...] = ()
