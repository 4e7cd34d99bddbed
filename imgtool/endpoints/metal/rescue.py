"""Bad sectors: read again in ever smaller pieces, and what stays unreadable is written down in ddrescue's map format.

Format: the section *Mapfile structure* of GNU ddrescue's manual: ``#`` comments, a line with where the work stands, then lines
``position size status``; ``+`` is rescued, ``-`` is a bad sector.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from imgtool.endpoints.far.wire import FarError
from imgtool.endpoints.ranges import Range, Ranges
from imgtool.errors import DamagedError, ImgtoolError
from imgtool.storage import raise_os

BAD = (errno.EIO, errno.ENODATA, errno.EREMOTEIO, errno.EILSEQ, errno.ETIMEDOUT)
"""What the kernel's block layer says of a sector that cannot be read (block/blk-core.c: medium, target, protection, timeout)."""
STEPS = (64 << 10, 4 << 10)
"""Pieces that are tried before single sectors."""
ATTEMPTS = 2
"""Of a single sector, in all."""
HEAD = ("# Mapfile. Made by imgtool. What has the status - cannot be read, and is zeros in the copy",
        "# current_pos  current_status  current_pass", "0x00000000     +               1", "#      pos        size  status")
LINE = re.compile(r"^(0x[0-9A-Fa-f]+)\s+(0x[0-9A-Fa-f]+)\s+([?*/+-])")
HINT = "--rescue goes on without what cannot be read, and lists it; then replace the disk"
Read = Callable[[int, int], bytes | bytearray | None]


def is_bad(error: FarError) -> bool:
    return error.errno in BAD


def bad_sector(disk: str, start: int, end: int, sector: int, read: Read) -> ImgtoolError:
    """The error of a copy without ``--rescue``, of a range that could not be read."""
    while end - start > sector:
        middle = start + -(-(end - start) // 2 // sector) * sector
        try:
            read(start, middle - start)
        except FarError:
            end = middle
        else:
            start = middle
    return ImgtoolError(f"{disk} cannot be read at byte {start}", HINT)


class BadSectors:
    """Those of one disk, kept in a file from run to run. Threads may call at the same time."""

    def __init__(self, path: str, size: int, sector: int) -> None:
        """Raises DamagedError where the file is no such map of this disk."""
        self.path, self._size, self._sector = path, size, sector
        self._lock = threading.Lock()
        self._bad = Ranges(_load(path, size) if os.path.exists(path) else ())

    def __iter__(self) -> Iterator[Range]:
        return iter(self._bad)

    def clear(self) -> None:
        """A copy that begins anew finds its own, or none."""
        self._bad = Ranges()
        Path(self.path).unlink(missing_ok=True)

    def read(self, start: int, end: int, read: Read) -> bytes | bytearray:
        """A range that could not be read at once, with zeros for what cannot be read at all, which is written down."""
        data = bytearray(end - start)
        found: list[Range] = []
        self._pieces(start, end, (*STEPS, self._sector), read, data, start, found)
        if found:
            with self._lock:
                self._bad = Ranges([*self._bad, *found])
                self._save()
        return data

    def _pieces(self, start: int, end: int, steps: tuple[int, ...], read: Read, data: bytearray, base: int,
                found: list[Range]) -> None:
        step = steps[0]
        for low in range(start // step * step, end, step):
            at, stop = max(low, start), min(low + step, end)
            for attempt in range(ATTEMPTS if len(steps) == 1 else 1):
                try:
                    data[at - base:stop - base] = read(at, stop - at) or bytes(stop - at)
                    break
                except FarError as error:
                    if not is_bad(error):
                        raise
                    if len(steps) > 1:
                        self._pieces(at, stop, steps[1:], read, data, base, found)
                    elif attempt == ATTEMPTS - 1:
                        found.append((at, stop))

    def _save(self) -> None:
        """Whole or as it was."""
        lines = [*HEAD, *(f"0x{start:08X}  0x{end - start:08X}  {status}"
                          for start, end, status in _statuses(self._bad, self._size))]
        part = self.path + ".part"
        try:
            with open(part, "w", encoding="ascii") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
        except OSError as error:
            raise_os(error, f"writing {self.path}")


def _statuses(bad: Ranges, size: int) -> list[tuple[int, int, str]]:
    good = [(start, end, "+") for start, end in bad.outside(0, size)]
    return sorted([*good, *((start, end, "-") for start, end in bad)])


def _load(path: str, size: int) -> list[Range]:
    lines = [line for line in Path(path).read_text("ascii", "replace").splitlines() if line.strip() and not line.startswith("#")]
    found, at = [], 0
    for line in lines[1:]:
        match = LINE.match(line)
        if not match or int(match[1], 16) != at:
            break
        start, at = at, at + int(match[2], 16)
        if match[3] != "+" and at > start:
            found.append((start, at))
    if at != size:
        raise DamagedError(f"{path} is no map of bad sectors of this disk", "move it away, or give another folder")
    return found
