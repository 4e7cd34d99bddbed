"""What ``migrate`` is asked for, and what it gives. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from imgtool.model.devices import Network
from imgtool.model.endpoint import ANYWHERE, NO_CREDENTIALS, Credentials, Placing, Uri
from imgtool.model.guest import Change
from imgtool.model.image import Allocation
from imgtool.model.metal import USED_BLOCKS, Pass, Reading
from imgtool.model.problem import Problem


@dataclass(frozen=True, kw_only=True)
class GuestOptions:
    """How the guest is adapted on the way."""

    adapt: bool = True
    key_files: tuple[str, ...] = ()
    drivers: str | None = None
    """Windows: folder or ISO with drivers: virtio-win for KVM, those of VMware Tools for ESXi."""
    packages: str | None = None
    """Folder with packages that the guest installs when it next boots."""
    rebuild_initramfs: bool = False


@dataclass(frozen=True, kw_only=True)
class MigrateRequest:
    """``imgtool migrate``, and ``p2v``."""

    name: str | None
    """Of the machine at the source. None: the only one there is."""
    source: Uri
    target: Uri
    source_credentials: Credentials = NO_CREDENTIALS
    target_credentials: Credentials = NO_CREDENTIALS
    new_name: str | None = None
    placing: Placing = ANYWHERE
    networks: tuple[tuple[str, Network], ...] = ()
    storage: tuple[tuple[str, str], ...] = ()
    """Folders and datastores named by drives: there → here."""
    disk_roots: tuple[str, ...] = ()
    format: str | None = None
    """Of the disks; None: the target's usual one."""
    allocation: Allocation = Allocation.THIN
    guest: GuestOptions = GuestOptions()
    new_identity: bool = False
    hardware_version: int | None = None
    verify: bool = True
    clone: bool = True
    start: bool = False
    shutdown_source: bool = False
    ignore_lock: bool = False
    reading: Reading = USED_BLOCKS
    """Of physical disks."""
    staging: str | None = None
    """Folder for what must lie on this host while it is on its way."""


@dataclass(frozen=True, kw_only=True)
class MovedDisk:
    source: str
    destination: str
    virtual_size: int
    engine: str
    """clone, kernel, buffer, …; ranges: read from the other side piece by piece; kept: it was there from a run before."""
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_cloned: int = 0
    bytes_lost: int = 0
    """That could not be read (``--rescue``): zeros at the target."""
    passes: tuple[Pass, ...] = ()
    """Over a disk in use (``p2v --live``)."""
    warnings: tuple[str, ...] = ()
    checksum: str | None = None
    """BLAKE2b over the digests of its chunks of 4 MiB, as they came from the source, in hexadecimal; None: cloned."""


@dataclass(frozen=True, kw_only=True)
class Migrated:
    """What ``imgtool migrate --json`` says."""

    machine: str
    """Its name at the target."""
    id: str
    """The target's own."""
    source: str
    target: str
    disks: tuple[MovedDisk, ...]
    changes: tuple[Change, ...] = ()
    """What was changed in the guest."""
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    started: str | None = None
    """What was seen of it after its start; None: it was not started."""
    verified: bool = True
    job: str = ""
    """Of its journal."""
    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    """How long each part took, in seconds."""
