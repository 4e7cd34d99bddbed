"""extlinux and syslinux: ``LABEL`` blocks, ``DEFAULT`` names one; words in any case (SYSLINUX, doc/syslinux.txt)."""

from __future__ import annotations

import re

from imgtool.guests.linux.bootloaders.menu import Entry, Menu, guest_path, name_default
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

CONFIGS = ("/boot/extlinux.conf", "/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg", "/extlinux.conf")
DEFAULT = re.compile(r"^([ \t]*default[ \t]+)(\S+)", re.MULTILINE | re.IGNORECASE)


def read(tree: Tree) -> Menu | None:
    """None if there is no such menu."""
    path = next((path for path in CONFIGS if tree.is_file(path)), None)
    if path is None:
        return None
    content = text(tree, path)
    base = path.rsplit("/", 1)[0]
    blocks: list[dict[str, str]] = []
    for line in content.split("\n"):
        word, value = [*line.split(maxsplit=1), "", ""][:2]  # blanks or tabs
        if word.lower() == "label":
            blocks.append({"label": value.strip()})
        elif blocks and word:
            blocks[-1].setdefault(word.lower(), value.strip())
    entries = tuple(_entry(tree, base, block) for block in blocks if block.get("linux") or block.get("kernel"))
    wanted = DEFAULT.search(content)
    default = next((place for place, entry in enumerate(entries) if wanted and entry.id == wanted[2]), 0 if entries else None)
    return Menu(kind="extlinux", config=path, entries=entries, default=default)


def _entry(tree: Tree, base: str, block: dict[str, str]) -> Entry:
    options = block.get("append", "")
    initrds = block.get("initrd", "") or "".join(re.findall(r"(?:^|\s)initrd=(\S+)", options)[:1])
    return Entry(id=block["label"], title=block.get("menu", block["label"]), options=options,
                 kernel=guest_path(tree, block.get("linux") or block["kernel"], base),
                 initrds=tuple(guest_path(tree, word, base) for word in initrds.split(",") if word))


def choose(editor: Editor, menu: Menu, entry: Entry, *, why: str) -> None:
    """Makes an entry the one that boots."""
    name_default(editor, menu, entry, DEFAULT, "DEFAULT ", why=why)
