"""NetworkManager's keyfiles (nm-settings-keyfile(5)): ``/etc/NetworkManager/system-connections/*``, and those it came with."""

from __future__ import annotations

from posixpath import basename

from imgtool.guests.linux.edit import text
from imgtool.guests.linux.network import ini, names
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "NetworkManager"
FOLDERS = ("/usr/lib/NetworkManager/system-connections", "/etc/NetworkManager/system-connections")
WIRED = ("ethernet", "802-3-ethernet")


def files(tree: Tree) -> tuple[str, ...]:
    """Any name but hidden ones and copies: old versions wrote them without an ending."""
    found = [path for folder in FOLDERS for path in tree.glob(f"{folder}/*")
             if not basename(path).endswith(("~", ".bak", ".orig"))]
    return tuple(path for path in found if tree.is_file(path))


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """Wired connections. One that names neither an interface nor a card fits any: its name is ``*``."""
    found = []
    for path in files(tree):
        content = text(tree, path)
        if not any(kind in WIRED for kind in ini.values(content, "connection", "type")):
            continue
        macs = [word for kind in WIRED for word in ini.values(content, kind, "mac-address")]
        name = next(iter(ini.values(content, "connection", "interface-name")), "*")
        addresses = [value.split(",")[0].rstrip(";") for section, keys in ini.sections(content) if section in ("ipv4", "ipv6")
                     for key, listed in keys.items() if key.startswith("address") and key != "address-data" for value in listed]
        found.append(NicConfig(name=name, system=SYSTEM, path=path, mac=names.mac(macs[0] if macs else None),
                               addresses=tuple(addresses), dhcp="auto" in ini.values(content, "ipv4", "method")))
    return tuple(found)
