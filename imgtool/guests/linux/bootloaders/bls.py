"""Menu entries as files: ``loader/entries/*.conf`` (The Boot Loader Specification, UAPI.1), for GRUB 2 and systemd-boot."""

from __future__ import annotations

import re
from posixpath import basename

from imgtool.guests.linux.bootloaders.menu import ESPS, Entry, guest_path
from imgtool.guests.linux.edit import text
from imgtool.guests.tree import Tree

Order = tuple[bool, tuple[tuple[int, int, str], ...], str]
FOLDERS = ("/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries")


def read(tree: Tree) -> tuple[Entry, ...]:
    """Newest first, as the loaders show them. Entries that start something else than Linux are left out."""
    paths = [path for folder in FOLDERS for path in tree.glob(f"{folder}/*.conf")]
    found: dict[str, tuple[Order, Entry]] = {}
    for path in paths:
        if entry := _entry(tree, path):
            found.setdefault(entry[1].id, entry)
    return tuple(entry for _, entry in sorted(found.values(), key=_order, reverse=True))


def _order(one: tuple[Order, Entry]) -> Order:
    return one[0]


def _entry(tree: Tree, path: str) -> tuple[Order, Entry] | None:
    fields: dict[str, list[str]] = {}
    for line in text(tree, path).split("\n"):
        key, value = [*line.split(maxsplit=1), "", ""][:2]  # blanks or tabs
        fields.setdefault(key, []).append(value.strip())
    if not fields.get("linux"):
        return None
    base = next((esp for esp in ESPS if path.startswith(esp + "/loader/")), "/boot")
    initrds = tuple(guest_path(tree, word, base) for line in fields.get("initrd", ()) for word in line.split() if "$" not in word)
    id_ = basename(path).removesuffix(".conf")
    version = fields.get("version", [id_])[0]
    rescue = "rescue" in id_
    return (not rescue, version_key(version), id_), Entry(
        id=id_, title=fields.get("title", [id_])[0], kernel=guest_path(tree, fields["linux"][0], base), initrds=initrds,
        options=" ".join(fields.get("options", ())))


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """For sorting: numbers by value, words by letters, a word before a number (``6.1-rc1`` before ``6.1-1``)."""
    parts = re.findall(r"\d{1,18}|[a-zA-Z]+", version)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
