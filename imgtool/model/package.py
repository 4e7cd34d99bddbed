"""What an OVF package is made of: a folder, or one tar archive (OVA), with a description, a manifest and disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Member(NamedTuple):
    """A file of an archive: a plain range of the archive's bytes."""

    name: str
    offset: int
    """Of its first byte in the archive, never 0: a header comes before it."""
    size: int


@dataclass(frozen=True, kw_only=True)
class FileReference:
    """``<File>`` in the References of an OVF."""

    href: str
    """The file's name, as ``DiskSlot.path`` has it."""
    size: int | None = None
    """Bytes of the file, packed; None: not said."""
    gzip: bool = False
    """The file is packed with gzip."""
    chunked: bool = False
    """The file is cut in pieces ``href.000000000``, ``href.000000001``, …"""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A file that was put into a package."""

    name: str
    size: int
    sha256: str
    """Lower case, hexadecimal."""
