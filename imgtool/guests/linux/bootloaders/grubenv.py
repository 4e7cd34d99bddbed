"""GRUB's environment block: 1024 bytes; a comment, ``name=value`` lines, filled up with ``#`` (GRUB manual)."""

from __future__ import annotations

from imgtool.guests.linux.edit import Editor, encoded, text
from imgtool.guests.tree import Tree

PATHS = ("/boot/grub2/grubenv", "/boot/grub/grubenv")
SIZE = 1024
HEAD = "# GRUB Environment Block\n"


def path(tree: Tree) -> str:
    """Where the block is, or would be."""
    there = [one for one in PATHS if tree.is_file(one)] + [one for one in PATHS if tree.is_dir(one.rsplit("/", 1)[0])]
    return there[0] if there else PATHS[1]


def read(tree: Tree) -> dict[str, str]:
    """Its variables; none if there is no block."""
    lines = [line.partition("=") for line in text(tree, path(tree)).split("\n") if not line.startswith("#")]
    return {name: value for name, equals, value in lines if equals}


def write(editor: Editor, variables: dict[str, str], *, why: str) -> bool:
    """Writes the block anew with these variables. False if they do not fit, or are there."""
    content = HEAD + "".join(f"{name}={value}\n" for name, value in variables.items())
    data = encoded(content)
    if len(data) > SIZE:
        editor.warn(f"{path(editor.tree)}: GRUB's environment block has no room for the new settings")
        return False
    return editor.write(path(editor.tree), data + b"#" * (SIZE - len(data)), what="GRUB's environment block changed", why=why)
