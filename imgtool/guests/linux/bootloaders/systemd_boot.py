"""systemd-boot: entries on the ESP, or the partition for them; ``default`` in ``loader.conf`` is a pattern (loader.conf(5))."""

from __future__ import annotations

import fnmatch
import re

from imgtool.guests.linux.bootloaders import bls
from imgtool.guests.linux.bootloaders.menu import ESPS, Entry, Menu
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

DEFAULT = re.compile(r"^default[ \t]+(.*)$", re.MULTILINE)


def read(tree: Tree) -> Menu | None:
    """None if it is not installed on an ESP."""
    esp = next((base for base in ESPS if tree.glob(f"{base}/EFI/systemd/systemd-boot*.efi")), None)
    if esp is None:
        return None
    entries = bls.read(tree)
    pattern = DEFAULT.search(text(tree, f"{esp}/loader/loader.conf"))
    wanted = pattern[1].strip().removesuffix(".conf") if pattern else "*"
    fitting = [place for place, entry in enumerate(entries) if fnmatch.fnmatchcase(entry.id, wanted)]
    default = next(iter(fitting), 0 if entries else None)
    return Menu(kind="systemd-boot", config=f"{esp}/loader/loader.conf", entries=entries, default=default)


def choose(editor: Editor, menu: Menu, entry: Entry, *, why: str) -> None:
    """Makes an entry the one that boots."""
    old = text(editor.tree, menu.config)
    line = f"default {entry.id}.conf"
    new = DEFAULT.sub(lambda _: line, old) if DEFAULT.search(old) else f"{line}\n{old}"
    editor.write(menu.config, new.encode("utf-8", "surrogateescape"), what=f"default entry is {entry.title}", why=why)
