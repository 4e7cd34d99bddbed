"""GRUB legacy (0.97): ``menu.lst``, or ``grub.conf`` as Red Hat calls it. ``default`` is the number of a ``title``, from 0."""

from __future__ import annotations

import re

from imgtool.guests.linux.bootloaders.menu import Entry, Menu, guest_path, name_default, number_or_none
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

CONFIGS = ("/boot/grub/grub.conf", "/boot/grub/menu.lst", "/boot/efi/EFI/redhat/grub.conf", "/etc/grub.conf")
DEFAULT = re.compile(r"^([ \t]*default[ \t=]+)(\S+)", re.MULTILINE)


def read(tree: Tree) -> Menu | None:
    """None if there is no such menu."""
    path = next((path for path in CONFIGS if tree.is_file(path)), None)
    if path is None:
        return None
    content = text(tree, path)
    entries = tuple(_entry(tree, place, block) for place, block in enumerate(_blocks(content)))
    found = DEFAULT.search(content)
    default = number_or_none(found[2]) if found else 0
    linux = [entry for entry in entries if entry.kernel]
    place = next((at for at, entry in enumerate(linux) if entry.id == str(default)), None)
    return Menu(kind="grub-legacy", config=path, entries=tuple(linux), default=place)


def _blocks(content: str) -> list[list[str]]:
    blocks: list[list[str]] = []
    for line in content.split("\n"):
        if re.match(r"\s*title\b", line):
            blocks.append([])
        if blocks and not line.lstrip().startswith("#"):
            blocks[-1].append(line.strip())
    return blocks


def _entry(tree: Tree, place: int, block: list[str]) -> Entry:
    fields: dict[str, str] = {}
    for line in block:
        word = re.split(r"[ \t=]+", line, maxsplit=1)
        if len(word) == 2:
            fields.setdefault(word[0], word[1])
    kernel, _, options = fields.get("kernel", "").partition(" ")
    initrds = tuple(guest_path(tree, word) for word in fields.get("initrd", "").split())
    return Entry(id=str(place), title=fields.get("title", ""), kernel=guest_path(tree, kernel) if kernel else "", initrds=initrds,
                 options=options.strip())


def choose(editor: Editor, menu: Menu, entry: Entry, *, why: str) -> None:
    """Makes an entry the one that boots."""
    name_default(editor, menu, entry, DEFAULT, "default=", why=why)
