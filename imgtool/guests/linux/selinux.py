"""SELinux: which mode it starts in. Labels need no work here: a new file gets the context of its folder (``Tree.write``)."""

from __future__ import annotations

from imgtool.guests.linux.distro import variables
from imgtool.guests.linux.edit import text
from imgtool.guests.tree import Tree

CONFIG = "/etc/selinux/config"
MODES = ("enforcing", "permissive", "disabled")


def mode(tree: Tree) -> str | None:
    """enforcing, permissive, disabled; None if the guest has no SELinux."""
    word = variables(text(tree, CONFIG)).get("SELINUX", "").lower()
    return word if word in MODES else None
