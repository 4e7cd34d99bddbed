"""Physical machines: their disks, here or at the far end of an ssh connection. ``Metal`` is the endpoint.

==============  ==============================================================
``disks``       which there are, what is on them, who uses them
``hardware``    what else the machine is made of
``signatures``  what stands at the beginning and the end of a disk
``reader``      a disk as something to read from
``chunks``      chunks of a copy: fetched, compared
``free``        what need not be read
``live``        a disk in use
``lvm``         a disk in use: its volumes from snapshots; ``composed`` puts them in their places
``rescue``      bad sectors
``packing``     whether the way is worth packing for
``nbd``         a far disk for QEMU and the appliance
``served``      a machine without python3: qemu-nbd
``plain``       a machine without either: dd
==============  ==============================================================
"""

from __future__ import annotations

import glob
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from imgtool.endpoints import far
from imgtool.endpoints.far import tunnel
from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import FarError, Wire
from imgtool.endpoints.metal import disks, free, hardware, lvm, plain, served
from imgtool.endpoints.metal.packing import Packing, best_codec
from imgtool.endpoints.metal.plain import PlainReader
from imgtool.endpoints.metal.reader import MetalReader
from imgtool.endpoints.metal.served import Readable, ServedFile
from imgtool.errors import RefusedError, UnreachableError, UsageError
from imgtool.model.description import Parsed
from imgtool.model.endpoint import Credentials, Found, Power, Seen, Uri
from imgtool.model.metal import PhysicalDisk, Reading
from imgtool.model.problem import Problem
from imgtool.model.situation import SourceDisk, SourceState
from imgtool.progress import Control, Stop


def source(uri: Uri, credentials: Credentials, stop: Stop) -> Metal:
    """Connects. ssh proves who we are, by its own means: keys, the agent. Raises UsageError, UnreachableError."""
    if credentials.password_file:
        raise UsageError("ssh takes no password from a file", "use a key and the agent: ssh-copy-id, ssh-add")
    return Metal(uri, stop)


class Metal:
    """A physical machine. Conforms to ``endpoints.Source``."""

    def __init__(self, uri: Uri, stop: Stop) -> None:
        self.reading = Reading()
        """How its disks are read; to be set before ``look``."""
        self._uri, self._stop = uri, stop
        self._paths = ["/" + path.lstrip("/") for path in uri.path.split(",") if path.strip("/")]
        self._maps: dict[str, free.Map] = {}
        """Of disks at rest, by path."""
        self._snapshots: lvm.Snapshots | None = None
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._wire = self._connected()
        self._serves = self._wire is None and "qemu-nbd" in tunnel.look(uri, (), stop=stop).tools
        said = self._wire.call("hello")[0]["host"] if self._wire else \
            self._files((hardware.HOSTNAME,)).get(hardware.HOSTNAME, "")
        self.host = printable(str(said)).split(".")[0] or "metal"
        self._packing = Packing(best_codec(self._wire) if uri.host and self._wire else None)

    def _connected(self) -> Wire | None:
        """None: there is no python3."""
        try:
            return self._stack.enter_context(far.connected(self._uri, self._stop))
        except UnreachableError as error:
            if far.NO_PYTHON not in error.message or not self._uri.host:
                raise
            return None

    def machines(self) -> list[Found]:
        return [Found(name=self.host, id=self.host, power=Power.RUNNING)]

    def find(self, name: str) -> Found:
        (found,) = self.machines()
        if name not in (found.name, self._uri.host):
            raise UsageError(f"{name} is not there", f"this is the machine {found.name}")
        return found

    def look(self, found: Found, control: Control) -> Seen:
        files = self._files((*disks.PATTERNS, *hardware.PATTERNS))
        chosen = tuple(map(self._claimed, self._chosen(files)))
        machine, problems = hardware.machine(files, chosen, found.name)
        seen = tuple(SourceDisk(name=disk.ids[0] if disk.ids else disk.path, capacity=disk.size, kind="block",
                                data=self._used(chosen, disk, control)) for disk in chosen)
        problems = (*problems, *(self._in_use(disk) for disk in chosen if disk.busy), *self._without())
        goes_on = self._in_parts and not self.reading.lvm
        return Seen(found=found, suffix="", text=b"", state=SourceState(disks=seen, can_resume=goes_on),
                    parsed=Parsed(machine=machine, problems=problems))

    @property
    def _in_parts(self) -> bool:
        """Whether more than whole disks can be read."""
        return self._wire is not None or self._serves

    def _without(self) -> Iterator[Problem]:
        if self._wire is None:
            yield served.PROBLEM if self._serves else plain.PROBLEM

    def _opened(self, disk: PhysicalDisk, control: Control) -> Readable:
        if self._snapshots:
            return self._snapshots.opened(disk)
        return FarFile(self._wire, disk.path) if self._wire else ServedFile(self._uri, disk, control)

    def _in_use(self, disk: PhysicalDisk) -> Problem:
        why = f"{disk.path} is in use: {'; '.join(disk.busy)}"
        if self.reading.lvm and self._wire:
            return Problem(what=why, hint="its volumes are read from snapshots, for which their group is changed for a while; a "
                                          "copy that is stopped begins anew; who writes elsewhere on the disk ends it")
        if disks.not_mounted(disk):
            return Problem(what=why, hint=f"deactivate what is not mounted ({disks.DEACTIVATE}), or boot that machine from a "
                                          "rescue medium", fatal=True)
        if self._lives():
            return Problem(what=why, hint="it is copied as it is while its file systems are frozen: as after a power cut")
        return Problem(what=why, hint=disks.BUSY_HINT, fatal=True)

    def _claimed(self, disk: PhysicalDisk) -> PhysicalDisk:
        """In use also where somebody has it open for himself alone, and nothing that we have read tells: a pool of ZFS, a btrfs
        of several disks."""
        paths = [f"/dev/{part.name}" for part in disk.partitions] or [disk.path]
        unknown = [path for path in paths if not any(why.startswith(f"{path} ") for why in disk.used)]
        return replace(disk, busy=(*disk.busy, *(f"{path}{disks.ACTIVE}{disks.EXCLUSIVE})" for path in unknown
                                                 if self._wire and _is_claimed(self._wire, path))))

    def physical(self, seen: Seen) -> list[PhysicalDisk]:
        """The disks of the machine, as they are now."""
        files = self._files(disks.PATTERNS)
        return [disks.named(files, slot.path) for slot in seen.parsed.machine.disks if slot.path]

    def _now(self, seen: Seen, control: Control) -> list[PhysicalDisk]:
        """Of what snapshots hold still: as if it were at rest."""
        found = self.physical(seen)
        if not self.reading.lvm or self._wire is None:
            return found
        with self._lock:
            if self._snapshots is None:
                self._snapshots = lvm.Snapshots(self._uri, self._wire, found, self._stack, control.stop)
        return [lvm.still(one) for one in found]

    @contextmanager
    def reader(self, seen: Seen, number: int, control: Control) -> Iterator[MetalReader | PlainReader]:
        """Raises RefusedError where the disk is in use, and neither live nor frozen reading was asked for."""
        every = self._now(seen, control)
        disk = self._claimed(every[number])
        if not self._lives():
            disks.refuse_busy(disk)
        if not self._in_parts:
            yield PlainReader(self._uri, disk)
            return
        file = self._opened(disk, control)
        try:
            yield MetalReader(file, disk, self.reading, packing=self._packing,
                              mapped=lambda: self._map(every, disk, control), refresh=lambda: self._now(seen, control)[number])
        finally:
            file.close()

    def _lives(self) -> bool:
        """Whether a disk in use can be read so that the copy is that of one moment."""
        return (self.reading.live or self.reading.frozen or self.reading.lvm) and self._wire is not None

    def _used(self, chosen: Sequence[PhysicalDisk], disk: PhysicalDisk, control: Control) -> int | None:
        """Bytes that will be read at most; None where all of it may be."""
        if not self._in_parts or self.reading.whole or (any(one.busy for one in chosen) and not self._lives()):
            return None
        if disk.busy and self._wire:
            with closing(FarFile(self._wire, disk.path)) as file:
                return disk.size - free.in_use(file, disk).free.bytes
        if self.reading.lvm:
            return None
        return disk.size - self._map(chosen, disk, control).free.bytes

    def _map(self, every: Sequence[PhysicalDisk], disk: PhysicalDisk, control: Control) -> free.Map:
        """Of all disks that are at rest, found together; anew where it is old and the disk has changed."""
        with ExitStack() as stack:
            known = self._maps.get(disk.path)
            file = stack.enter_context(closing(self._opened(disk, control)))
            if known and (known.young() or known.holds(file, control.stop)):
                return known
            resting = [one for one in every if not one.busy]
            opened = [stack.enter_context(closing(self._opened(one, control))) for one in resting]
            self._maps |= dict(zip((one.path for one in resting), free.at_rest(opened, control.stop), strict=True))
        return self._maps[disk.path]

    def shut_down(self, found: Found, control: Control) -> None:
        raise AssertionError  # ``look`` says of no machine that it is to be shut down

    def close(self) -> None:
        self._stack.close()

    def _files(self, patterns: tuple[str, ...]) -> dict[str, str]:
        """And the links that the address names."""
        links = [path for path in self._paths if path.count("/") > 2]
        if self._wire is None:
            return plain.files(self._uri, patterns, links, self._stop)
        found: dict[str, str] = self._wire.call("files", patterns=[*patterns, *map(glob.escape, links)])[0]["files"]
        return found

    def _chosen(self, files: Mapping[str, str]) -> tuple[PhysicalDisk, ...]:
        chosen = tuple(disks.named(files, path) for path in self._paths) or disks.fixed(files)
        if not chosen:
            raise UsageError(f"{self._uri.host or 'this machine'} has no fixed disk", "name it: metal:///dev/sdX")
        twice = {disk.path for disk in chosen if sum(disk.path == other.path for other in chosen) > 1}
        if twice:
            raise UsageError(f"{', '.join(sorted(twice))} stands twice in the address")
        return chosen


def _is_claimed(wire: Wire, path: str) -> bool:
    try:
        FarFile(wire, path, exclusive=True).close()
    except RefusedError:
        return True
    except FarError:  # no such node; what cannot be read is told when it is read
        pass
    return False


def printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable()).strip()
