"""The drivers that a user gives for Windows: a folder as virtio-win has it, in either of its two layouts, or a flat one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from imgtool.errors import UsageError
from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.windows.drivers import VIRTIO, VIRTIO_PACKAGES
from imgtool.guests.windows.versions import FOLDERS, driver_folders
from imgtool.model.guest import Change, GuestInfo

FOLDER = "/Windows/Drivers/VirtIO"
FOLDER_WORD = r"%SystemRoot%\Drivers\VirtIO"
WANTED = (".sys", ".inf", ".cat", ".dll", ".exe")
MAX_FILE = 64 << 20
"""Bytes of one file that is copied."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """Files for one release and architecture: name in lower case → path here."""

    files: dict[str, str]


def choose(folder: str, info: GuestInfo) -> Package:
    """The drivers for this Windows: of each kind those of the newest release that is not newer than it. Raises UsageError."""
    if not os.path.isdir(folder):
        raise UsageError(f"{folder} is no folder", "unpack virtio-win.iso into one: 7z x virtio-win.iso -oDIR")
    server = "Server" in (info.os.edition or "") or "Server" in (info.os.name or "")
    releases = driver_folders(int(info.os.build or 0), server=server)
    architecture = FOLDERS.get(info.os.arch or "", "amd64")
    best: dict[str, tuple[int, str]] = {}
    for path in _files(folder):
        parts = [part.lower() for part in os.path.relpath(path, folder).split(os.sep)]
        rank = _rank(parts, releases, architecture)
        if rank is not None and (parts[-1] not in best or rank < best[parts[-1]][0]):
            best[parts[-1]] = (rank, path)
    if not any(f"{driver.service}.sys" in best for driver in VIRTIO):
        raise UsageError(f"{folder} has no virtio storage driver for {info.os.name} ({architecture})",
                         f"looked for: {', '.join(releases)}")
    return Package(files={name: path for name, (_, path) in best.items()})


def _files(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(names)
                    if name.lower().endswith(WANTED) and os.path.isfile(os.path.join(place, name)))


def _rank(parts: list[str], releases: list[str], architecture: str) -> int | None:
    """0 is best; None: for another Windows, or nothing that is wanted."""
    if len(parts) == 1:
        return 0
    if architecture not in parts:
        return None
    ranks = [number for number, release in enumerate(releases) if release.lower() in parts]
    known = any(package in parts for package in VIRTIO_PACKAGES) or parts[-1].rsplit(".", 1)[0] in VIRTIO_PACKAGES
    return ranks[0] if ranks and known else None


def copy(tree: GuestTree, package: Package) -> Iterator[Change]:
    """Into a folder of their own, and the storage drivers to where Windows starts them from."""
    windows = tree.folded("/Windows") or "/Windows"
    folder = windows + FOLDER.removeprefix("/Windows")
    drivers = tree.folded("/Windows/System32/drivers") or f"{windows}/System32/drivers"
    boot = {f"{driver.service}.sys" for driver in VIRTIO}
    for name, local in package.files.items():
        if os.path.getsize(local) > MAX_FILE:
            raise UsageError(f"{local} is too large for a driver")
        with open(local, "rb") as file:
            data = file.read()
        for path in [f"{folder}/{name}", *([f"{drivers}/{name}"] if name in boot else [])]:
            if not tree.is_file(path) or tree.read(path, limit=MAX_FILE) != data:
                tree.write(path, data)
                yield Change(what=f"copied {name}", where=path, why="a driver for virtio")
