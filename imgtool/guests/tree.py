"""The guest's root folder, seen from outside: all that the knowledge about Linux needs of a disk.

``guests/guest_tree.py`` gives it over libguestfs; the tests give it over a folder. Paths are absolute, as the guest sees them,
with all its file systems mounted. Links are followed inside the guest's root and never out of it. What is in the tree is
hostile: names may hold anything but ``/`` and NUL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

READ_LIMIT = 16 << 20
"""Bytes. The largest file that is read whole here is ``modules.alias`` (2 MiB)."""
KEPT = ".imgtool-orig"
"""Ends the name of the first version of a changed file, which stays beside it."""
NEW_FILE = 0o644


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What ``stat`` says: ``mode`` with the bits of the file's type, ``mtime`` in seconds, ``size`` in bytes."""

    mode: int
    uid: int
    gid: int
    mtime: int
    size: int


class Tree(Protocol):
    """The guest's files. What is missing raises FileNotFoundError, what else goes wrong another OSError."""

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes:
        """The bytes of a regular file. Raises DamagedError if there are more than ``limit``, or if it is no regular file."""

    def exists(self, path: str) -> bool:
        """Links followed: a broken one does not exist."""

    def is_dir(self, path: str) -> bool:
        """Links followed."""

    def is_file(self, path: str) -> bool:
        """A regular file, links followed."""

    def glob(self, pattern: str) -> list[str]:
        """Paths that match a shell pattern (``*``, ``?``, ``[…]``; ``*`` matches no leading dot), sorted."""

    def ls(self, path: str) -> list[str]:
        """Names in a folder, sorted, without ``.`` and ``..``; none if it is not there."""

    def readlink(self, path: str) -> str | None:
        """Where a symbolic link points; None for what is none, or is not there."""

    def realpath(self, path: str) -> str:
        """The path without links, as the guest sees it. What is missing stays as it is written."""

    def stat(self, path: str) -> Stat:
        """Links followed."""

    def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """A whole file; a link to a file stays, and that file is written. All or nothing: the overlay below sees to that.

        Owner, mode and extended attributes (SELinux) of the old file are kept; a new file belongs to root, has ``mode``
        (None: 0644) and the SELinux context of its folder. Missing folders are made.
        """

    def symlink(self, target: str, path: str) -> None:
        """A link at ``path`` that says ``target``, with the SELinux context of its folder; what was there is replaced."""

    def remove(self, path: str) -> None:
        """A file or a link; nothing happens if it is not there."""

    def rename(self, old: str, new: str) -> None:
        """What was at ``new`` is replaced."""

    def mkdir(self, path: str) -> None:
        """With its parents, 0755, with the SELinux context of the folder above; nothing happens if it is there."""

    def free(self, path: str) -> int:
        """Free bytes of the file system that holds ``path``."""

    def download(self, path: str, local: str) -> None:
        """Copies a regular file out of the guest. It can be large: ask ``stat`` first."""

    def upload(self, local: str, path: str, *, mode: int | None = None) -> None:
        """Copies a file into the guest, like ``write``."""
