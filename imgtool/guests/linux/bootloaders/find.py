"""Which boot loader a guest has, and its menu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from imgtool.guests.linux.bootloaders import efi, extlinux, grub2, grub_legacy, systemd_boot
from imgtool.guests.linux.bootloaders.menu import Entry, Menu
from imgtool.guests.linux.edit import Editor
from imgtool.guests.tree import Tree
from imgtool.model.guest import BootLoader


class Chooser(Protocol):
    """Makes an entry of a menu the one that boots when nobody chooses."""

    def __call__(self, editor: Editor, menu: Menu, entry: Entry, *, why: str) -> None: ...


LOADERS: tuple[tuple[Callable[[Tree], Menu | None], Chooser], ...] = (
    (grub2.read, grub2.choose), (systemd_boot.read, systemd_boot.choose), (extlinux.read, extlinux.choose),
    (grub_legacy.read, grub_legacy.choose),
)
"""Of two, the first with entries counts: old menus stay behind after an upgrade."""


def find(tree: Tree) -> tuple[Menu, Chooser] | None:
    """The loader with a menu for Linux; None if there is none that we know."""
    found = [(menu, choose) for read, choose in LOADERS if (menu := read(tree)) is not None]
    return next((one for one in found if one[0].entries), found[0] if found else None)


def describe(tree: Tree, menu: Menu | None, arch: str | None, firmware: str) -> BootLoader:
    """For ``inspect``; ``firmware``: bios or uefi, as the partitions say."""
    loaders = efi.loaders(tree)
    titles = tuple(entry.title for entry in menu.entries) if menu else ()
    return BootLoader(kind=menu.kind if menu else "unknown", firmware=firmware, config=menu.config if menu else None,
                      entries=loaders + titles, fallback=efi.has_fallback(tree, arch))
