"""A far libvirt host that machines go to."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from imgtool import files, journal
from imgtool.endpoints import far
from imgtool.endpoints.far import tunnel
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.libvirt import compare, define, inventory, send, upload
from imgtool.endpoints.libvirt.connection import Host
from imgtool.endpoints.libvirt.target import MODE, LibvirtTarget
from imgtool.errors import DifferError, ImgtoolError, MissingToolError, UsageError
from imgtool.model.endpoint import NewDisk, Placing
from imgtool.progress import Control

if TYPE_CHECKING:
    import libvirt

    from imgtool.endpoints.libvirt.inventory import Pool
    from imgtool.formats.disk import Disk
    from imgtool.model.machine import Machine
    from imgtool.model.situation import TargetState

CHECK_SECONDS = 3600.0


class FarTarget(LibvirtTarget):
    """A ``FarTarget``: files are written by a Python program there; without Python, libvirt takes them as streams."""

    sets_uuid = False

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._far_folder, self._far_free = "", -1
        self._owner: tuple[int, int] | None = None
        self._records: list[str] = []
        self._talk: Wire | None = None
        self._stack = ExitStack()

    def look(self, placing: Placing, control: Control) -> TargetState:
        from dataclasses import replace

        state = super().look(placing, control)
        staging = journal.state_folder()
        staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        skew = float(self._wire().call("hello")[0]["time"]) - time.time() if self._resumes else 0.0
        return replace(state, can_resume=self._resumes, clock_skew=skew, staging_free=shutil.disk_usage(staging).free)

    def place_of(self, disk: NewDisk) -> str:
        """Where a disk will lie, there. ``send`` puts it into the description, too."""
        _check_name(disk.name)
        if not self._far_folder:
            raise UsageError(f"no place was chosen on {self._host.name} yet", "--storage NAME")
        return f"{self._far_folder}/{disk.name}"

    @property
    def _resumes(self) -> bool:
        return "python3" in self._host.tools

    def _settle(self, connection: libvirt.virConnect, known: tuple[Pool, ...], placing: Placing) -> None:
        self._owner = inventory.owner(connection)
        wanted = placing.storage
        named = bool(wanted) and any(wanted in (pool.name, pool.path) for pool in known)
        if wanted and wanted.startswith("/") and not named and self._resumes:
            self._pool, self._far_folder = None, os.path.normpath(wanted)
            self._far_free = self._room(self._far_folder)
            return
        pool = inventory.choose(known, wanted, self._host.name)
        connection.storagePoolLookupByName(pool.name).refresh(0)
        self._pool, self._far_folder = pool.name, pool.path or ""
        self._far_free = int(connection.storagePoolLookupByName(pool.name).info()[3])

    def _room(self, folder: str) -> int:
        answer, _ = self._wire().call("stat", path=f"{folder}/.")
        if not answer["found"]:
            raise UsageError(f"{folder} is no folder of {self._host.name}", "--storage NAME of a pool, or a folder that is there")
        return int(answer["free"])

    def _place(self) -> str:
        return self._far_folder

    def _free(self) -> int:
        return self._far_free

    def _wire(self) -> Wire:
        """A live one: a login takes a second, and hosts do not like many."""
        if self._talk is None or self._talk.gone:
            self._stack.close()
            self._talk = self._stack.enter_context(far.connected(self._host.uri, self._host.stop))
        return self._talk

    def close(self) -> None:
        self._stack.close()
        super().close()

    def send(self, name: str, made: Machine, text: bytes, disks: Sequence[tuple[NewDisk, Disk]], state: str,
             control: Control) -> str:
        """Raises RefusedError (names that are taken, another's partial copy), NoSpaceError, UnreachableError."""
        places = [(new.name, self.place_of(new), new.format) for new, _ in disks]
        text = define.with_disks(define.with_name(text, name), places)
        with self._host.asked() as connection:
            define.refuse_taken(connection, text)
        os.makedirs(state, mode=0o700, exist_ok=True)
        uploaded: list[str] = []
        try:
            for (new, disk), (_, path, _) in zip(disks, places, strict=True):
                if self._resumes:
                    send.disk(self._wire, send.Job(new=new, path=path, state=state, mode=MODE, owner=self._owner), disk, control)
                else:
                    upload.disk(self._host, self._pooled(), new, disk, control)
                    uploaded.append(path)
            identity = self._define(text, [path for _, path, _ in places])
        except BaseException:  # a volume cannot be gone on with, and would be in the next run's way
            with suppress(ImgtoolError):
                upload.remove(self._host, uploaded)
            raise
        self._records = [send.record_path(state, new) for new, _ in disks]
        return identity

    def _pooled(self) -> str:
        if self._pool is None:
            raise MissingToolError(f"{self._host.name} has no python3: disks can only go into a storage pool", "--storage POOL")
        return self._pool

    def compare(self, machine: str, disks: Sequence[tuple[NewDisk, Disk]], control: Control) -> None:
        """By hashes of what lies there; without Python there, what libvirt sends back is compared. Raises DifferError."""
        if not self._resumes:
            for new, disk in disks:
                upload.compare(self._host, self._pooled(), new, disk, control)
            return
        for new, disk in disks:
            compare.compare(self._wire(), self.place_of(new), new.format, disk, control)
        for new, _ in disks:
            if new.format == "qcow2" and "qemu-img" in self._host.tools:
                self._check(self.place_of(new), control)

    def _check(self, path: str, control: Control) -> None:
        argv = ["qemu-img", "check", "-q", "-f", "qcow2", "--", path]
        try:
            tunnel.run(self._host.uri, argv, stop=control.stop, seconds=CHECK_SECONDS)
        except ImgtoolError as error:
            if type(error) is not ImgtoolError:
                raise
            raise DifferError(f"qemu-img check there: {error}", "the storage may be failing: keep the source") from error

    def rename(self, machine: str, name: str) -> None:
        super().rename(machine, name)
        self._forget()

    def _forget(self) -> None:
        """The disks belong to the machine now, or are gone."""
        for path in self._records:
            _gone(path)
        self._records = []

    def discard(self, disks: Sequence[NewDisk], state: str) -> None:
        """What a stopped ``send`` left: partial copies, block maps, disks that no machine has yet, a half-made machine."""
        if self._resumes:
            ours = {self.place_of(new) for new in disks
                    if send.is_ours(self._wire(), self.place_of(new), send.record_path(state, new))}
            _, used = self._without_half_made(ours)
            for new in disks:
                path = self.place_of(new)
                send.discard(self._wire(), path, whole=path in ours - used)
        for new in disks:
            for path in (send.map_path(state, new), send.record_path(state, new)):
                _gone(path)
        self._refresh()

    def _unlink(self, paths: Sequence[str]) -> None:
        if self._resumes:
            for path in paths:
                self._wire().call("remove", path=path)
        else:
            upload.remove(self._host, paths)
        self._forget()


def _gone(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
    if Path(path).parent.is_dir():
        files.sync(os.path.dirname(path))


def _check_name(name: str) -> None:
    if not name or "/" in name or "\0" in name or name in (".", "..") or not name.isprintable():
        raise UsageError(f"{name!r} is no name of a file", "choose another name for the machine")


