"""Ubuntu's netplan: ``/etc/netplan/*.yaml`` (netplan(5)). With ``match: macaddress`` and ``set-name`` it renames cards itself."""

from __future__ import annotations

from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import yamls
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "netplan"
FOLDERS = ("/lib/netplan", "/usr/lib/netplan", "/etc/netplan", "/run/netplan")


def files(tree: Tree) -> tuple[str, ...]:
    """All of its files."""
    found = [path for folder in FOLDERS for path in tree.glob(f"{folder}/*.yaml") if tree.is_file(path)]
    return tuple(dict.fromkeys(tree.realpath(path) for path in found))


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """The cards under ``ethernets``."""
    contents = [(path, yamls.load(text(tree, path))) for path in files(tree)]
    return tuple(nic for path, content in contents for nic in yamls.version_2(content.get("network"), SYSTEM, path))
