"""Files of an ISO image (ECMA-119) by the names of its Joliet tree, read here without mounting it: it is a stranger's.

Joliet is a second tree with names in UTF-16, which every ISO for Windows has. Without it the short names of the first one are
used. All numbers are checked against the file; folders that lead back to themselves are entered once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from imgtool.errors import DamagedError

SECTOR = 2048
FIRST = 16
"""The sector of the first volume descriptor."""
PRIMARY, JOLIET, LAST = 1, 2, 255
ESCAPES = (b"%/@", b"%/C", b"%/E")
"""Of a supplementary descriptor: its names are UCS-2."""
MAX_FOLDER = 4 << 20
MAX_FILES = 100_000
FOLDER_FLAG = 2


@dataclass(frozen=True, kw_only=True)
class File:
    """``name``: with slashes, below the root. Place and size are bytes in the image."""

    name: str
    start: int
    size: int


def is_iso(path: str) -> bool:
    """By its first descriptor."""
    with open(path, "rb") as file:
        file.seek(FIRST * SECTOR + 1)
        return file.read(5) == b"CD001"


def files(path: str) -> tuple[File, ...]:
    """Every file. Raises DamagedError."""
    with open(path, "rb") as file:
        root, wide = _root(file)
        found, seen, waiting = list[File](), set[int](), [("", root)]
        while waiting:
            name, record = waiting.pop()
            start, size = int.from_bytes(record[2:6], "little") * SECTOR, int.from_bytes(record[10:14], "little")
            if start in seen or size > MAX_FOLDER:
                continue
            seen.add(start)
            for child, inner in _records(file, start, size, wide=wide):
                if inner[25] & FOLDER_FLAG:
                    waiting.append((f"{name}{child}/", inner))
                else:
                    found.append(_file(name + child, inner))
                if len(found) + len(waiting) > MAX_FILES:
                    raise DamagedError(f"{path} has more than {MAX_FILES} files")
        end = file.seek(0, os.SEEK_END)
    return tuple(one for one in found if one.start + one.size <= end)


def _file(name: str, record: bytes) -> File:
    return File(name=name, start=int.from_bytes(record[2:6], "little") * SECTOR, size=int.from_bytes(record[10:14], "little"))


def _root(file: BinaryIO) -> tuple[bytes, bool]:
    """The record of the root folder, of the tree with long names where there is one."""
    primary = None
    for sector in range(FIRST, FIRST + 64):
        file.seek(sector * SECTOR)
        data = file.read(SECTOR)
        if data[1:6] != b"CD001" or len(data) < SECTOR or data[0] == LAST:
            break
        if data[0] == JOLIET and data[88:91] in ESCAPES:
            return data[156:190], True
        if data[0] == PRIMARY:
            primary = data[156:190]
    if primary is None:
        raise DamagedError(f"{file.name} is no ISO image")
    return primary, False


def _records(file: BinaryIO, start: int, size: int, *, wide: bool) -> Iterator[tuple[str, bytes]]:
    """Names and records of a folder; none goes over the end of a sector."""
    file.seek(start)
    data = file.read(size)
    at = 0
    while at < len(data):
        length = data[at]
        if length == 0:
            at = (at // SECTOR + 1) * SECTOR
            continue
        record = data[at:at + length]
        at += length
        if len(record) < 34 or 33 + record[32] > len(record):
            raise DamagedError(f"{file.name} has a damaged folder")
        raw = record[33:33 + record[32]]
        name = raw.decode("utf-16-be" if wide else "latin-1", "replace").split(";")[0].rstrip(".")
        if raw not in (b"\0", b"\1") and name and "/" not in name and "\0" not in name:
            yield name, record
