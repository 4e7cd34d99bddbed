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


def seats(table: npt.NDArray[np.unsignedinteger[Any]], low: int, high: int, fresh: int,
          step: int) -> tuple[list[tuple[int, int, int]], int]:
    """Gives the clusters [low, high) of a table the places from ``fresh`` on, ``step`` apart. First and last may have one:
    another range of the disk ends, or begins, in the same cluster.

    Runs of clusters whose places follow each other, as (first cluster, cluster behind the last, place); and what is fresh then.
    """
    import numpy as np

    first, last = int(table[low]), int(table[high - 1])
    begin, end = low + bool(first), high - (bool(last) and high - 1 > low)
    after = fresh + (end - begin) * step
    table[begin:end] = np.arange(fresh, after, step, dtype=table.dtype)
    follows = first in (0, fresh - step)
    runs = ((low, end, first or fresh),) if follows else ((low, begin, first), (begin, end, fresh))
    return [run for run in (*runs, (end, high, last)) if run[0] < run[1]], after


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
