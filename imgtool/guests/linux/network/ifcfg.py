"""Red Hat's initscripts and NetworkManager's ifcfg-rh: ``/etc/sysconfig/network-scripts/ifcfg-*`` (sysconfig.txt of initscripts).

``HWADDR`` ties a file to a card: initscripts' ``rename_device`` gives that card the name in ``DEVICE``.
"""

from __future__ import annotations

from posixpath import basename

from imgtool.guests.linux.distro import variables
from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import names
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "ifcfg"
FOLDER = "/etc/sysconfig/network-scripts"
IGNORED = ("~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave")


def files(tree: Tree) -> tuple[str, ...]:
    """One for each interface."""
    return tuple(path for path in tree.glob(f"{FOLDER}/ifcfg-*") if not path.endswith(IGNORED) and tree.is_file(path))


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """The cards. VLANs, bonds, bridges, aliases are none."""
    found = []
    for path in files(tree):
        fields = variables(text(tree, path))
        name = fields.get("DEVICE") or basename(path).removeprefix("ifcfg-")
        kind = fields.get("TYPE", "Ethernet").lower()
        if names.is_card(name) and kind == "ethernet" and fields.get("VLAN", "no").lower() != "yes":
            found.append(NicConfig(name=name, system=SYSTEM, path=path, mac=names.mac(fields.get("HWADDR")),
                                   addresses=_addresses(fields), dhcp=fields.get("BOOTPROTO", "none").lower() == "dhcp"))
    return tuple(found)


def _addresses(fields: dict[str, str]) -> tuple[str, ...]:
    four = []
    for key, value in fields.items():
        number = key.removeprefix("IPADDR")
        if key.startswith("IPADDR") and (number == "" or number.isdigit()):
            mask = fields.get(f"PREFIX{number}") or fields.get(f"NETMASK{number}")
            four.append(names.with_prefix(value, mask))
    six = fields.get("IPV6ADDR", "").split() + fields.get("IPV6ADDR_SECONDARIES", "").split()
    return (*four, *six)
