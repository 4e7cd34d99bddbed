"""systemd-networkd: ``*.network`` (systemd.network(5)). ``Name=`` may be a pattern, or several; then nothing is tied."""

from __future__ import annotations

from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import ini, names
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "networkd"
FOLDER = "/etc/systemd/network"
DHCP = ("yes", "true", "on", "1", "ipv4", "ipv6", "both", "v4", "v6")


def files(tree: Tree) -> tuple[str, ...]:
    """Those of the administrator."""
    found = (*tree.glob(f"{FOLDER}/*.network"), *tree.glob(f"{FOLDER}/*.network.d/*.conf"))
    return tuple(path for path in found if tree.is_file(path))


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """What ``[Match]`` names: a card, or a pattern that fits many."""
    found: list[NicConfig] = []
    for path in files(tree):
        content = text(tree, path)
        mac = next((mac for key in ("MACAddress", "PermanentMACAddress") for value in ini.values(content, "Match", key)
                    for word in value.split() if (mac := names.mac(word))), None)
        addresses = tuple(ini.values(content, "Network", "Address") + ini.values(content, "Address", "Address"))
        dhcp = any(word.lower() in DHCP for word in ini.values(content, "Network", "DHCP"))
        listed = [name for value in ini.values(content, "Match", "Name") for name in value.split() if not name.startswith("!")]
        found += [NicConfig(name=name, system=SYSTEM, path=path, mac=mac, addresses=addresses, dhcp=dhcp)
                  for name in listed or (["*"] if mac else [])]
    return tuple(found)
