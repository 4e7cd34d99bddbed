"""What the menu of a boot loader offers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from imgtool.guests.linux.edit import Editor
from imgtool.guests.tree import Tree

ROOT_PREFIX = re.compile(r"^(\(.*?\)|\$\{?[A-Za-z_]+\}?)(?=/)")
"""``(hd0,1)/vmlinuz``, ``($root)/vmlinuz``: GRUB's names of a disk."""
ESPS = ("/boot/efi", "/efi", "/boot")
"""Where the EFI system partition is mounted."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """``id`` is what the loader knows it by; ``kernel`` and ``initrds`` are paths in the guest."""

    id: str
    title: str
    kernel: str
    initrds: tuple[str, ...] = ()
    options: str = ""


@dataclass(frozen=True, kw_only=True)
class Menu:
    """``kind`` and ``config`` as in BootLoader; ``default`` is the place in ``entries`` of what boots, None if unknown."""

    kind: str
    config: str
    entries: tuple[Entry, ...] = ()
    default: int | None = None


def guest_path(tree: Tree, path: str, *bases: str) -> str:
    """What a loader calls ``/vmlinuz`` (separate ``/boot``) or ``/@/boot/vmlinuz`` (btrfs), as the guest sees it."""
    path = "/" + ROOT_PREFIX.sub("", path).lstrip("/")
    inner = "/" + path.lstrip("/").partition("/")[2]
    candidates = [base.rstrip("/") + path for base in (*bases, "", "/boot", *ESPS)] + [inner, "/boot" + inner]
    return next((found for found in candidates if tree.is_file(found)), path)


def number_or_none(word: str | None) -> int | None:
    """The number that a word is, if it is a small one."""
    return int(word) if word and word.isascii() and word.isdigit() and len(word) < 6 else None


def name_default(editor: Editor, menu: Menu, entry: Entry, pattern: re.Pattern[str], word: str, *, why: str) -> None:
    """Makes an entry the one that boots, in a file with one line for that: ``pattern`` finds it (its beginning, and the id),
    ``word`` begins one where there is none."""

    def changed(old: str) -> str:
        if pattern.search(old):
            return pattern.sub(lambda found: found[1] + entry.id, old, count=1)
        return f"{word}{entry.id}\n{old}"

    editor.change(menu.config, changed, what=f"default entry is {entry.title}", why=why)
