"""All systems that configure the network of a guest, and MAC addresses followed through them."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from imgtool.guests.linux.bootloaders import command_lines
from imgtool.guests.linux.edit import Editor
from imgtool.guests.linux.network import (
    cloud_init,
    ifcfg,
    ifupdown,
    names,
    netplan,
    networkd,
    networkmanager,
    udev,
    wicked,
)
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig


class System(Protocol):
    """A module of this folder."""

    SYSTEM: str

    def files(self, tree: Tree) -> tuple[str, ...]: ...

    def read(self, tree: Tree) -> tuple[NicConfig, ...]: ...


SYSTEMS: tuple[System, ...] = (ifcfg, wicked, ifupdown, netplan, networkd, networkmanager, cloud_init, udev)


OTHERS = ("/etc/NetworkManager/NetworkManager.conf", "/etc/NetworkManager/conf.d/*.conf", "/etc/systemd/network/*.netdev",
          "/etc/mactab", "/etc/iftab")
"""Where an address may stand that gives no card its settings: what NetworkManager leaves alone, what a bridge copies, nameif."""
WHAT, WHY = "MAC address followed", "the network card has another address on the target"


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """What every system says, in the order of ``SYSTEMS``."""
    return tuple(nic for system in SYSTEMS for nic in system.read(tree))


def follow(editor: Editor, macs: dict[str, str]) -> None:
    """Old MAC addresses become new ones wherever the network is configured; both lower case with colons."""
    if not macs:
        return
    paths = [path for system in SYSTEMS for path in system.files(editor.tree)]
    for path in (*paths, *(path for pattern in OTHERS for path in editor.tree.glob(pattern))):
        editor.change(path, partial(names.replace_macs, macs=macs), what=WHAT, why=WHY)
    command_lines.change(editor, partial(names.replace_macs, macs=macs), what=WHAT, why=WHY)
