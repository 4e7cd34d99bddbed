"""What a runbook says: which machines, what shall become of them, when, and how many at once. Sizes are bytes.

A runbook in YAML has these classes as its mappings, and their fields as keys (``new_name`` is ``new-name``; where a key is a
word of Python, ``key`` says it). The reader, its messages and the JSON schema are made from the types here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from imgtool.model.image import Allocation

Bytes = NewType("Bytes", int)
"""In YAML a number of bytes, as in ``100M``."""
Count = NewType("Count", int)
"""From 1 on."""
Name = NewType("Name", str)
"""Of a runbook, a wave, a storage: letters, digits, ``.``, ``_``, ``-``."""
Pairs = tuple[tuple[str, str], ...]
"""In YAML a mapping."""
Counts = tuple[tuple[str, Count], ...]
Argv = tuple[str, ...]


def said(about: str, default: Any = None, *, key: str | None = None) -> Any:
    """A field that a runbook may leave out."""
    return field(default=default, metadata={"about": about, "key": key})


def needed(about: str, *, key: str | None = None) -> Any:
    """A field that a runbook must have."""
    return field(metadata={"about": about, "key": key})


class OnError(StrEnum):
    STOP = "stop"
    """What has not begun does not begin."""
    CONTINUE = "continue"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """Where a password comes from, when it is needed. One of the three."""

    env: str | None = said("Name of a variable in the environment of the worker.")
    file: str | None = said("A file of the worker's host; its first line.")
    command: Argv | None = said("A command of the worker's host; the first line that it prints.")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A place that machines come from or go to."""

    uri: str = needed("esx://, vpx://, qemu:///system, qemu+ssh://, metal+ssh://, or a path.")
    password: Secret | None = said("Where the password comes from.")
    thumbprint: str | None = said("Of the certificate that the other side must show.")


@dataclass(frozen=True, kw_only=True)
class Window:
    """When machines may begin. One that has begun is finished."""

    not_before: datetime | None = said("A time with its zone, as in 2026-11-21T22:00:00+01:00.")
    until: datetime | None = said("A time with its zone. What has not begun by then fails, and can be retried.")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much at once, over all workers unless said."""

    per_source_host: Count = said("Machines that are read from one host.", Count(2))
    per_target_host: Count | None = said("Machines that are written to one host.")
    per_worker: Count = said("Steps that one worker does.", Count(2))
    source_hosts: Counts = said("Hosts that may give more, or fewer: host → machines.", ())
    target_hosts: Counts = said("Hosts that may take more, or fewer: host → machines.", ())
    bytes_per_second: Bytes | None = said("All copies of one worker together.")


@dataclass(frozen=True, kw_only=True)
class MigrateStep:
    """The whole way, as the machine's settings say."""


@dataclass(frozen=True, kw_only=True)
class P2vStep:
    """A physical machine becomes a virtual one, as the machine's settings say."""

    live: bool = said("Disks in use: passes over what changes, the last one frozen.", False)
    frozen: bool = said("Disks in use: one pass, with the file systems frozen.", False)
    lvm: bool = said("Disks in use: logical volumes from snapshots, which are made and removed there.", False)
    freeze_seconds: Count = said("File systems that were frozen thaw by themselves after so long.", Count(60))
    whole: bool = said("Every byte, not only what file systems use.", False)
    rescue: str | None = said("Go on at bad sectors; this folder gets a map of them.")


@dataclass(frozen=True, kw_only=True)
class V2pStep:
    """Disks of a machine, or an image, are written to physical disks."""

    disks: Pairs = needed("Disk of the machine → /dev/disk/by-id/….")
    image: str | None = said("Path of an image, or of a description, in place of the machine at its source.")
    confirm: tuple[str, ...] = said("Serials of the physical disks, as a person would type them.", ())
    grow: bool = said("The last partition is extended to the end of the disk.", False)
    wipe: bool = said("All of the disk is zeroed where nothing is written.", False)
    boot_entry: bool = said("The firmware (UEFI) of the machine that has the disks starts it first.", False)


@dataclass(frozen=True, kw_only=True)
class ConvertStep:
    """A disk image, or all disks of a machine's description."""

    source: str = needed("The image, or a .vmx, .xml, .ovf, .ova.")
    destination: str = needed("The new image; of a machine a new folder, or an .ova.")
    to: str = needed("qcow2, vmdk, raw, vhdx, vpc or vdi.")
    subformat: str | None = said("Of vmdk, vhdx, vpc, vdi.")
    allocation: Allocation | None = said("thin, thick or eager.")
    compress: bool = said("Compress (qcow2, streamOptimized vmdk).", False)
    verify: bool = said("Compare the result with the source.", True)
    only_used: bool = said("What the guest's file systems do not use becomes zeros.", False)
    force: bool = said("Replace the destination.", False)


@dataclass(frozen=True, kw_only=True)
class VerifyStep:
    """Two images have the same bytes for a guest."""

    left: str = needed("An image.")
    right: str = needed("Another.")


@dataclass(frozen=True, kw_only=True)
class TranslateStep:
    """A machine's description for the other side."""

    source: str = needed("A .vmx, .xml, .ovf or .ova.")
    destination: str = needed("A .vmx, .xml or .ovf.")
    force: bool = said("Replace the destination.", False)


class AdaptFor(StrEnum):
    KVM = "kvm"
    ESXI = "esxi"
    METAL = "metal"


@dataclass(frozen=True, kw_only=True)
class AdaptStep:
    """The guest boots and has its network on other hardware. In place."""

    images: tuple[str, ...] = needed("All disks of one machine, or its description.")
    platform: AdaptFor = needed("kvm, esxi or metal.", key="for")


Step = MigrateStep | P2vStep | V2pStep | ConvertStep | VerifyStep | TranslateStep | AdaptStep
STEPS: dict[str, type[Step]] = {
    "migrate": MigrateStep, "p2v": P2vStep, "v2p": V2pStep, "convert": ConvertStep, "verify": VerifyStep,
    "translate": TranslateStep, "adapt": AdaptStep,
}
"""In YAML a word (``migrate``), or a mapping of one word to its settings. Texts may have ``{name}`` in them."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for a machine. A machine's own come before those of its wave, and those before the defaults."""

    source: str | None = said("Name of an endpoint, or a URI.", key="from")
    target: str | None = said("Name of an endpoint, or a URI.", key="to")
    new_name: str | None = said("Of the machine at the target; {name} is its name at the source.")
    storage: str | None = said("Datastore or storage pool at the target.")
    pool: str | None = said("Resource pool at the target.")
    target_folder: str | None = said("Folder of machines at the target.")
    host: str | None = said("Host of a vCenter at the target.")
    networks: Pairs | None = said("A network there → here: VM Network: br0.")
    storage_map: Pairs | None = said("A folder or datastore there → here.")
    disk_roots: tuple[str, ...] | None = said("Disks that a description names may lie here too.")
    format: str | None = said("Of the disks at the target.")
    allocation: Allocation | None = said("thin, thick or eager.")
    clone: bool | None = said("Share blocks with the source where that can be.")
    adapt: bool | None = said("Change the guest for its new hardware.")
    key_files: tuple[str, ...] | None = said("Files with the passphrases of encrypted volumes.")
    virtio_win: str | None = said("Windows: the drivers, as virtio-win.iso has them, unpacked.")
    rebuild_initramfs: bool | None = said("Run the guest's own tool.")
    packages: str | None = said("Folder with packages that the guest installs when it first boots.")
    new_identity: bool | None = said("New uuid, generation id and MAC addresses.")
    hardware_version: int | None = said("Of VMware.")
    verify: bool | None = said("Compare what arrived with what was sent.")
    start: bool | None = said("Start the machine at the end, and look at it.")
    shutdown_source: bool | None = said("Shut the machine down at the source first, by its guest.")
    ignore_lock: bool | None = said("Go on although a lock says that the machine runs.")
    staging: str | None = said("Where copies lie that are on their way.")
    steps: tuple[Step, ...] | None = said("What is done, in this order. Default: migrate.")
    before: Argv | None = said("A command before the steps; it gets the machine as JSON on its standard input.")
    after: Argv | None = said("A command after the steps, if all went well; the same.")
    sees: Name | None = said("Only workers that see this do the steps (imgtool worker --sees).")
    window: Window | None = said("When it may begin.")
    attempts: Count | None = said("How often a step is tried where another try may help. Default: 3.")
    on_error: OnError | None = said("What becomes of the others where one fails: stop or continue (default).")


@dataclass(frozen=True, kw_only=True)
class Machine(Settings):
    """One machine, or several that are found. One of name, glob, folder, tag and csv."""

    name: str | None = said("Of the machine at its source.")
    glob: str | None = said("All machines of the source with such a name: web-*.")
    folder: str | None = said("All machines in this folder of the source, and below.")
    tag: str | None = said("All machines of a vCenter with this custom attribute: its value, or NAME=VALUE. "
                           "Other sources have none.")
    csv: str | None = said("A file beside the runbook: a row a machine; columns are name and other keys with texts.")
    line: int = field(default=0, metadata={"hidden": True})
    """Where it stands in the runbook."""


@dataclass(frozen=True, kw_only=True)
class Wave(Settings):
    """Machines that go together. A wave begins when the one before has ended."""

    name: Name = needed("Of the wave.")
    machines: tuple[Machine, ...] = needed("Names, or mappings.")


@dataclass(frozen=True, kw_only=True)
class Runbook:
    """A batch."""

    name: Name = needed("Of the batch: the same name is the same batch, and goes on.")
    endpoints: tuple[tuple[str, Endpoint], ...] = said("Places by name.", ())
    defaults: Settings = said("What holds for all machines.", Settings())
    limits: Limits = said("How much at once.", Limits())
    waves: tuple[Wave, ...] = said("Machines in waves, one after the other.", ())
    machines: tuple[Machine, ...] = said("Machines without waves: names, or mappings.", ())
    notify: Argv | None = said("A command that is run at the end; it gets the summary as JSON on its standard input.")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A machine of a batch."""

    batch: str
    wave: str
    name: str
    settings: Settings
    source: Endpoint | None
    target: Endpoint | None
    source_host: str
    """What ``per-source-host`` counts by."""
    target_host: str
    base: str = "/"
    """The folder of the runbook: names of files are relative to it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a machine ended."""

    name: str
    wave: str
    state: str
    """waiting, running, done, failed, cancelled."""
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None
    exit_code: int = 0
    steps: tuple[str, ...] = ()
    """Those that are done."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What ``imgtool run --json`` says."""

    batch: str
    machines: tuple[Outcome, ...]
    done: int
    failed: int
    seconds: float
    report: str | None = None
    """Path of the page about it."""
