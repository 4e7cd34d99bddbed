"""A libvirt host that machines go to: what this machine and a far one have in common, and this machine."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from imgtool import kvm, proc, storage
from imgtool.endpoints.libvirt import define, inventory, watch
from imgtool.endpoints.libvirt.connection import Host
from imgtool.errors import UsageError
from imgtool.model.endpoint import Placing
from imgtool.model.situation import TargetState
from imgtool.model.translation import World
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    import libvirt

    from imgtool.endpoints.libvirt.inventory import Pool

ASK = proc.Limits(seconds=10, memory=1 << 30)
MODE = 0o600
"""Of a disk: other users of the host have no business with it."""


class LibvirtTarget(ABC):
    """What both kinds of ``Target`` have in common."""

    world = World.KVM
    suffix = ".xml"
    formats: tuple[str, ...] = ("qcow2", "raw")
    temporary = define.TEMPORARY
    folder: str | None = None

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pool: str | None = None
        self._made: dict[str, tuple[str, ...]] = {}
        self.accelerator = "kvm"
        """kvm, or qemu where the host can only emulate; known once ``look`` was called."""

    def look(self, placing: Placing, control: Control) -> TargetState:
        """Raises UsageError, with what there is, where a name is wrong or missing."""
        control.stop.check()
        with self._host.asked() as connection:
            known = inventory.pools(connection)
            self._settle(connection, known, placing)
            networks = inventory.networks(connection)
            self._check_networks(placing.networks, networks)
            self.accelerator = self._accelerated(connection)
            names = [pool.name for pool in known if pool.active and pool.holds_files]
            chosen = self._pool or self._place()
            return TargetState(kind="kvm", machines=inventory.taken(connection), networks=networks, storage=chosen,
                               storages=tuple(dict.fromkeys([*names, chosen])), free=self._free(), can_write=True,
                               accelerator=self.accelerator, missing_tools=_missing(connection), tls=self._tls())

    @abstractmethod
    def _settle(self, connection: libvirt.virConnect, known: tuple[Pool, ...], placing: Placing) -> None:
        """Chooses the pool or folder. Raises UsageError."""

    @abstractmethod
    def _place(self) -> str:
        """The folder where disks go, there."""

    @abstractmethod
    def _free(self) -> int:
        """Bytes, in that folder."""

    def _accelerated(self, connection: libvirt.virConnect) -> str:
        return inventory.accelerator(connection)

    def _tls(self) -> str:
        return "unchecked" if self._host.far and not self._host.uri.verify else "checked"

    def _check_networks(self, wanted: Sequence[str], known: Sequence[str]) -> None:
        for name in wanted:
            if not {name, f"network:{name}", f"bridge:{name}"} & set(known):
                raise UsageError(f"there is no network {name!r} on {self._host.name}", f"there are: {inventory.listed([*known])}")

    def rename(self, machine: str, name: str) -> None:
        """From the temporary name to its own. Raises RefusedError."""
        with self._machine(machine) as (connection, domain):
            define.rename(connection, domain, name)

    def start(self, machine: str) -> None:
        with self._machine(machine) as (_, domain):
            define.start(domain)

    def watch(self, machine: str, control: Control) -> str:
        """What is seen of a machine that was started, in words."""
        with self._machine(machine) as (connection, domain):
            return watch.look(connection, domain, control, near=not self._host.far)

    def remove(self, machine: str) -> None:
        """A half-made machine and its disks: those that this object has put there, or those of a machine whose name is still a
        temporary one and that lie where disks go."""
        import libvirt

        disks = self._made.pop(machine, ())
        with self._host.asked() as connection:
            try:
                domain = connection.lookupByUUIDString(machine)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
            else:
                if not disks and domain.name().endswith(define.TEMPORARY):
                    disks = tuple(path for path in define.files(domain) if os.path.dirname(path) == self._place())
                define.remove(domain)
        self._unlink(disks)
        self._refresh()

    def _without_half_made(self, ours: set[str]) -> tuple[list[str], set[str]]:
        """The machines with disks of ours that were never finished, which are removed: nobody else makes such names; and the
        disks of all others."""
        removed = []
        with self._host.asked() as connection:
            for domain in inventory.domains(connection):
                name = domain.name()
                if name.endswith(define.TEMPORARY) and not domain.isActive() and ours & {*define.files(domain)}:
                    define.remove(domain)
                    removed.append(name)
            return removed, {path for domain in inventory.domains(connection) for path in define.files(domain)}

    @abstractmethod
    def _unlink(self, paths: Sequence[str]) -> None:
        """Removes disks, there."""

    def _refresh(self) -> None:
        """So that libvirt sees what has changed in the pool's folder."""
        import libvirt

        if self._pool:
            with self._host.asked() as connection, suppress(libvirt.libvirtError):
                connection.storagePoolLookupByName(self._pool).refresh(0)

    def _define(self, text: bytes, disks: Sequence[str]) -> str:
        self._refresh()
        with self._host.asked() as connection:
            identity: str = define.define(connection, text).UUIDString()
        self._made[identity] = tuple(disks)
        return identity

    @contextmanager
    def _machine(self, machine: str) -> Iterator[tuple[libvirt.virConnect, libvirt.virDomain]]:
        with self._host.asked() as connection:
            yield connection, connection.lookupByUUIDString(machine)

    def close(self) -> None:
        self._host.close()


class NearTarget(LibvirtTarget):
    """A ``HostTarget``: libvirt runs on this machine."""

    def _settle(self, connection: libvirt.virConnect, known: tuple[Pool, ...], placing: Placing) -> None:
        wanted = placing.storage
        folder = os.path.normpath(wanted) if wanted and os.path.isabs(wanted) else None
        if folder and not any(pool.path and os.path.normpath(pool.path) == folder for pool in known):
            self.folder, self._pool = folder, None
        else:
            pool = inventory.choose(known, folder or wanted, self._host.name)
            self.folder, self._pool = pool.path, pool.name
        if not os.path.isdir(self.folder or ""):
            raise UsageError(f"{self.folder} is no folder of this machine", "--storage NAME of a pool, or a folder that is there")
        owner = inventory.owner(connection)
        if owner and not may_enter(self._place(), owner):
            raise UsageError(f"QEMU runs as user {owner[0]}, who cannot enter {self.folder}: the machine could not start",
                             "--storage of another pool or folder, as /var/lib/libvirt/images")

    def _place(self) -> str:
        return self.folder or ""

    def _free(self) -> int:
        return storage.free_space(self._place())

    def _accelerated(self, connection: libvirt.virConnect) -> str:
        return "kvm" if kvm.kvm_state()[0] and inventory.accelerator(connection) == "kvm" else "qemu"

    def define(self, name: str, text: bytes, disks: Sequence[str]) -> str:
        """Its uuid. The disks become QEMU's, as far as we may give them away. Raises RefusedError, ImgtoolError."""
        with self._host.asked() as connection:
            define.refuse_taken(connection, text)
            owner = inventory.owner(connection)
        for path in disks:
            with suppress(PermissionError):  # then libvirt does it, at each start
                os.chmod(path, MODE)
                if owner and owner[0] != os.geteuid():
                    os.chown(path, *owner)
        return self._define(text, disks)

    def discard(self, _name: str, disks: Sequence[str]) -> tuple[list[str], list[str]]:
        """A stop between the last rename and its note leaves a machine that is whole: its disks stay."""
        removed, used = self._without_half_made({*disks})
        real = {os.path.realpath(path) for path in used}
        return removed, [path for path in disks if os.path.realpath(path) not in real]

    def _unlink(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                os.unlink(path)


def may_enter(folder: str, owner: tuple[int, int]) -> bool:
    """Whether that user can open files in a folder, access lists and all; True where we cannot find out."""
    if os.geteuid() != 0 or owner[0] == 0:
        return True
    argv = ["setpriv", f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups", "test", "-x", folder]
    return proc.run(argv, stop=Stop(), limits=ASK).returncode != 1


def _missing(connection: libvirt.virConnect) -> tuple[str, ...]:
    from lxml import etree

    root = etree.fromstring(connection.getCapabilities())
    if root.xpath("guest[os_type='hvm']/arch[@name='x86_64']"):
        return ()
    return ("libvirt finds no QEMU for x86_64 there: apt-get install qemu-system-x86 (there), and restart libvirtd",)
