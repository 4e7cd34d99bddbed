"""Names of disks that other hardware changes (``/dev/sda1``, ``/dev/disk/by-path/…``) become UUIDs.

Only names that stand for a place on a bus are touched: LVM, MD, UUIDs and labels stay as they are. Comments and spacing stay too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from imgtool.guests.linux.bootloaders import command_lines
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree
from imgtool.model.guest import DeviceReference, FileSystem

UNSTABLE = re.compile(
    r"/dev/(?:(?P<letters>(?:s|h|v|xv)d)(?P<disk>[a-z]{1,2})(?P<part>\d{0,3})"
    r"|(?P<nvme>nvme)(?P<controller>\d{1,3})n(?P<space>\d{1,3})(?:p(?P<nvmepart>\d{1,3}))?"
    r"|(?P<array>cciss/c\d{1,2}|ida/c\d{1,2}|mmcblk)d?(?P<number>\d{1,3})(?:p(?P<arraypart>\d{1,3}))?"
    r"|disk/by-(?:path|id)/(?P<by>[^\s,;\"']+?)(?:-part(?P<bypart>\d{1,3}))?)")
STABLE_IDS = ("dm-", "md-uuid-", "md-name-", "lvm-pv-uuid-")
"""Of ``/dev/disk/by-id``: those do not come from the hardware."""
ARGUMENTS = re.compile(
    r"(?P<key>(?:^|(?<=[\s\"']))(?:root|real_root|resume|noresume|boot|swap|cryptdevice|cryptroot|mount\.usr|rd\.luks\.device)=)"
    r"(?P<name>/dev/disk/by-(?:path|id)/[^\s\"',]*?-part\d+(?![^\s:\"',])|/dev/[^\s:\"',]+)")
"""``cryptdevice`` has more after a colon; there are colons in ``by-path`` names too."""
FSTAB = re.compile(r"^([ \t]*)(/dev/\S+)", re.MULTILINE)
CRYPTTAB = re.compile(r"^([ \t]*[^\s#]\S*[ \t]+)(/dev/\S+)", re.MULTILINE)
HIBERNATE = re.compile(r"^([ \t]*resume device[ \t]*=[ \t]*)(/dev/\S+)", re.MULTILINE)
RESUME = re.compile(r"^([ \t]*RESUME=[\"']?)(/dev/[^\s\"']+)", re.MULTILINE)
UNIT = re.compile(r"^([ \t]*What[ \t]*=[ \t]*)(/dev/\S+)", re.MULTILINE)
"""systemd.mount(5), systemd.swap(5): a path only."""
KDUMP = re.compile(r"^([ \t]*(?:ext[234]|xfs|btrfs)[ \t]+)(/dev/\S+)", re.MULTILINE)
EXTLINUX_ROOT = re.compile(r"^([ \t]*root=[\"']?)(/dev/[^\s\"']+)", re.MULTILINE)
FILES = (("/etc/fstab", FSTAB, "fstab"), ("/etc/crypttab", CRYPTTAB, "crypttab"),
         ("/etc/systemd/system/*.mount", UNIT, "mount unit"), ("/etc/systemd/system/*.swap", UNIT, "swap unit"),
         ("/etc/kdump.conf", KDUMP, "kdump"), ("/etc/update-extlinux.conf", EXTLINUX_ROOT, "kernel command line"),
         ("/etc/initramfs-tools/conf.d/*", RESUME, "resume"), ("/etc/uswsusp.conf", HIBERNATE, "resume"))
MAPS = ("/boot/grub/device.map", "/boot/grub2/device.map")
LVM_CONFIGS = ("/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf")
LVM_FILTER = re.compile(r"^[ \t]*(?:global_)?filter[ \t]*=[ \t]*\[[^\]\n]*\"a.[^\"\n]*/dev/(?:[shv]d|xvd|nvme|disk/by-)",
                        re.MULTILINE)
WHY = "other hardware gives the disk another name"


@dataclass
class Names:
    """The guest's names of disks, told by ``filesystems``: the appliance's names, in the machine's order of disks."""

    filesystems: Iterable[FileSystem]
    bare: bool = False
    """There is no initramfs: the kernel itself looks for its root, and knows no UUIDs of file systems."""
    unknown: set[str] = field(default_factory=set)
    guessed: set[str] = field(default_factory=set)
    """Names that stand for a disk by its number among several."""

    def __post_init__(self) -> None:
        self._found = {one.device: one for one in self.filesystems}
        disks = {re.sub(r"\d+$", "", device) for device in self._found if re.fullmatch(r"/dev/[sv]d[a-z]+\d*", device)}
        self._disks = sorted(disks, key=lambda disk: (len(disk), disk))

    def stable(self, name: str, *, kernel: bool = False) -> str | None:
        """``UUID=…`` for a name that other hardware changes; None if it is stable or unknown (which is remembered).

        ``kernel``: it stands in the kernel's arguments.
        """
        matched = unstable(name)
        if matched is None:
            return None
        volume = self._volume(matched)
        tag, value = ("PARTUUID", volume and volume.partuuid) if kernel and self.bare else ("UUID", volume and volume.uuid)
        if not value:
            self.unknown.add(name)
            return None
        if len(self._disks) > 1:
            self.guessed.add(name)
        return f"{tag}={value}"

    def node(self, name: str) -> str | None:
        """``/dev/disk/by-uuid/…``, where only a path will do; None as in ``stable``, but nothing is remembered."""
        matched = unstable(name)
        volume = self._volume(matched) if matched else None
        return f"/dev/disk/by-uuid/{volume.uuid}" if volume and volume.uuid else None

    @property
    def disks(self) -> int:
        """How many the machine has, of those with a file system."""
        return len(self._disks)

    def _volume(self, matched: re.Match[str]) -> FileSystem | None:
        disk, part = place(matched, len(self._disks))
        if disk is None or disk >= len(self._disks):
            return None
        return self._found.get(f"{self._disks[disk]}{part or ''}")


def unstable(name: str) -> re.Match[str] | None:
    """A name that comes from the hardware, taken apart; None for all others."""
    matched = UNSTABLE.fullmatch(name)
    return None if matched is None or (matched["by"] or "").startswith(STABLE_IDS) else matched


def place(matched: re.Match[str], disks: int) -> tuple[int | None, str]:
    """(number of the disk, partition) that a name stands for; None: it does not say which of several disks."""
    if matched["letters"]:
        number = 0
        for letter in matched["disk"]:
            number = number * 26 + ord(letter) - ord("a") + 1
        return number - 1, matched["part"]
    if matched["nvme"]:
        return max(int(matched["controller"]), int(matched["space"]) - 1), matched["nvmepart"] or ""
    if matched["array"]:
        return int(matched["number"]), matched["arraypart"] or ""
    return 0 if disks == 1 else None, matched["bypart"] or ""


def in_lines(pattern: re.Pattern[str], names: Names, content: str) -> str:
    """A table like fstab: the first group of a line stays, the second is a name."""
    stable = names.node if pattern is UNIT else names.stable
    return pattern.sub(lambda found: found[1] + (stable(found[2]) or found[2]), content)


def in_arguments(names: Names, arguments: str) -> str:
    """The kernel's arguments: ``root=/dev/sda1`` and those like it."""

    def renamed(found: re.Match[str]) -> str:
        return str(found["key"]) + (names.stable(found["name"], kernel=True) or found["name"])

    return ARGUMENTS.sub(renamed, arguments)


def settings_editor(names: Names, name: str) -> Callable[[str], str] | None:
    """How a file within an initramfs is changed; None if it names no disks."""
    if name.startswith("conf/conf.d/"):
        return partial(in_lines, RESUME, names)
    if name in ("etc/crypttab", "cryptroot/crypttab"):
        return partial(in_lines, CRYPTTAB, names)
    if name == "etc/fstab":
        return partial(in_lines, FSTAB, names)
    return partial(in_arguments, names) if name.startswith("etc/cmdline.d/") else None


def references(tree: Tree, filesystems: Iterable[FileSystem]) -> Iterator[DeviceReference]:
    """For ``inspect``: every place that names a disk in a way that other hardware changes."""
    names = Names(filesystems)
    for path, pattern, what in _tables(tree):
        for found in pattern.finditer(text(tree, path)):
            yield from _reference(names, path, what, found[2])
    for path, arguments in command_lines.read(tree):
        for found in ARGUMENTS.finditer(arguments):
            what = "resume" if found["key"].endswith("resume=") else "kernel command line"
            yield from _reference(names, path, what, found["name"])


def _reference(names: Names, path: str, what: str, name: str) -> Iterator[DeviceReference]:
    if unstable(name):
        yield DeviceReference(path=path, what=what, name=name, stable=names.stable(name))


def _tables(tree: Tree) -> Iterator[tuple[str, re.Pattern[str], str]]:
    for pattern, line, what in FILES:
        yield from ((path, line, what) for path in tree.glob(pattern) if tree.is_file(path))


def stabilize(editor: Editor, names: Names) -> None:
    """Writes UUIDs wherever a disk is named by its place, and warns of names that nobody knows."""
    for path, pattern, what in list(_tables(editor.tree)):
        editor.change(path, partial(in_lines, pattern, names), what=f"{what}: disks by UUID", why=WHY)
    command_lines.change(editor, partial(in_arguments, names), what="kernel command line: disks by UUID", why=WHY)
    editor.change("/etc/default/grub", _with_uuids, what="GRUB writes UUIDs again", why=WHY)
    for path in MAPS:
        editor.remove(path, what="GRUB's map of disks removed", why="it names the old disks; GRUB looks for itself")
    for name in sorted(names.unknown):
        editor.warn(f"{name} is named in the guest's configuration, but no stable name of it is known: it stays as it is")
    for path in LVM_CONFIGS:
        if LVM_FILTER.search(text(editor.tree, path)):
            editor.warn(f"{path} has a filter for LVM that names disks: on other hardware LVM may not find its volumes")
    if names.guessed:
        editor.warn(f"disks were matched by their order, please check: {', '.join(sorted(names.guessed))}")


def _with_uuids(content: str) -> str:
    return re.sub(r"(?m)^([ \t]*)(GRUB_DISABLE_(?:LINUX_UUID|UUID)=[\"']?true)", r"\1#\2", content)
