"""Who gives a card its name: rules of udev with ``NAME=`` (udev(7)), and ``.link`` files (systemd.link(5))."""

from __future__ import annotations

import re

from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import ini, names
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "udev"
RULES = "/etc/udev/rules.d"
LINKS = "/etc/systemd/network"
BUILTIN = ("/usr/lib/udev/rules.d/80-net-setup-link.rules", "/lib/udev/rules.d/80-net-setup-link.rules")
"""The rule that reads ``.link`` files (systemd 209 and later)."""
FOLDERS = ("/usr/lib/udev", "/lib/udev")
MASK = f"{RULES}/80-net-setup-link.rules"
ADDRESS = re.compile(r"ATTRS?\{address\}==\"([^\"]+)\"")
NAME = re.compile(r"(?<![A-Z_])NAME:?=\"([^\"]+)\"")


def files(tree: Tree) -> tuple[str, ...]:
    """Rules of the administrator that may name cards, and ``.link`` files."""
    rules = [path for path in tree.glob(f"{RULES}/*.rules") if "net" in text(tree, path)]
    return tuple(path for path in (*rules, *tree.glob(f"{LINKS}/*.link")) if tree.is_file(path))


def installed(tree: Tree) -> bool:
    """Alpine has mdev instead: the kernel's names stay."""
    return any(tree.is_dir(path) for path in FOLDERS)


def reads_links(tree: Tree) -> bool:
    """udev follows ``.link`` files: the rule for it is there and not masked, and no older rule names cards before it."""
    masked = tree.readlink(MASK) == "/dev/null" or (tree.is_file(MASK) and not text(tree, MASK).strip())
    named = any(_rules(path, text(tree, path)) for path in files(tree) if path.endswith(".rules"))
    return any(tree.is_file(path) for path in BUILTIN) and not masked and not named


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """Cards that are named by their address."""
    return tuple(nic for path in files(tree) for nic in (_link if path.endswith(".link") else _rules)(path, text(tree, path)))


def _rules(path: str, content: str) -> list[NicConfig]:
    found = []
    for line in content.split("\n"):
        address, name = ADDRESS.search(line), NAME.search(line)
        if address and name and not line.lstrip().startswith("#") and names.mac(address[1]):
            found.append(NicConfig(name=name[1], system=SYSTEM, path=path, mac=names.mac(address[1])))
    return found


def _link(path: str, content: str) -> list[NicConfig]:
    macs = [mac for key in ("MACAddress", "PermanentMACAddress") for value in ini.values(content, "Match", key)
            for word in value.split() if (mac := names.mac(word))]
    given = ini.values(content, "Link", "Name")
    return [NicConfig(name=given[-1], system=SYSTEM, path=path, mac=mac) for mac in macs[:1] if given]
