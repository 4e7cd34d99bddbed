"""The one way in which the guest's files are changed: what stays equal is not written, what changes is kept and said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from posixpath import basename, dirname

from imgtool.errors import DamagedError
from imgtool.guests.tree import KEPT, Tree
from imgtool.model.guest import Change

READ_WHOLE = (*(f"/etc/{base}rc{level}.d" for base in ("", "rc.d/") for level in "0123456S"),
              "/etc/network/interfaces.d", "/etc/sysconfig/network-scripts", "/etc/sysconfig/network",
              "/etc/NetworkManager/system-connections", "/usr/lib/NetworkManager/system-connections",
              "/etc/initramfs-tools/conf.d", "/etc/mkinitfs/features.d", "/etc/runlevels/boot", "/etc/runlevels/default")
"""Programs of the guest read every file of these folders, whatever its ending, but none with a leading dot."""


def text(tree: Tree, path: str) -> str:
    """A text file of the guest, "" if there is none or it cannot be one. Bytes that are not UTF-8 survive (see ``encoded``)."""
    with suppress(OSError, DamagedError):
        return tree.read(path).decode("utf-8", "surrogateescape")
    return ""


def encoded(content: str) -> bytes:
    """The bytes that ``text`` was made from."""
    return content.encode("utf-8", "surrogateescape")


def kept_name(path: str) -> str:
    """Where the first version of a changed file is kept."""
    hidden = "." if dirname(path) in READ_WHOLE else ""
    return f"{dirname(path).rstrip('/')}/{hidden}{basename(path)}{KEPT}"


@dataclass(kw_only=True)
class Editor:
    """Changes the guest's files and remembers what and why. ``backup``: what was there before us is kept beside."""

    tree: Tree
    backup: bool = True
    changes: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, words: str) -> None:
        """Something that a person has to know; said once."""
        if words not in self.warnings:
            self.warnings.append(words)

    def note(self, what: str, where: str, why: str) -> None:
        """A change that was made otherwise than through ``write``."""
        self.changes.append(Change(what=what, where=where, why=why))

    def write(self, path: str, data: bytes, *, what: str, why: str, mode: int | None = None) -> bool:
        """The whole content of a file; True if that changed anything. Raises OSError, DamagedError."""
        real = self.tree.realpath(path)
        there = self.tree.exists(real)
        if there and self.tree.read(real) == data:
            return False
        if there:
            self._keep(real)
        self.tree.write(real, data, mode=mode)
        self.note(what, path, why)
        return True

    def change(self, path: str, function: Callable[[str], str], *, what: str, why: str) -> bool:
        """A text file that is there; ``function`` gives its new text. True if that changed anything."""
        if not self.tree.is_file(path):
            return False
        old = text(self.tree, path)
        new = function(old)
        return new != old and self.write(path, encoded(new), what=what, why=why)

    def remove(self, path: str, *, what: str, why: str) -> bool:
        """True if there was such a file."""
        if not self.tree.is_file(path):
            return False
        if self.backup and not self.tree.exists(kept_name(path)):
            self.tree.rename(path, kept_name(path))
        else:
            self.tree.remove(path)
        self.note(what, path, why)
        return True

    def symlink(self, target: str, path: str, *, what: str, why: str) -> bool:
        """True if there was no such link. Nothing else that has this name is replaced."""
        if self.tree.readlink(path) is not None or self.tree.exists(path):
            return False
        self.tree.symlink(target, path)
        self.note(what, path, why)
        return True

    def _keep(self, path: str) -> None:
        if self.backup and not self.tree.exists(kept_name(path)):
            self.tree.write(kept_name(path), self.tree.read(path), mode=self.tree.stat(path).mode & 0o7777)
