"""Partition tables: what is on a disk, and what is written where so that it fits another. Sizes and offsets are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class TableKind(StrEnum):
    GPT = "gpt"
    MBR = "mbr"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A partition as its table names it."""

    number: int
    """As Linux counts: logical ones begin with 5."""
    start: int
    size: int
    type: str
    """GPT: a GUID in capitals; MBR: ``0x83``."""
    name: str = ""

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, kw_only=True)
class GptHeader:
    """What has to be kept of a GPT when it is written for another disk."""

    sector: int
    lba: int
    """Where it stood: 1, or of the backup the last sector."""
    array_lba: int
    first_usable: int
    entry_size: int
    array: bytes
    raw: bytes
    """The header itself, as long as it says it is."""


@dataclass(frozen=True, kw_only=True)
class Table:
    kind: TableKind
    sector: int = 512
    """In which the table counts."""
    size: int
    """Of the disk that it was read from."""
    entries: tuple[Entry, ...] = ()
    boot_sector: bytes = b""
    """The first 512 bytes."""
    gpt: GptHeader | None = None
    hybrid: bool = False
    """A GPT whose protective MBR names partitions of its own."""
    damaged: str | None = None
    """Why it cannot be written for another disk."""
    warnings: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """The byte behind the last partition."""
        return max((entry.end for entry in self.entries), default=0)

    @property
    def last(self) -> Entry | None:
        """The partition that ends last; an MBR's extended one, if it is that."""
        return max(self.entries, key=lambda entry: (entry.end, -entry.start), default=None)


class Patch(NamedTuple):
    """Bytes that a disk has instead of its own."""

    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a table is made to fit a disk."""

    patches: tuple[Patch, ...] = ()
    notes: tuple[str, ...] = ()
    grown: Entry | None = None
    """The partition that was extended, as it is now."""
    backup: tuple[int, int] | None = None
    """Range [start, end) of the backup GPT on the new disk."""
