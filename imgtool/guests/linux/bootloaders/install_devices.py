"""Where the guest's own updates install GRUB: disks by their old names, which the next update of GRUB would not find, and fail.

Debian keeps them in debconf's database (``grub-pc/install_devices``, and ``grub-efi/install_devices`` for the ESP), SUSE in
``/etc/default/grub_installdevice``. A partition gets its UUID. A whole disk has none: the name that it will have on the target,
where that is sure, else no name, and GRUB's boot sector stays as it is until somebody says where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from imgtool.guests.linux.devices import UNSTABLE, Names, place
from imgtool.guests.linux.edit import Editor, text
from imgtool.model.guest import Platform

DEBCONF = "/var/cache/debconf/config.dat"
SUSE = "/etc/default/grub_installdevice"
BLOCK = re.compile(r"^Name: (grub-(?:pc|efi)/install_devices)$(?:\n(?!\n)[^\n]*)*?\nValue:[ ]?([^\n]*)$", re.MULTILINE)
EMPTY = re.compile(r"^(Name: grub-pc/install_devices_empty$(?:\n(?!\n)[^\n]*)*?\nValue:)[^\n]*$", re.MULTILINE)
NAMED = re.compile(r"^(?:Name: grub-pc/install_devices$(?:\n(?!\n)[^\n]*)*?\nValue:[ ]?)?/dev/", re.MULTILINE)
"""A disk is named, in either file."""
EMPTY_BLOCK = ("Name: grub-pc/install_devices_empty\nTemplate: grub-pc/install_devices_empty\nValue: true\nOwners: grub-pc\n"
               "Flags: seen\n\n")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PREFIXES = {"virtio": "vd", "nvme": "nvme"}
"""Bus → how Linux names its disks; all others are SCSI's: ``sd``."""
WHAT, WHY = "where updates install GRUB", "the old disk's name would make the next update of GRUB fail"
LATER = "updates will not renew GRUB's boot sector: name the disk there, by dpkg-reconfigure grub-pc, or in grub_installdevice"


def fix(editor: Editor, names: Names, platform: Platform, bus: str | None) -> None:
    """``bus``: which disks the guest will most likely have."""
    new = partial(_new, names, platform, PREFIXES.get(bus or "", "sd"))
    for path, edit in ((DEBCONF, _debconf), (SUSE, _suse)):
        old = text(editor.tree, path)
        changed = editor.change(path, partial(edit, new), what=WHAT, why=WHY)
        if changed and NAMED.search(old) and not NAMED.search(text(editor.tree, path)):
            editor.warn(LATER)


def _new(names: Names, platform: Platform, prefix: str, name: str) -> str | None:
    """The name on the target; None if nobody can say. On metal other disks may be there: ``/dev/sda`` can be anybody's."""
    matched = UNSTABLE.fullmatch(name)
    if matched is None:
        return name
    if node := names.node(name):
        return node
    number, part = place(matched)
    if number is None and names.disks == 1:
        number = 0
    if number is None or part or number >= len(LETTERS) or platform is Platform.METAL:
        return None
    return f"/dev/nvme{number}n1" if prefix == "nvme" else f"/dev/{prefix}{LETTERS[number]}"


def _debconf(new: Callable[[str], str | None], content: str) -> str:
    """Blocks of lines, an empty line between them (debconf-devel(7)); a value of several words has commas."""
    emptied = False

    def changed(found: re.Match[str]) -> str:
        nonlocal emptied
        old = [word for word in re.split(r",\s*", found[2]) if word]
        fresh = list(dict.fromkeys(name for word in old if (name := new(word))))
        emptied = emptied or (bool(old) and not fresh and found[1] == "grub-pc/install_devices")
        return found[0].removesuffix(found[2]) + ", ".join(fresh)

    content = BLOCK.sub(changed, content)
    if not emptied:
        return content
    if EMPTY.search(content):
        return EMPTY.sub(r"\1 true", content)
    return content.rstrip("\n") + "\n\n" + EMPTY_BLOCK


def _suse(new: Callable[[str], str | None], content: str) -> str:
    lines = [new(line) if line.startswith("/dev/") else line for line in content.split("\n")]
    return "\n".join(line for line in lines if line is not None)
