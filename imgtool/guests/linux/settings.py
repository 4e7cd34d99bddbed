"""Files within an initramfs that have to change with those of the guest: names of disks, names of cards, LVM's list of disks."""

from __future__ import annotations

from collections.abc import Mapping

from imgtool.guests.linux import caches, devices
from imgtool.guests.linux.devices import Names
from imgtool.guests.linux.initramfs import Initramfs


def changed(old: Initramfs, names: Names, pins: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name in the initramfs → new content. ``pins``: what gives network cards their names."""
    found = dict(pins)
    for name, data in old.texts.items():
        edit = devices.settings_editor(names, name)
        if edit is not None:
            found[name] = edit(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if caches.IN_INITRAMFS in old.texts and caches.LVM_LOCAL not in old.texts:
        found[caches.LVM_LOCAL] = caches.NO_DEVICES_FILE
    return found
