"""Names of disks become UUIDs, and everything else of a file stays as it was, whatever stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.guests.linux.bootloaders import install_devices
from imgtool.guests.linux.devices import CRYPTTAB, FSTAB, Names, in_arguments, in_lines, stabilize
from imgtool.guests.linux.edit import Editor
from imgtool.model.guest import FileSystem, Platform
from tests.folder_tree import FolderTree

ONE = tuple(FileSystem(device=f"/dev/sda{part}", type="ext4", uuid=f"u{part}", partuuid=f"p{part}") for part in (1, 2, 5))
TWO = (*ONE, FileSystem(device="/dev/sdb", type="xfs", uuid="whole"), FileSystem(device="/dev/sdc1", type="xfs", uuid="c1"))


@pytest.mark.parametrize(("name", "stable"), [
    ("/dev/sda1", "UUID=u1"), ("/dev/vda5", "UUID=u5"), ("/dev/hda2", "UUID=u2"), ("/dev/xvda1", "UUID=u1"),
    ("/dev/nvme0n1p2", "UUID=u2"), ("/dev/cciss/c0d0p1", "UUID=u1"), ("/dev/mmcblk0p5", "UUID=u5"),
    ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1", "UUID=u1"), ("/dev/disk/by-id/ata-VMware_Virtual-part2", "UUID=u2"),
    ("/dev/disk/by-id/virtio-abc-part5", "UUID=u5"),
    ("/dev/sda3", None), ("/dev/sdb1", None), ("/dev/sda", None), ("/dev/mapper/vg-root", None), ("/dev/vg/root", None),
    ("/dev/disk/by-uuid/u1", None), ("/dev/disk/by-id/dm-name-vg-root", None), ("/dev/md0", None), ("UUID=u1", None),
    ("/dev/sr0", None), ("/dev/sdaa", None), ("/dev/sda1x", None),
])
def test_one_disk(name: str, stable: str | None) -> None:
    assert Names(ONE).stable(name) == stable


@pytest.mark.parametrize(("name", "stable"), [
    ("/dev/sda1", "UUID=u1"), ("/dev/sdb", "UUID=whole"), ("/dev/vdc1", "UUID=c1"), ("/dev/nvme0n3p1", "UUID=c1"),
    ("/dev/nvme2n1p1", "UUID=c1"), ("/dev/sdd1", None), ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1", None),
])
def test_several_disks_are_taken_in_order_and_said(name: str, stable: str | None) -> None:
    names = Names(TWO)
    assert names.stable(name) == stable
    assert (name in names.guessed, name in names.unknown) == (stable is not None, stable is None)


def test_a_kernel_without_initramfs_knows_partitions_only() -> None:
    assert in_arguments(Names(ONE, bare=True), " root=/dev/sda1 ro") == " root=PARTUUID=p1 ro"
    assert Names(ONE, bare=True).stable("/dev/sda1") == "UUID=u1"


@pytest.mark.parametrize(("old", "new"), [
    (" root=/dev/sda1 ro resume=/dev/vda2", " root=UUID=u1 ro resume=UUID=u2"),
    ('"quiet resume=/dev/sda5"', '"quiet resume=UUID=u5"'),
    ("cryptdevice=/dev/sda2:data:allow-discards", "cryptdevice=UUID=u2:data:allow-discards"),
    ("root=/dev/mapper/x", "root=/dev/mapper/x"), ("myroot=/dev/sda1", "myroot=/dev/sda1"), ("root=/dev/sda9", "root=/dev/sda9"),
    ("cryptdevice=/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part2:data", "cryptdevice=UUID=u2:data"),
    ("rd.luks.device=/dev/sda1 boot=/dev/sda2", "rd.luks.device=UUID=u1 boot=UUID=u2"),
])
def test_kernel_arguments(old: str, new: str) -> None:
    assert in_arguments(Names(ONE), old) == new


def test_crypttab() -> None:
    old = "# /dev/sda1 comment\ndata  /dev/sda2\tnone luks\nother UUID=x none\n"
    assert in_lines(CRYPTTAB, Names(ONE), old) == "# /dev/sda1 comment\ndata  UUID=u2\tnone luks\nother UUID=x none\n"


WORDS = ["/dev/sda1", "/dev/sdb9", "UUID=z", "none", "swap", "defaults", "/", "# /dev/sda1",
         "root=/dev/sda1", "\x85", "\u2028", "\r"]
GAPS = [" ", "\t", "  ", "#"]
LINE = st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(GAPS), st.text(max_size=9)), max_size=9).map("".join)


@given(st.lists(LINE, max_size=8).map("\n".join))
def test_fstab_keeps_comments_spacing_and_other_lines(content: str) -> None:
    new = in_lines(FSTAB, Names(ONE), content)
    for old_line, new_line in zip(content.split("\n"), new.split("\n"), strict=True):
        if not old_line.lstrip(" \t").startswith(("/dev/sda1", "/dev/sda2", "/dev/sda5")):
            assert new_line == old_line
        assert new_line.replace("UUID=u1", "/dev/sda1", 1) in (old_line, old_line.replace("UUID=u1", "/dev/sda1", 1))
    assert in_lines(FSTAB, Names(ONE), new) == new


DEBCONF = """Name: grub-efi/install_devices
Template: grub-efi/install_devices
Value: {esp}
Owners: grub-common

Name: grub-pc/install_devices
Template: grub-pc/install_devices
Value: {disks}
Flags: seen

Name: grub-pc/other
Value: /dev/sda
"""


@pytest.mark.parametrize(("filesystems", "platform", "bus", "old", "new"), [
    (ONE, Platform.KVM, "virtio", "/dev/disk/by-id/ata-x", "/dev/vda"), (ONE, Platform.ESXI, "pvscsi", "/dev/vda", "/dev/sda"),
    (ONE, Platform.ESXI, "nvme", "/dev/sda", "/dev/nvme0n1"), (ONE, Platform.KVM, "virtio", "/dev/sda2", "/dev/disk/by-uuid/u2"),
    (TWO, Platform.KVM, "virtio", "/dev/sda, /dev/sdc", "/dev/vda, /dev/vdc"),
    (TWO, Platform.KVM, "virtio", "/dev/disk/by-id/ata-x, /dev/sda", "/dev/vda"),
    (TWO, Platform.KVM, "virtio", "/dev/disk/by-id/ata-x", ""), (ONE, Platform.METAL, "sata", "/dev/vda", ""),
    (ONE, Platform.KVM, "virtio", "", ""), (ONE, Platform.KVM, "virtio", "/dev/mapper/mpatha", "/dev/mapper/mpatha"),
])
def test_where_updates_install_grub(filesystems: tuple[FileSystem, ...], platform: Platform, bus: str, old: str, new: str,
                                    tmp_path: Path) -> None:
    tree = FolderTree(tmp_path)
    tree.write(install_devices.DEBCONF, DEBCONF.format(esp="/dev/disk/by-id/ata-x-part1", disks=old).encode())
    tree.write(install_devices.SUSE, f"{old}\ngeneric_mbr\n".encode())
    editor = Editor(tree=tree)
    install_devices.fix(editor, Names(filesystems), platform, bus)
    esp = "/dev/disk/by-uuid/u1" if filesystems is ONE else ""
    emptied = bool(old) and not new
    expected = DEBCONF.format(esp=esp, disks=new) + ("\n" + install_devices.EMPTY_BLOCK if emptied else "")
    assert tree.read(install_devices.DEBCONF).decode() == expected
    assert (install_devices.LATER in editor.warnings) is emptied
    if ", " not in old:
        assert tree.read(install_devices.SUSE).decode() == f"{new}\ngeneric_mbr\n".removeprefix("\n" if emptied else "")
    count = len(editor.changes)
    install_devices.fix(editor, Names(filesystems), platform, bus)
    assert len(editor.changes) == count


def test_an_answer_that_is_there_is_changed(tmp_path: Path) -> None:
    tree = FolderTree(tmp_path)
    answer = "Name: grub-pc/install_devices_empty\nTemplate: x\nValue: {}\nFlags: seen\n"
    tree.write(install_devices.DEBCONF, (DEBCONF.format(esp="", disks="/dev/sda") + "\n" + answer.format("false")).encode())
    install_devices.fix(Editor(tree=tree), Names(ONE), Platform.METAL, "sata")
    expected = DEBCONF.format(esp="", disks="") + "\n" + answer.format("true")
    assert tree.read(install_devices.DEBCONF).decode() == expected


@pytest.mark.parametrize("content", ["Name: grub-pc/install_devices\n" * 200_000, "Name: grub-pc/install_devices\n\n" * 200_000,
                                     "Name: grub-pc/install_devices\nValue: " + "/dev/sda, " * 200_000])
def test_an_endless_database_takes_no_endless_time(content: str, tmp_path: Path) -> None:
    tree = FolderTree(tmp_path)
    tree.write(install_devices.DEBCONF, content.encode())
    install_devices.fix(Editor(tree=tree), Names(ONE), Platform.KVM, "virtio")
    assert tree.read(install_devices.DEBCONF).decode() == content.replace("/dev/sda, " * 200_000, "/dev/vda")


@pytest.mark.parametrize(("line", "said"), [
    ('filter = [ "a|/dev/sda.*|", "r|.*|" ]', True), ('\tglobal_filter=["a|^/dev/disk/by-id/x|"]', True),
    ('# filter = [ "a|/dev/sda.*|" ]', False), ('filter = [ "a|.*|" ]', False), ('filter = [ "r|/dev/sda.*|" ]', False)])
def test_a_filter_of_lvm_that_names_disks_is_said(line: str, said: bool, tmp_path: Path) -> None:
    tree = FolderTree(tmp_path)
    tree.write("/etc/lvm/lvm.conf", f"devices {{\n{line}\n}}\n".encode())
    editor = Editor(tree=tree)
    stabilize(editor, Names(ONE))
    assert bool(editor.warnings) is said


@given(st.text(max_size=200))
def test_arguments_are_changed_once(content: str) -> None:
    new = in_arguments(Names(ONE), content + " root=/dev/sda1 ")
    assert new.endswith("root=UUID=u1 ")
    assert in_arguments(Names(ONE), new) == new


def test_disks_that_are_told_by_their_order_are_said(tmp_path: Path) -> None:
    """Of a single disk there is no other."""
    made = FolderTree(tmp_path)
    made.write("/etc/fstab", b"/dev/sdb1 / ext4 defaults 0 1\n")
    both = (FileSystem(device="/dev/sda1", type="ext4", uuid="aa"), FileSystem(device="/dev/sdb1", type="ext4", uuid="bb"))
    editor = Editor(tree=made)
    stabilize(editor, Names(both))
    assert made.read("/etc/fstab").startswith(b"UUID=bb / ")
    assert editor.warnings == ["disks were matched by their order, please check: /dev/sdb1"]
    made.write("/etc/fstab", b"/dev/sda1 / ext4 defaults 0 1\n")
    editor = Editor(tree=made)
    stabilize(editor, Names(both[:1]))
    assert editor.warnings == []
