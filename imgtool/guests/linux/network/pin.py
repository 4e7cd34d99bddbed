"""Interface names tied to MAC addresses, so that a configuration that says ``ens192`` goes on working on other hardware.

Names like ``ens192`` come from the slot that a card is in (systemd.net-naming-scheme(7)): another machine, another name. A
``.link`` file, or a rule of udev where that is not read, gives the card the old name. The same file goes into the initramfs: udev
there names cards first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imgtool.guests.linux.edit import Editor, encoded, text
from imgtool.guests.linux.network import names, udev
from imgtool.model.guest import NicConfig

RULES = f"{udev.RULES}/70-persistent-net.rules"
LINK = "[Match]\n{match}\n\n[Link]\nName={name}\n"
BY_MAC = "MACAddress={mac}\nPath=*"
"""``Path``: bridges, bonds and VLANs have the same address as their card, but no place on a bus."""
ANY_CARD = "Path=pci-*"
RULE = 'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{mac}", ATTR{{type}}=="1", NAME="{name}"\n'
ANY_RULE = 'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", KERNEL=="eth*", ATTR{{type}}=="1", NAME="{name}"\n'
KERNEL_NAME = re.compile(r"eth\d+")
WHY = "the name came from the old hardware's slot"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """``mac`` None: the machine has one card, whatever its address."""

    name: str
    mac: str | None


def decide(editor: Editor, nics: Sequence[NicConfig], macs: Sequence[str]) -> tuple[Pin, ...]:
    """Which name belongs to which card. ``macs``: of the machine's cards, in their order; none if nobody knows them.

    What the configuration ties comes first, then what is left if it is one name and one card, then the order, with a warning.
    """
    wanted = _names(nics)
    pins = {name: mac for name, mac in _tied(nics).items() if name in wanted and (not macs or mac in macs)}
    names_left = [name for name in wanted if name not in pins]
    macs_left = [mac for mac in macs if mac not in pins.values()]
    if not macs and len(wanted) == 1 and names_left:
        editor.warn(f"{names_left[0]} is given to the network card whatever its address: a second one needs --mac")
        return (Pin(name=names_left[0], mac=None),)
    if len(names_left) > len(macs_left):
        editor.warn(f"no network card is known for {', '.join(names_left[len(macs_left):])}: its name may change on the target")
    if len(names_left) > 1 and macs_left:
        guess = ", ".join(f"{name} is {mac}" for name, mac in zip(names_left, macs_left, strict=False))
        editor.warn(f"network cards were matched by their order, please check: {guess}")
    pins |= dict(zip(names_left, macs_left, strict=False))
    return tuple(Pin(name=name, mac=pins[name]) for name in wanted if name in pins)


def cards(nics: Sequence[NicConfig], new: Iterable[str]) -> tuple[str, ...]:
    """The machine's cards where only some ``new`` addresses are known: these, and those that the configuration ties."""
    new, wanted = tuple(new), _names(nics)
    tied = [nic.mac for nic in nics if nic.mac and (nic.system != udev.SYSTEM or nic.name in wanted)]  # udev remembers old cards
    return tuple(dict.fromkeys((*tied, *new))) if new else ()


def moved(editor: Editor, nics: Sequence[NicConfig], macs: Sequence[str], pins: Sequence[Pin]) -> dict[str, str]:
    """Old → new address, where the configuration waits for a card that the machine (``macs``) has not.

    By the names of ``pins`` first; what is tied without a name goes to the cards that are left, in their order.
    """
    gone = [nic for nic in nics if macs and nic.mac and nic.mac not in macs]
    by_name = {pin.name: pin.mac for pin in pins if pin.mac}
    found = {nic.mac: by_name[nic.name] for nic in gone if nic.mac and nic.name in by_name}
    waiting = [nic for nic in gone if nic.system != udev.SYSTEM and not names.is_card(nic.name)]
    nameless = [mac for mac in dict.fromkeys(nic.mac for nic in waiting) if mac and mac not in found]
    there = {*found.values(), *by_name.values(), *(nic.mac for nic in nics)}
    left = [mac for mac in macs if mac not in there]
    if len(nameless) > 1 and left:
        guess = ", ".join(f"{old} becomes {new}" for old, new in zip(nameless, left, strict=False))
        editor.warn(f"network cards were matched by their order, please check: {guess}")
    if len(nameless) > len(left):
        editor.warn(f"no network card is known for {', '.join(nameless[len(left):])}: what is tied to it stays without one")
    return found | dict(zip(nameless, left, strict=False))


def _names(nics: Sequence[NicConfig]) -> list[str]:
    """Cards that a configuration names, each once. udev's own settings only matter for these."""
    used = [nic.name for nic in nics if nic.system != udev.SYSTEM and names.is_card(nic.name)]
    return sorted(dict.fromkeys(used), key=_natural)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in re.findall(r"\d+|[^\d]+", name)]


def _tied(nics: Sequence[NicConfig]) -> dict[str, str]:
    found: dict[str, str] = {}
    for nic in nics:
        if nic.mac:
            found.setdefault(nic.name, nic.mac)
    return found


def apply(editor: Editor, pins: Sequence[Pin]) -> dict[str, bytes]:
    """Writes what gives the cards their names. Returns the same for the initramfs: name there → content."""
    if not pins:
        return {}
    if not udev.installed(editor.tree):
        if [pin.name for pin in pins] != ["eth0"]:
            editor.warn(f"the guest has no udev, so {', '.join(pin.name for pin in pins)} cannot be pinned")
        return {}
    if udev.reads_links(editor.tree):
        return _links(editor, pins)
    return _rules(editor, pins)


def _links(editor: Editor, pins: Sequence[Pin]) -> dict[str, bytes]:
    if len(pins) > 1 and any(KERNEL_NAME.fullmatch(pin.name) for pin in pins):
        editor.warn("names like eth0 and eth1 are also the kernel's own: with several cards udev may fail to exchange them")
    found = {}
    for pin in pins:
        match = BY_MAC.format(mac=pin.mac) if pin.mac else ANY_CARD
        path = f"{udev.LINKS}/10-imgtool-{pin.name}.link"
        data = LINK.format(match=match, name=pin.name).encode()
        editor.write(path, data, what=f"{pin.name} pinned to {pin.mac or 'the network card'}", why=WHY)
        found[path.lstrip("/")] = data
    return found


def _rules(editor: Editor, pins: Sequence[Pin]) -> dict[str, bytes]:
    """One file for all: a card's old rule goes, and so does one that gives its name to another card."""
    old = text(editor.tree, RULES)
    lines = [line for line in old.split("\n") if not _conflicts(line, pins)]
    content = "\n".join(lines)
    content += "\n" if content and not content.endswith("\n") else ""
    have = set(lines)
    for pin in pins:
        rule = RULE.format(mac=pin.mac, name=pin.name) if pin.mac else ANY_RULE.format(name=pin.name)
        if not any(_same(line, pin) for line in have):
            content += rule
    listed = ", ".join(f"{pin.name} to {pin.mac or 'the network card'}" for pin in pins)
    editor.write(RULES, encoded(content), what=f"pinned {listed}", why=WHY)
    return {RULES.lstrip("/"): encoded(content)}


def _same(line: str, pin: Pin) -> bool:
    """The rule that this pin would make, in any wording."""
    if pin.mac is None:
        return line + "\n" == ANY_RULE.format(name=pin.name)
    address, name = udev.ADDRESS.search(line), udev.NAME.search(line)
    return bool(address and name and not line.lstrip().startswith("#") and address[1].lower() == pin.mac and name[1] == pin.name)


def _conflicts(line: str, pins: Sequence[Pin]) -> bool:
    address, name = udev.ADDRESS.search(line), udev.NAME.search(line)
    if not name or line.lstrip().startswith("#") or any(_same(line, pin) for pin in pins):
        return False
    return any(name[1] == pin.name or (address and address[1].lower() == pin.mac) for pin in pins)
