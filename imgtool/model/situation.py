"""What preflight looks at before a machine moves: the machine, the place it is at, the place it goes to, and what was asked for.

``None`` means that nobody could find out; a rule then says nothing, or says that. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from imgtool.model.machine import Machine


class Level(StrEnum):
    FATAL = "fatal"
    """Nothing is copied."""
    WARNING = "warning"
    """Something is lost, or has to be done by hand."""
    NOTE = "note"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule has found. ``hint`` says what to do."""

    rule: str
    level: Level
    what: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceDisk:
    """A disk of the machine as its storage knows it, in the order of ``Machine.disks``."""

    name: str
    capacity: int = 0
    data: int | None = None
    """Bytes that are allocated."""
    kind: str = "flat"
    """flat, sparse, sesparse, rdm-virtual, rdm-physical, vsan, vvol, qcow2, raw, block, …"""
    datastore: str | None = None
    shared: bool = False
    encrypted: bool = False


@dataclass(frozen=True, kw_only=True)
class FreeSpace:
    """Of a file system in the guest."""

    mount: str
    free: int


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """What the place where the machine is knows of it, beyond its description."""

    running: bool | None = None
    suspended: bool = False
    disks: tuple[SourceDisk, ...] = ()
    snapshots: tuple[str, ...] = ()
    consolidation_needed: bool = False
    encrypted: bool = False
    change_tracking: bool | None = None
    fault_tolerance: bool = False
    maintenance: bool = False
    """The host is in maintenance mode."""
    can_write: bool | None = None
    """The licence lets programs change things (power, snapshots, export leases)."""
    can_resume: bool = True
    """The transport can go on inside a disk."""
    tls: str = "checked"
    """checked, pinned, unchecked."""
    guest_free: tuple[FreeSpace, ...] = ()
    tools: str | None = None
    """running, stopped, old, missing."""
    clock_skew: float = 0.0
    """Seconds between that clock and ours."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A machine that is at the target already."""

    name: str
    uuid: str | None = None
    macs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TargetState:
    """The place where the machine goes."""

    kind: str = "kvm"
    """kvm, esxi, folder."""
    accelerator: str | None = None
    """kvm, or qemu where it has none; None: this host's."""
    machines: tuple[Taken, ...] = ()
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    """Name of the pool, datastore or folder that was chosen."""
    storages: tuple[str, ...] = ()
    free: int | None = None
    can_write: bool | None = None
    can_resume: bool = True
    hardware_version: int | None = None
    """The highest that an ESXi knows."""
    maintenance: bool = False
    tls: str = "checked"
    missing_tools: tuple[str, ...] = ()
    """What the work needs and is not installed, here or there, with the command that installs it."""
    staging_free: int | None = None
    """Room for a staged copy here, where one is needed."""
    clock_skew: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What of the request the rules need."""

    thick: bool = False
    staged: bool = False
    """The bytes pass through a copy on this machine."""
    new_identity: bool = False
    ignore_running: bool = False
    """``--shutdown-source``: it will be off when the copy begins."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    machine: Machine
    """As the source describes it."""
    result: Machine
    """As it shall be at the target: retargeted, networks and storage mapped."""
    source: SourceState = SourceState()
    target: TargetState = TargetState()
    asked: Asked = Asked()
