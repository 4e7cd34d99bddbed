"""An image that is being written by imgtool itself: where each range of the guest's disk goes.

The copier calls ``place`` for each range of the disk once, window after window, and puts the bytes where it is told; ``finish``
writes the metadata. Each place reads as zeros until it is written, so nobody needs to fill the rest of a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from imgtool import storage
from imgtool.errors import UsageError
from imgtool.model import Allocation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Place(NamedTuple):
    """Guest bytes [start, start + length) go to ``fd`` at ``offset``."""

    start: int
    length: int
    fd: int
    offset: int


@dataclass(frozen=True)
class Payload:
    """A file of the target: what allocation means is decided on these."""

    name: str
    fd: int


class Target(Protocol):
    """What each format's writer gives."""

    members: list[str]
    """The files, by their names in the workspace; the last one makes the others valid."""
    window: int
    """Guest bytes whose ranges may be placed in any order: they stand in the file as they come. 0: each has its place already."""

    def expect(self, start: int, length: int) -> None:
        """All of this range will be placed, and filled: its space may be taken. Raises NoSpaceError."""

    def place(self, start: int, length: int) -> Iterator[Place]: ...
    def finish(self) -> None: ...
    def payload(self) -> list[Payload]: ...
    def close(self) -> None: ...


class FileTarget:
    """One file whose bytes are the guest's, from ``base`` on: raw, and each extent of a flat VMDK."""

    window = 0

    def __init__(self, folder: str, name: str, size: int, *, allocation: Allocation) -> None:
        self.members = [name]
        self._name = name
        self.fd = create(folder, name)
        os.ftruncate(self.fd, size)
        if allocation != Allocation.THIN:
            storage.reserve(self.fd, 0, size)

    def expect(self, start: int, length: int) -> None:
        if not storage.copy_on_write(self.fd):
            storage.reserve(self.fd, start, length)

    def place(self, start: int, length: int) -> Iterator[Place]:
        yield Place(start, length, self.fd, start)

    def finish(self) -> None:
        pass

    def payload(self) -> list[Payload]:
        return [Payload(self._name, self.fd)]

    def close(self) -> None:
        os.close(self.fd)


def seats(table: npt.NDArray[np.unsignedinteger[Any]], cluster: int, fd: int, start: int, end: int, fresh: int,
          unit: int = 1) -> tuple[list[Place], int]:
    """Where [start, end) of the disk goes, all of it in the part that ``table`` covers, and what is fresh then.

    Clusters of ``cluster`` bytes get the places from ``fresh`` on; the first and the last may have one: another range of the disk
    ends, or begins, in the same cluster. ``unit``: of the numbers in the table, and of ``fresh``, in bytes.
    """
    import numpy as np

    base = start - start % (len(table) * cluster)
    low, high, step = (start - base) // cluster, -(-(end - base) // cluster), cluster // unit
    first, last = int(table[low]), int(table[high - 1])
    begin, stop = low + bool(first), high - (bool(last) and high - 1 > low)
    after = fresh + (stop - begin) * step
    table[begin:stop] = np.arange(fresh, after, step)
    follows = first in (0, fresh - step)
    runs = ((low, stop, first or fresh),) if follows else ((low, begin, first), (begin, stop, fresh))
    places = []
    for here, there, at in (*runs, (stop, high, last)):
        if here < there:
            left, right = max(start, base + here * cluster), min(end, base + there * cluster)
            places.append(Place(left, right - left, fd, at * unit + left - base - here * cluster))
    return places, after


def create(folder: str, name: str) -> int:
    """A new file in a workspace."""
    return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def flag(text: str, key: str) -> bool:
    """``-o key=on|off``. Raises UsageError."""
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise UsageError(f"-o {key}={text}: on or off")
