"""Names of files: where a disk or an ISO of the other world stands in this one."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from imgtool.model.devices import Backing, DiskSlot, Drive
from imgtool.model.machine import Machine
from imgtool.model.translation import Wishes, World
from imgtool.retarget.log import Log

DATASTORE = re.compile(r"(?:\[([^\]]+)\] ?|/vmfs/volumes/([^/]+)/)(.*)", re.DOTALL)
"""``[datastore1] folder/x.vmdk``, or the same as ESXi's shell names it."""
CONVERT = "imgtool convert MACHINE DIR converts its disks too"


def parts(path: str) -> tuple[str, str]:
    """``[ds] a/x.vmdk``, ``/vmfs/volumes/ds/a/x.vmdk`` → (``[ds]``, ``a/x.vmdk``); ``/srv/x`` → (``/srv``, ``x``)."""
    if match := DATASTORE.fullmatch(path):
        return f"[{match[1] or match[2]}]", match[3]
    return os.path.split(path)


def map_path(path: str, storage: tuple[tuple[str, str], ...]) -> str | None:
    """A path with its folder exchanged; None if no rule fits, or if it would lead out of the new folder.

    A datastore is written as ESXi's shell and a ``.vmx`` name it.
    """
    for old, new in storage:
        rest = (_below(path, old) or "").lstrip("/")
        if rest and ".." not in rest.split("/"):
            match = re.fullmatch(r"\[([^\]]+)\][ /]?(.*)", new)
            folder = os.path.join("/vmfs/volumes", match[1], match[2]) if match else new
            return os.path.join(folder, rest)
    return None


def _below(path: str, folder: str) -> str | None:
    """The part of a path below a folder or ``[datastore]``."""
    store, rest = parts(path)
    if match := re.fullmatch(r"(?:\[([^\]]+)\]|/vmfs/volumes/([^/]+))[ /]?(.*)", folder):
        inner = match[3].rstrip("/") + "/" if match[3] else ""
        fits = store == f"[{match[1] or match[2]}]" and rest.startswith(inner)
        return rest.removeprefix(inner) if fits else None
    folder = folder.rstrip("/") + "/"
    return path.removeprefix(folder) if path.startswith(folder) else None


def mapped(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """For a machine that stays in its world: only what the user maps, and files that were placed."""
    files = Files(wishes, log)
    disks = tuple(files.staying(disk, f"disks[{index}]") for index, disk in enumerate(machine.disks))
    drives = tuple(replace(drive, path=drive.path and (files.known(drive.path, f"drives[{index}].path") or drive.path))
                   for index, drive in enumerate(machine.drives))
    return replace(machine, disks=disks, drives=drives)


class Files:
    """Names of one machine's files in the new description; no two disks get one name."""

    def __init__(self, wishes: Wishes, log: Log) -> None:
        self._wishes, self._log = wishes, log
        self._placed = {file.named: file for file in wishes.files}
        self._taken: dict[str, str] = {}
        """By its new name: what a file was called."""

    def known(self, path: str, at: str) -> str | None:
        """Where the file is, if somebody said or saw it."""
        new = map_path(path, self._wishes.storage)
        if new is not None:
            return self._log.change(at, path, self._short(new), "--map-storage")
        if placed := self._placed.get(path):
            return self._log.change(at, path, self._short(placed.path), "where it stands")
        return None

    def staying(self, disk: DiskSlot, at: str) -> DiskSlot:
        """A disk that is not converted. A ``.vmx`` and an ESXi's shell do not know ``[datastore] x.vmdk``."""
        store = DATASTORE.fullmatch(disk.path) if self._wishes.to is World.ESXI else None
        path = self.known(disk.path, f"{at}.path") or (f"/vmfs/volumes/{store[1] or store[2]}/{store[3]}" if store else disk.path)
        placed = self._placed.get(disk.path)
        if self._taken.get(path) != disk.path:  # one file twice is what the source says
            self._take(path, disk, at)
        return replace(disk, path=path, format=(placed and placed.format) or disk.format)

    def _take(self, path: str, disk: DiskSlot, at: str) -> None:
        """Two disks in one file would destroy each other."""
        if path and path in self._taken:
            self._log.problem(f"{at}.path = {disk.path}: {path} is the file of another disk, {self._taken[path]}",
                              "give each disk a file of its own: see --map-storage", fatal=True)
        self._taken[path] = disk.path

    def _short(self, path: str) -> str:
        """ESXi names a file beside the ``.vmx`` without its folder."""
        home = self._wishes.home
        inside = self._wishes.to is World.ESXI and home and path.startswith(home.rstrip("/") + "/")
        return os.path.relpath(path, home) if inside else path

    def disk(self, disk: DiskSlot, at: str) -> DiskSlot:
        """The disk with its new name and format."""
        placed = self._placed.get(disk.path)
        form = (placed and placed.format) or disk.format or _by_name(disk.path)
        backing = Backing.FILE if placed else disk.backing
        path = self.known(disk.path, f"{at}.path")
        if self._wishes.to is World.ESXI:
            path, form = self._for_esxi(disk, path, form, at)
            backing = Backing.FILE
        elif path is None:
            path = disk.path
            if backing is Backing.FILE:
                path = self._log.change(f"{at}.path", path, self._absolute(path), "libvirt wants whole paths")
                self._log.problem(f"{at}.path = {disk.path}: not found from here", "--disk-root DIR, or --map-storage OLD=NEW")
        self._take(path, disk, at)
        form = self._log.change(f"{at}.format", disk.format, form, "libvirt must be told, or takes it for raw")
        backing = self._log.change(f"{at}.backing", disk.backing, backing, "what is there now")
        return replace(disk, path=path, backing=backing, format=form)

    def _absolute(self, path: str) -> str:
        store = DATASTORE.fullmatch(path)
        shell = f"/vmfs/volumes/{store[1] or store[2]}/{store[3]}" if store else path
        return os.path.normpath(os.path.join(self._wishes.origin, shell))

    def _for_esxi(self, disk: DiskSlot, path: str | None, form: str | None, at: str) -> tuple[str, str]:
        """ESXi opens VMDKs only: another image is named as its conversion will be."""
        if path is None or form != "vmdk":
            stem = os.path.splitext(parts(path or disk.path)[1].rpartition("/")[2])[0] or "disk"
            folder = os.path.dirname(path) if path and path.startswith("/vmfs/") else ""
            path = self._log.change(f"{at}.path", path or disk.path, os.path.join(folder, f"{stem}.vmdk"), "beside the .vmx")
            if form != "vmdk":
                self._log.problem(f"{at}.path = {disk.path}: ESXi opens VMDKs only, not {form or 'this'}: "
                                  f"it must be converted to {path}",
                                  CONVERT)
            path = self._unique(path)
        return path, "vmdk"

    def _unique(self, path: str) -> str:
        stem, suffix = os.path.splitext(path)
        number = 1
        while path in self._taken:
            path = f"{stem}_{number}{suffix}"
            number += 1
        return path

    def drive(self, drive: Drive, at: str) -> Drive:
        """The drive with the image it had, if that is there; else empty."""
        empty = replace(drive, backing=Backing.EMPTY, path=None, passthrough=None)
        if drive.backing is Backing.FILE and drive.path:
            path = self.known(drive.path, f"{at}.path")
            if path is not None:
                return replace(drive, path=path)
            self._log.lost(f"{at}.path", drive.path, "not there: the drive is empty", "--map-storage OLD=NEW, or put it in again")
        elif drive.backing is not Backing.EMPTY:
            self._log.change(f"{at}.passthrough", drive.passthrough, None, "a drive of the other host")
            what = drive.path or drive.backing.value
            if drive.connected is False or (drive.floppy and not drive.path):
                self._log.change(f"{at}.backing", what, None, "a drive of the other host, not connected")
            else:
                self._log.lost(f"{at}.backing", what, "a drive of the other host: this one is empty", "use an ISO image")
        return empty


def _by_name(path: str) -> str | None:
    """The format that a name speaks of."""
    return {".vmdk": "vmdk", ".qcow2": "qcow2", ".raw": "raw"}.get(os.path.splitext(path)[1].lower())
