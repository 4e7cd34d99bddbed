"""SUSE: ``/etc/sysconfig/network/ifcfg-*`` (ifcfg(5)), read by wicked and, before it, by ifup. Names come from udev alone."""

from __future__ import annotations

from posixpath import basename

from imgtool.guests.linux.distro import variables
from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import names
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "wicked"
FOLDER = "/etc/sysconfig/network"
IGNORED = ("~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave", ".template")
MADE = ("BRIDGE", "BONDING_MASTER", "ETHERDEVICE", "TUNNEL", "WIRELESS")
"""Settings of interfaces that are no network cards of their own."""


def files(tree: Tree) -> tuple[str, ...]:
    """One for each interface, and wicked's own."""
    found = (*tree.glob(f"{FOLDER}/ifcfg-*"), *tree.glob("/etc/wicked/ifconfig/*.xml"))
    return tuple(path for path in found if not path.endswith(IGNORED) and tree.is_file(path))


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """The cards. ``ifcfg-eth-id-<mac>`` (SLES 10) names none: it follows its card by itself."""
    found = []
    for path in files(tree):
        name = basename(path).removeprefix("ifcfg-")
        fields = variables(text(tree, path))
        if path.startswith(f"{FOLDER}/") and names.is_card(name) and not any(fields.get(key, "no") != "no" for key in MADE):
            found.append(NicConfig(name=name, system=SYSTEM, path=path, mac=names.mac(fields.get("LLADDR")),
                                   addresses=_addresses(fields), dhcp=fields.get("BOOTPROTO", "").lower().startswith("dhcp")))
    return tuple(found)


def _addresses(fields: dict[str, str]) -> tuple[str, ...]:
    found = []
    for key, value in fields.items():
        if key.startswith("IPADDR") and value:
            number = key.removeprefix("IPADDR")
            found.append(names.with_prefix(value, fields.get(f"PREFIXLEN{number}") or fields.get(f"NETMASK{number}")))
    return tuple(found)
