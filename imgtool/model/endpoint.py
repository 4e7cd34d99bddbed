"""Where machines come from and go to: addresses, and what the other side says of a machine. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from imgtool.model.description import Parsed
from imgtool.model.image import Allocation
from imgtool.model.situation import SourceState


@dataclass(frozen=True, kw_only=True)
class Uri:
    """``scheme://user@host:port/path?query``, or a path (scheme ``path``)."""

    scheme: str
    host: str | None = None
    port: int | None = None
    user: str | None = None
    path: str = ""
    """Without the leading slash, decoded; of scheme ``path`` as the user typed it."""
    verify: bool = True
    """The certificate (vSphere) or the host key (SSH) is checked."""
    cacert: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    """What else stands there: libvirt's own parameters."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What proves to the other side who we are, and to us who it is."""

    password_file: str | None = None
    password_env: str | None = None
    """Name of a variable in the environment."""
    password_command: tuple[str, ...] = ()
    """Prints the password as its first line."""
    thumbprint: str | None = None
    """SHA-256 or SHA-1 of its certificate, in hexadecimal, with or without colons."""


NO_CREDENTIALS = Credentials()


class Power(StrEnum):
    OFF = "off"
    RUNNING = "running"
    SUSPENDED = "suspended"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A machine in a list."""

    name: str
    id: str
    """The endpoint's own: a managed object id, a domain's uuid."""
    power: Power
    folder: str = ""
    """Where it stands in the inventory: ``Datacenter/vm/web``."""
    tags: tuple[str, ...] = ()
    """Where the place knows any."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A part of a disk that lies, byte by byte, in a file of the far side."""

    path: str
    """``[datastore] folder/x-flat.vmdk``."""
    start: int
    """On the disk."""
    length: int
    offset: int = 0
    """In the file."""


@dataclass(frozen=True, kw_only=True)
class RemoteDisk:
    """A hard disk of a machine on the far side."""

    path: str
    """``[datastore] folder/x.vmdk``."""
    capacity: int
    key: int
    """Of the device."""
    allocated: int | None = None
    """Bytes that its files take on the datastore; None: not known."""
    kind: str = "flat"
    """flat, sparse, sesparse, rdm-virtual, rdm-physical, or a backing that imgtool does not know, by its name."""
    controller: str = ""
    """``scsi0:1``."""
    thin: bool | None = None
    mode: str = "persistent"
    """persistent, independent_persistent, …, in the API's words."""
    shared: bool = False
    """Several machines may write to it."""
    snapshot: bool = False
    """The path is a delta: the disk is a chain of files."""
    change_id: str | None = None
    """Of changed block tracking: the state that the disk is in."""
    encrypted: bool = False
    datastore: str = ""
    """Its name; "" where it cannot be reached."""
    datastore_kind: str = ""
    """VMFS, NFS, NFS41, vsan, VVOL, …"""


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where disks can be put: a datastore, a storage pool, a directory."""

    name: str
    capacity: int
    free: int
    kind: str = ""
    writable: bool = True
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something with a name that a machine can be put into or connected to."""

    name: str
    id: str
    top: bool = True
    """Below no other of its kind: the default is one of these."""
    owner: str = ""
    """Id of the cluster, of a pool or a host."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a target offers: wrong names are answered with this list."""

    stores: tuple[Store, ...] = ()
    networks: tuple[Place, ...] = ()
    pools: tuple[Place, ...] = ()
    folders: tuple[Place, ...] = ()
    hosts: tuple[Place, ...] = ()
    writable: bool = True
    """False: the licence forbids writes through the API."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A machine as its place shows it."""

    found: Found
    suffix: str
    """Of its description: ``.vmx``, ``.xml``, ``.ovf``; of a physical machine, which has none, ``""``."""
    text: bytes
    """The description."""
    parsed: Parsed
    state: SourceState
    disks: tuple[RemoteDisk, ...] = ()
    """Those of ``parsed.machine.disks``, in that order; empty where the place knows no more of them than the description."""


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Where at the target, in the user's words. None: the only one there is, or the target's default."""

    storage: str | None = None
    """Datastore or storage pool, by name or path."""
    pool: str | None = None
    """Resource pool."""
    folder: str | None = None
    host: str | None = None
    networks: tuple[str, ...] = ()
    """Names of the target's networks that the machine's cards shall have."""


ANYWHERE = Placing()


@dataclass(frozen=True, kw_only=True)
class NewDisk:
    """How a disk shall be at a far target."""

    name: str
    """Of its file: ``web01-0.qcow2``, unique at the target."""
    format: str
    allocation: Allocation = Allocation.THIN
    state: dict[str, object] = field(default_factory=dict)
    """What tells the bytes that are sent from any others: a stopped transfer goes on only with the same."""
