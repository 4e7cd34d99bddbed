"""SELinux: which mode it starts in. Labels need no work here.

A changed file is written in place and keeps its context; a new file, link or folder gets that of its folder (``GuestTree``):
so does the kernel, and so says the policy for the folders that are written to.
"""

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
