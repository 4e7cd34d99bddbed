"""A disk of a far libvirt host: by qemu-nbd there (``endpoints/far/nbd``). Without it libvirt sends the volume's file as a stream
(``staged``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from imgtool import files, journal
from imgtool.endpoints.far import tunnel
from imgtool.endpoints.far.nbd import FarDisk, in_use
from imgtool.endpoints.in_place import InPlace
from imgtool.endpoints.libvirt import disks, storage
from imgtool.endpoints.libvirt.connection import Host
from imgtool.endpoints.libvirt.disks import Behind, check_chain
from imgtool.errors import DamagedError, ImgtoolError, RefusedError
from imgtool.formats.disk import open_disk
from imgtool.model.endpoint import Uri
from imgtool.progress import Control, Stop


def chain(uri: Uri, behind: Behind, folders: Sequence[str], stop: Stop) -> list[tuple[str, str]]:
    """(path, format) of all images of a disk, top first. Raises RefusedError, DamagedError."""
    if behind.format == "raw":
        return [(behind.file(), "raw")]
    argv = ["qemu-img", "info", "--backing-chain", "--output=json", "-f", behind.format, "--", behind.file()]
    try:
        said = tunnel.run(uri, argv, stop=stop)
    except ImgtoolError as error:
        raise in_use(uri, str(error)) or error from None
    layers = _layers(said, f"{uri.host}: {behind.path}")
    for one in layers:
        if one.get("backing-filename") and not one.get("backing-filename-format"):
            raise RefusedError(f"{uri.host}: {one['filename']} does not say which format its backing image has",
                               "say it: qemu-img rebase -u -F FORMAT -b BACKING IMAGE (there)")
        if one.get("encrypted"):
            raise RefusedError(f"{uri.host}: {one['filename']} is encrypted", "decrypt it first")
    found = [(one["filename"], one["format"]) for one in layers]
    check_chain(behind, found, folders)
    return found


def _layers(said: str, what: str) -> list[dict[str, Any]]:
    """qemu-img's words of a chain. Raises DamagedError where they are none: another machine says them."""
    try:
        layers = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{what} cannot be understood ({error})") from error
    names = [one.get(key) for one in layers for key in ("filename", "format")] if _dicts(layers) else [None]
    if not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise DamagedError(f"{what}: what qemu-img says there names no files", "look at it there: qemu-img info --backing-chain")
    return cast("list[dict[str, Any]]", layers)


def _dicts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


@contextmanager
def opened(host: Host, behind: Behind, folders: Sequence[str], control: Control) -> Iterator[FarDisk | InPlace]:
    """Raises RefusedError, DamagedError, UnreachableError, NoSpaceError (of a staged copy)."""
    behind.file()
    if not {"qemu-nbd", "qemu-img"} <= host.tools:
        with staged(host, behind, control) as near:
            yield near
        return
    layers = chain(host.uri, behind, folders, control.stop)
    disk = FarDisk(host.uri, layers, block=behind.kind == "block", control=control)
    try:
        yield disk
    finally:
        disk.close()


@contextmanager
def staged(host: Host, behind: Behind, control: Control) -> Iterator[InPlace]:
    """The volume's file, copied here through libvirt. Begins anew after a stop."""
    from lxml import etree

    folder = journal.state_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.workspace(str(folder)) as room:
        path = os.path.join(room, "volume")
        with host.asked() as connection, open(path, "xb") as file:
            volume = disks.volume_at(connection, behind.file())
            stamp = etree.fromstring(volume.XMLDesc(0)).findtext("target/timestamps/mtime")
            storage.download(connection, volume, file, control)
        with open_disk(path, source_format=behind.format, stop=control.stop) as disk:
            yield InPlace(disk, {"files": [[behind.file(), stamp, os.path.getsize(path)]]})
