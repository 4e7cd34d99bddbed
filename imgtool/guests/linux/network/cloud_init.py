"""cloud-init's own network settings: ``network: config``, formats 1 and 2. It writes the files of another system from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.linux.network import names, yamls
from imgtool.guests.tree import Tree
from imgtool.model.guest import NicConfig

SYSTEM = "cloud-init"
PATTERNS = ("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*.cfg", "/var/lib/cloud/seed/nocloud*/network-config")

LEFT = "/etc/cloud/cloud.cfg.d/99-imgtool-network.cfg"
DISABLED = "# imgtool: without this file cloud-init writes the network anew on other hardware\nnetwork: {config: disabled}\n"


def files(tree: Tree) -> tuple[str, ...]:
    """All of its configuration."""
    return tuple(path for pattern in PATTERNS for path in tree.glob(pattern) if tree.is_file(path))


def installed(tree: Tree) -> bool:
    """cloud-init is there, and not switched off."""
    return tree.is_file("/etc/cloud/cloud.cfg") and not tree.exists("/etc/cloud/cloud-init.disabled")


def network_disabled(tree: Tree) -> bool:
    """It leaves the network alone."""
    return any(yamls.mapping(yamls.load(text(tree, path)).get("network")).get("config") == "disabled" for path in files(tree))


def leave_network(editor: Editor, nics: Sequence[NicConfig]) -> None:
    """On other hardware cloud-init takes the guest for a new one, and would write a network by DHCP over what it has.

    ``nics``: what all systems configure. Nothing is done where its own settings say what it should write.
    """
    tree = editor.tree
    if not installed(tree) or network_disabled(tree) or any(nic.system == SYSTEM for nic in nics):
        return
    if any(nic.system != "udev" for nic in nics):
        editor.write(LEFT, DISABLED.encode(), what="cloud-init leaves the network as it is",
                     why="it would take the guest for a new one, and configure DHCP")
    else:
        editor.warn("cloud-init writes the network configuration at the next boot, from what the target offers")


def read(tree: Tree) -> tuple[NicConfig, ...]:
    """The cards that its configuration names."""
    return tuple(nic for path in files(tree) for nic in _nics(yamls.load(text(tree, path)), path))


def _nics(content: dict[str, object], path: str) -> Iterator[NicConfig]:
    network = yamls.mapping(content.get("network", content if path.endswith("network-config") else None))
    yield from yamls.version_2(network, SYSTEM, path)
    config = network.get("config")
    if isinstance(config, dict):
        yield from yamls.version_2(config, SYSTEM, path)
    for one in config if isinstance(config, list) else ():
        card = yamls.mapping(one)
        if card.get("type") == "physical" and card.get("name"):
            yield _version_1(card, path)


def _version_1(card: dict[str, object], path: str) -> NicConfig:
    listed = card.get("subnets")
    subnets = [yamls.mapping(one) for one in (listed if isinstance(listed, list) else ())]
    addresses = [names.with_prefix(yamls.word(one["address"]), yamls.word(one.get("netmask")))
                 for one in subnets if one.get("address")]
    return NicConfig(name=yamls.word(card["name"]), system=SYSTEM, path=path, mac=names.mac(yamls.word(card.get("mac_address"))),
                     addresses=tuple(addresses), dhcp=any(yamls.word(one.get("type")).startswith("dhcp") for one in subnets))
