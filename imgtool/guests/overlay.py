"""Throw-away overlays over the disks of a machine, and how they become part of the images: whole, or not at all.

::

    .imgtool-XXXX/redo/0.qcow2, 1.qcow2, redo.json     written and flushed while the images stay as they are
              │ rename                                  ◀── the commit
    IMAGE.imgtool-adapt/                                what is in it is written into the images (``qemu-img commit``)
              │                                         killed here: ``finish`` writes it once more, the same bytes
    removed

The images are only read until the rename. Before it a killed run changes nothing, after it the next run finishes.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from imgtool import qemu
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError
from imgtool.files import clean, host_id, sync, workspace
from imgtool.formats.disk import Disk, open_given, qemu_reads
from imgtool.formats.locks import hold, place_of, redo_path, refuse_if_used, release_extents
from imgtool.model import SourceOptions
from imgtool.progress import Stop
from imgtool.storage import free_space

RECORD = "redo.json"
WRITABLE = ("raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi")
NOT_WRITABLE = ("streamOptimized", "seSparse")
MARGIN = 64 << 20
"""Bytes of free space beyond what is written: tables that grow."""


@contextmanager
def opened(paths: Sequence[str], reading: SourceOptions, *, writing: bool, stop: Stop,
           finishing: bool = False) -> Iterator[list[Disk]]:
    """All disks of a machine, checked: nobody uses them, and they can be written where that is wanted. Raises RefusedError."""
    with ExitStack() as stack:
        disks = [stack.enter_context(open_given(path, reading, stop)) for path in paths]
        for disk in disks:
            disk.refuse_encrypted()
            hold(disk, writing=writing)  # first, so that of two of us at the same moment none goes on
            if not reading.ignore_lock:
                refuse_if_used(disk, writing=writing, finishing=finishing)
            if writing:
                _refuse_unwritable(disk)
        yield disks


def _refuse_unwritable(disk: Disk) -> None:
    kind = disk.top.subformat or disk.top.format
    if disk.top.format not in WRITABLE or kind in NOT_WRITABLE or not qemu_reads(disk.top):
        raise RefusedError(f"{disk.path}: an image of the kind {kind} cannot be changed in place", "imgtool convert it first")
    for file in disk.top.files:
        if not os.access(file.path, os.W_OK):
            raise RefusedError(f"{file.path} may not be written")


@contextmanager
def overlays(disks: Sequence[Disk], folder: str, *, stop: Stop, sizes: Sequence[int] | None = None) -> Iterator[list[str]]:
    """Empty qcow2 images in ``folder``, one over each disk; what is below is served read-only, for as long as the block lasts.

    ``sizes``: theirs, where they shall be larger than the disks.
    """
    with ExitStack() as stack:
        made = []
        for number, disk in enumerate(disks):
            socket = stack.enter_context(qemu.nbd_server(disk.graph(locking=False), stop=stop))
            path = os.path.join(folder, f"{number}.qcow2")
            size = sizes[number] if sizes else disk.virtual_size
            qemu.create_overlay(path, f"nbd+unix:///?socket={socket}", size, stop=stop)
            made.append(path)
        yield made


@contextmanager
def redo_folder(paths: Sequence[str]) -> Iterator[str]:
    """A folder for overlays that may be committed, on the storage of the first image; gone at the end if they were not."""
    with workspace(place_of(paths[0])) as work:
        folder = os.path.join(work, "redo")
        os.mkdir(folder)
        yield folder


def commit(folder: str, disks: Sequence[Disk], reading: SourceOptions, *, stop: Stop) -> None:
    """Makes what the overlays of ``folder`` say part of the images, which are still open, and held.

    Raises RefusedError, NoSpaceError: then nothing is changed. Any other failure leaves a folder with which ``finish`` goes on.
    """
    names = [f"{number}.qcow2" for number in range(len(disks))]
    for disk, name in zip(disks, names, strict=True):
        need = os.path.getsize(os.path.join(folder, name)) + MARGIN
        if os.path.isfile(disk.path) and free_space(place_of(disk.path)) < need:
            raise NoSpaceError(f"{place_of(disk.path)} has less than {need >> 20} MiB free; {disk.path} may need it")
    record = os.path.join(folder, RECORD)
    with open(record, "x", encoding="utf-8") as file:
        json.dump({"host": host_id(), "format": reading.format, "external": reading.allow_external,
                   "images": [os.path.abspath(disk.path) for disk in disks]}, file)
    for name in (*names, RECORD):
        sync(os.path.join(folder, name))
    sync(folder)
    final = redo_path(disks[0].path)
    try:
        os.rename(folder, final)
    except OSError as error:
        raise RefusedError(f"{final} exists: another imgtool adapt is working on this image",
                           "if none is running, remove that folder") from error
    sync(os.path.dirname(final))
    _write(final, disks, stop)


def finish(path: str, *, stop: Stop) -> bool:
    """Writes what a killed ``commit`` left beside the first image into the images; False where there is nothing left.

    Raises RefusedError if it is another host's, or not ours; ImgtoolError if an image cannot be written: then the folder stays.
    """
    folder = redo_path(path)
    if not os.path.isdir(folder):
        return False
    images, reading = _record(folder)
    with opened(images, reading, writing=True, stop=stop, finishing=True) as disks:
        _write(folder, disks, stop)
    clean(os.path.dirname(folder))
    return True


def _write(folder: str, disks: Sequence[Disk], stop: Stop) -> None:
    """Without QEMU's own locks, since we hold them for it: no machine can be started on the images in between."""
    for number, disk in enumerate(disks):
        graph = {"driver": "qcow2", "file": {"driver": "file", "filename": os.path.join(folder, f"{number}.qcow2")},
                 "backing": disk.graph(locking=False)}
        release_extents(disk)
        try:
            qemu.commit(graph, stop=stop)
        except ImgtoolError as error:
            error.message = f"{disk.path} is half changed: {error.message}; the rest is in {folder}"
            error.hint = "remove the cause; then the same command again finishes it"
            raise
        sync(disk.path)
    shutil.rmtree(folder)
    sync(os.path.dirname(folder))


def _record(folder: str) -> tuple[list[str], SourceOptions]:
    """What was to be written. A folder that came with a stranger's image, or from another host, is not believed."""
    status = os.lstat(folder)
    try:
        fd = os.open(os.path.join(folder, RECORD), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:
            found = json.load(file)
        ours = found["host"] == host_id() and status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode)
        images, reading = list(found["images"]), SourceOptions(format=found["format"], allow_external=bool(found["external"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise RefusedError(f"{folder} was not made by imgtool on this host", "if nothing in it is needed, remove it")
    return images, reading
