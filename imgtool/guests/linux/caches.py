"""What a guest remembers of its old disks, and would believe."""

from __future__ import annotations

from imgtool.guests.linux.edit import Editor

REMEMBERED = ("/etc/lvm/devices/system.devices", "/etc/lvm/cache/.cache", "/etc/blkid/blkid.tab", "/etc/blkid.tab",
              "/run/blkid/blkid.tab")
"""LVM uses the disks of ``system.devices`` only (lvmdevices(8)); without the file it looks at all."""
IN_INITRAMFS = "etc/lvm/devices/system.devices"
LVM_LOCAL = "etc/lvm/lvmlocal.conf"
NO_DEVICES_FILE = b"devices {\n\tuse_devicesfile = 0\n}\n"
"""A file cannot be taken out of an initramfs; LVM can be told to leave it (lvm.conf(5))."""


def forget(editor: Editor) -> None:
    """Removes them; each is made again when it is needed."""
    for path in REMEMBERED:
        editor.remove(path, what="list of the old disks removed", why="LVM and blkid would look for these only")
