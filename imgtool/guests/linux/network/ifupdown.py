"""Debian's and Alpine's ``/etc/network/interfaces`` (interfaces(5)), with the files that it sources."""

from __future__ import annotations

from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import names
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "ifupdown"
MAIN = "/etc/network/interfaces"
MEMBERS = ("bridge_ports", "bridge-ports", "bond-slaves", "bond_slaves", "slaves", "vlan-raw-device", "vlan_raw_device")
"""Options that name cards below another interface."""


def files(tree: Tree) -> tuple[str, ...]:
    """The main file, and those that ``source`` and ``source-directory`` in it lead to."""
    found = [MAIN] if tree.is_file(MAIN) else []
    for line in text(tree, MAIN).split("\n"):
        words = line.split()
        if len(words) == 2 and words[0] in ("source", "source-directory"):
            pattern = words[1].rstrip("/") + ("/*" if words[0] == "source-directory" else "")
            pattern = pattern if pattern.startswith("/") else f"/etc/network/{pattern}"
            found += [path for path in tree.glob(pattern) if tree.is_file(path) and path not in found]
    return tuple(found)


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """The cards: interfaces with a stanza, and those below bridges, bonds and VLANs."""
    return tuple(nic for path in files(tree) for nic in _stanzas(path, text(tree, path)))


def _stanzas(path: str, content: str) -> list[NicConfig]:
    blocks: list[tuple[str, str, dict[str, str]]] = []
    for line in content.replace("\\\n", " ").split("\n"):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "iface" and len(words) > 1:
            blocks.append((words[1], words[3] if len(words) > 3 else "", {}))
        elif words[0] in ("auto", "source", "source-directory", "mapping") or words[0].startswith("allow-"):
            blocks.append(("", "", {}))
        elif blocks:
            blocks[-1][2].setdefault(words[0], " ".join(words[1:]))
    return _merged(path, blocks)


def _merged(path: str, blocks: list[tuple[str, str, dict[str, str]]]) -> list[NicConfig]:
    """One for each name: a card has a stanza for IPv4 and one for IPv6."""
    addresses: dict[str, tuple[str, ...]] = {}
    dhcp: dict[str, bool] = {}
    for name, method, options in blocks:
        members = [word for key in MEMBERS for word in options.get(key, "").split() if word not in ("none", "all")]
        virtual = any(key in options for key in MEMBERS)
        for card in members if virtual else [name]:
            if names.is_card(card):
                own = options.get("address") if not virtual else None
                found = (names.with_prefix(own, options.get("netmask")),) if own else ()
                addresses[card] = addresses.get(card, ()) + found
                dhcp[card] = dhcp.get(card, False) or (method == "dhcp" and not virtual)
    return [NicConfig(name=card, system=SYSTEM, path=path, addresses=addresses[card], dhcp=dhcp[card]) for card in addresses]
