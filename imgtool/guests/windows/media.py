"""Where the drivers for Windows come from: a folder of this host, or an ISO image, as virtio-win is given out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from imgtool.errors import UsageError
from imgtool.guests.windows import iso

MAX_FILE = 64 << 20
"""Bytes of one file that is copied."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """``name``: with slashes, below the folder or the image's root; ``path`` on this host, with ``size`` bytes from ``start``."""

    name: str
    path: str
    start: int
    size: int

    def read(self) -> bytes:
        """Raises UsageError if it is too large for a driver."""
        if self.size > MAX_FILE:
            raise UsageError(f"{self.name} is too large for a driver")
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def entries(path: str) -> tuple[Entry, ...]:
    """Every file, in a fixed order. Raises UsageError, DamagedError."""
    if os.path.isdir(path):
        return tuple(_folder(path))
    if os.path.isfile(path) and iso.is_iso(path):
        found = [Entry(name=one.name, path=path, start=one.start, size=one.size) for one in iso.files(path)]
        return tuple(sorted(found, key=lambda one: one.name))
    raise UsageError(f"{path} is neither a folder nor an ISO image", "it should be virtio-win.iso, or what is in it")


def _folder(path: str) -> Iterator[Entry]:
    for place, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            full = os.path.join(place, name)
            if os.path.isfile(full):
                yield Entry(name=os.path.relpath(full, path).replace(os.sep, "/"), path=full, start=0, size=os.path.getsize(full))
