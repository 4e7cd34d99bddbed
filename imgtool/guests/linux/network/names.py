"""Names of interfaces and MAC addresses, as all of the systems write them."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,14}")
"""A network card that can be pinned. Linux allows 15 bytes; ``eth0.7`` (VLAN) and ``eth0:1`` (alias) are no cards."""
MAC = re.compile(r"(?<![0-9A-Fa-f:])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")
LABELLED = re.compile(r"(?<![\w:])(ifname=[A-Za-z0-9_-]+:|mac:)([0-9A-Fa-f:]{17})(?![0-9A-Fa-f:])")
"""A colon stands before the address in dracut.cmdline(7) and NetworkManager.conf(5)."""
VIRTUAL = re.compile(r"(lo|br-?\d+|bond\d+|team\d+|vlan\d+|virbr.*|docker\d+|veth.*|tun\d+|tap\d+|wg\d+|dummy\d+|sit\d+|ib\d+)")
"""Made by software: no card has these names."""


def is_card(name: str) -> bool:
    """The name of one network card: no pattern, nothing that software makes."""
    return NAME.fullmatch(name) is not None and VIRTUAL.fullmatch(name) is None


def mac(word: str | None) -> str | None:
    """Lower case with colons; None for what is no MAC address."""
    word = (word or "").strip().strip("\"'")
    return word.lower().replace("-", ":") if MAC.fullmatch(word) else None


def with_prefix(address: str, mask: str | None) -> str:
    """``192.0.2.7`` and ``255.255.255.0``, or ``24``, as ``192.0.2.7/24``."""
    if "/" in address or not mask:
        return address
    try:
        return f"{address}/{IPv4Network(f'0.0.0.0/{mask}').prefixlen}"
    except ValueError:
        return address


def replace_macs(content: str, macs: dict[str, str]) -> str:
    """Old addresses become new ones (both lower case with colons), in the letters and signs of the place where they stand."""

    def new(found: re.Match[str]) -> str:
        fresh = macs.get(found[0].lower().replace("-", ":"))
        if fresh is None:
            return found[0]
        fresh = fresh.replace(":", found[1])
        return fresh.upper() if found[0] != found[0].lower() else fresh

    return MAC.sub(new, LABELLED.sub(lambda found: found[1] + MAC.sub(new, found[2]), content))
