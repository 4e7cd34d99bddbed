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
VALUE = re.compile(r"^Value:[ ]?(.*)$", re.MULTILINE)
DISKS, ESPS, NOWHERE = "grub-pc/install_devices", "grub-efi/install_devices", "grub-pc/install_devices_empty"
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
    for path, edit, named in ((DEBCONF, _debconf, _disks), (SUSE, _suse, _lines)):
        old = text(editor.tree, path)
        changed = editor.change(path, partial(edit, new), what=WHAT, why=WHY)
        if changed and named(old) and not named(text(editor.tree, path)):
            editor.warn(LATER)


def _new(names: Names, platform: Platform, prefix: str, name: str) -> str | None:
    """The name on the target; None if nobody can say. On metal other disks may be there: ``/dev/sda`` can be anybody's."""
    matched = UNSTABLE.fullmatch(name)
    if matched is None:
        return name
    if node := names.node(name):
        return node
    number, part = place(matched, names.disks)
    if number is None or part or number >= len(LETTERS) or platform is Platform.METAL:
        return None
    return f"/dev/nvme{number}n1" if prefix == "nvme" else f"/dev/{prefix}{LETTERS[number]}"


def _debconf(new: Callable[[str], str | None], content: str) -> str:
    """Blocks of lines, an empty line between them (debconf-devel(7)); a value of several words has commas."""

    def changed(found: re.Match[str]) -> str:
        fresh = dict.fromkeys(name for word in _words(found[1]) if (name := new(word)))
        return found[0].removesuffix(found[1]) + ", ".join(fresh)

    blocks = content.split("\n\n")
    fresh = [VALUE.sub(changed, block, count=1) if _name(block) in (DISKS, ESPS) else block for block in blocks]
    if not _disks(content) or _disks("\n\n".join(fresh)):
        return "\n\n".join(fresh)
    if NOWHERE in map(_name, fresh):
        return "\n\n".join(VALUE.sub("Value: true", block, count=1) if _name(block) == NOWHERE else block for block in fresh)
    return "\n\n".join(fresh).rstrip("\n") + "\n\n" + EMPTY_BLOCK


def _name(block: str) -> str:
    first = block.lstrip("\n").partition("\n")[0]
    return first.removeprefix("Name: ") if first.startswith("Name: ") else ""


def _words(value: str) -> list[str]:
    return [word for word in re.split(r",\s*", value) if word]


def _disks(content: str) -> bool:
    """Debconf names a disk."""
    values = (VALUE.search(block) for block in content.split("\n\n") if _name(block) == DISKS)
    return any(found and _words(found[1]) for found in values)


def _lines(content: str) -> bool:
    return any(line.startswith("/dev/") for line in content.split("\n"))


def _suse(new: Callable[[str], str | None], content: str) -> str:
    lines = [new(line) if line.startswith("/dev/") else line for line in content.split("\n")]
    return "\n".join(line for line in lines if line is not None)
