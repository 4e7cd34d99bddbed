"""Menus of boot loaders: what boots when nobody chooses, how that is changed, and loaders on the ESP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.errors import DamagedError, RefusedError
from imgtool.guests.linux import adapt, extend, inspect, kernels
from imgtool.guests.linux.bootloaders import bls, efi, extlinux, grub2, grub_legacy, grubenv, systemd_boot
from imgtool.guests.linux.bootloaders.find import find
from imgtool.guests.linux.bootloaders.menu import Entry
from imgtool.guests.linux.edit import Editor
from imgtool.model.guest import AdaptRequest, Platform
from tests.folder_tree import FolderTree
from tests.phony import DISK, kernel, tree

GRUB = """set default="{default}"
menuentry 'Linux' --class gnu-linux $menuentry_id_option 'simple' {{
\tlinux /boot/a root=/dev/sda1
\tinitrd /boot/ia
}}
submenu 'Advanced' $menuentry_id_option 'advanced' {{
\tmenuentry 'Linux A' --class x $menuentry_id_option 'a' {{
\t\tlinux\t/boot/a root=/dev/sda1 single
\t\tinitrd /boot/ucode.img /boot/ia
\t}}
\tmenuentry "Linux B" --id b {{
\t\tlinux16 /boot/b
\t}}
}}
menuentry 'Memory test' {{
\tlinux16 /boot/memtest
}}
"""


@pytest.fixture
def guest(tmp_path: Path) -> FolderTree:
    made = FolderTree(tmp_path)
    for name in ("a", "b", "ia", "ucode.img", "memtest"):
        made.write(f"/boot/{name}", b"x")
    return made


@pytest.mark.parametrize(("default", "title"), [
    ("0", "Linux"), ("1", "Linux A"), ("1>1", "Linux B"), ("Advanced>Linux B", "Linux B"), ("advanced>b", "Linux B"),
    ("simple", "Linux"),    ("2", "Memory test"), ("nothing", None), ("1>7", None),
])
def test_grub2_default(guest: FolderTree, default: str, title: str | None) -> None:
    guest.write("/boot/grub/grub.cfg", GRUB.format(default=default).encode())
    menu = grub2.read(guest)
    assert menu
    assert [entry.id for entry in menu.entries] == ["simple", "advanced>a", "advanced>b", "Memory test"]
    assert menu.entries[1].initrds == ("/boot/ucode.img", "/boot/ia")
    assert (menu.entries[menu.default].title if menu.default is not None else None) == title


def test_grub2_saved_default(guest: FolderTree) -> None:
    guest.write("/boot/grub/grub.cfg", GRUB.format(default="${saved_entry}").encode())
    guest.write("/boot/grub/grubenv", b"# GRUB Environment Block\nsaved_entry=advanced>b\nother=1\n" + b"#" * 900)
    menu = grub2.read(guest)
    assert menu
    assert menu.default == 2
    editor = Editor(tree=guest)
    grub2.choose(editor, menu, menu.entries[0], why="test")
    block = guest.read("/boot/grub/grubenv")
    assert len(block) == 1024
    assert grubenv.read(guest) == {"saved_entry": "simple", "other": "1"}
    assert grub2.read(guest).default == 0  # type: ignore[union-attr]


def test_grub2_choose_writes_what_the_next_menu_is_made_from_too(guest: FolderTree) -> None:
    guest.write("/boot/grub/grub.cfg", GRUB.format(default="0").encode())
    guest.write("/etc/default/grub", b"# mine\nGRUB_DEFAULT=0\nGRUB_TIMEOUT=5\n")
    menu = grub2.read(guest)
    assert menu
    grub2.choose(Editor(tree=guest), menu, menu.entries[2], why="test")
    assert grub2.read(guest).default == 2  # type: ignore[union-attr]
    assert guest.read("/etc/default/grub") == b'# mine\nGRUB_DEFAULT="advanced>b"\nGRUB_TIMEOUT=5\n'


def test_grub2_choose_where_nothing_was_chosen(guest: FolderTree) -> None:
    """GRUB takes the first entry then."""
    guest.write("/boot/grub/grub.cfg", GRUB.partition("\n")[2].format().encode())
    guest.write("/etc/default/grub", b"GRUB_TIMEOUT=5")
    menu = grub2.read(guest)
    assert menu
    assert menu.default == 0
    grub2.choose(Editor(tree=guest), menu, menu.entries[2], why="test")
    assert grub2.read(guest).default == 2  # type: ignore[union-attr]
    assert guest.read("/boot/grub/grub.cfg").startswith(b'set default="advanced>b"\nmenuentry')
    assert guest.read("/etc/default/grub") == b'GRUB_TIMEOUT=5\nGRUB_DEFAULT="advanced>b"\n'


def test_bls_is_sorted_as_versions(guest: FolderTree) -> None:
    guest.write("/boot/grub2/grub.cfg", b"insmod blscfg\nblscfg\n")
    for version in ("5.9.1-1", "5.14.0-70", "5.14.0-427", "0-rescue-abc"):
        guest.write(f"/boot/loader/entries/id-{version}.conf",
                    f"title T {version}\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /i-{version} $tuned\n".encode())
    menu = grub2.read(guest)
    assert menu
    assert [entry.title.split()[1] for entry in menu.entries] == ["5.14.0-427", "5.14.0-70", "5.9.1-1", "0-rescue-abc"]
    assert menu.default == 0
    guest.write("/boot/grub2/grubenv", b"saved_entry=id-5.9.1-1\n")
    assert grub2.read(guest).default == 2  # type: ignore[union-attr]
    assert menu.entries[0].initrds == ("/i-5.14.0-427",)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_versions_can_always_be_compared(words: list[str]) -> None:
    assert sorted(map(bls.version_key, words)) == sorted(map(bls.version_key, reversed(words)))


def test_grub_legacy(guest: FolderTree) -> None:
    guest.write("/boot/grub/menu.lst", b"# c\ndefault\t1\ntitle Other\nrootnoverify (hd0,1)\n#title no\ntitle  Lin ux\n"
                                       b"kernel (hd0,0)/a root=/dev/hda1\ninitrd /ia\n")
    menu = grub_legacy.read(guest)
    assert menu
    found = [(entry.id, entry.title, entry.kernel, entry.initrds) for entry in menu.entries]
    assert found == [("1", "Lin ux", "/boot/a", ("/boot/ia",))]
    assert menu.default == 0
    guest.write("/boot/grub/menu.lst", guest.read("/boot/grub/menu.lst") + b"title C\nkernel /b\n")
    menu = grub_legacy.read(guest)
    assert menu
    grub_legacy.choose(Editor(tree=guest), menu, menu.entries[1], why="test")
    assert b"default\t2\n" in guest.read("/boot/grub/menu.lst")


def test_words_may_stand_apart_by_tabs(guest: FolderTree) -> None:
    """As people write entries by hand."""
    guest.write("/boot/loader/entries/x.conf", b"title\tX\nlinux\t/a\ninitrd \t/ia\noptions\tro quiet\n")
    guest.write("/boot/extlinux.conf", b"LABEL\tx\n\tLINUX\t/boot/a\n\tINITRD\t/boot/ia\n\tAPPEND\tro quiet\n")
    menu = extlinux.read(guest)
    assert menu
    for entry in (*bls.read(guest), *menu.entries):
        assert (entry.id, entry.kernel, entry.initrds, entry.options) == ("x", "/boot/a", ("/boot/ia",), "ro quiet")
    assert len(bls.read(guest)) == len(menu.entries) == 1


def test_extlinux(guest: FolderTree) -> None:
    guest.write("/boot/extlinux.conf", b"default two\nLABEL one\n  KERNEL a\n  APPEND initrd=ia root=x\nlabel two\n linux b\n")
    menu = extlinux.read(guest)
    assert menu
    assert [(entry.kernel, entry.initrds) for entry in menu.entries] == [("/boot/a", ("/boot/ia",)), ("/boot/b", ())]
    assert menu.default == 1
    extlinux.choose(Editor(tree=guest), menu, menu.entries[0], why="test")
    assert guest.read("/boot/extlinux.conf").startswith(b"default one\n")


def test_systemd_boot(guest: FolderTree) -> None:
    guest.write("/efi/EFI/systemd/systemd-bootx64.efi", b"x")
    for name in ("one", "two"):
        guest.write(f"/efi/loader/entries/{name}-1.conf", b"linux /a\n")
    guest.write("/efi/loader/loader.conf", b"timeout 3\ndefault one-*\n")
    menu = systemd_boot.read(guest)
    assert menu
    assert menu.entries[menu.default or 0].id == "one-1"
    systemd_boot.choose(Editor(tree=guest), menu, menu.entries[0], why="test")
    assert guest.read("/efi/loader/loader.conf") == b"timeout 3\ndefault two-1.conf\n"


PIECES = [*"{}'\"\n \t$>#0a", "menuentry ", "submenu ", "linux ", "set default=", "}\n", "{\n",
          "\nmenuentry 'a' {\n linux /a\n}\n"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_grub_cfg_is_read(content: str) -> None:
    class One:
        """A tree with one file."""

        def read(self, path: str, *, limit: int = 0) -> bytes:
            if path != grub2.CONFIGS[1]:
                raise FileNotFoundError(path)
            return content.encode()

        def is_file(self, path: str) -> bool:
            return path == grub2.CONFIGS[1]

        def is_dir(self, path: str) -> bool:
            return False

        def glob(self, pattern: str) -> list[str]:
            return []

    menu = grub2.read(One())  # type: ignore[arg-type]
    assert menu
    assert menu.default is None or menu.default < len(menu.entries)


@pytest.mark.parametrize(("files", "copied"), [
    ({"debian/shimx64.efi": b"s", "debian/grubx64.efi": b"g", "debian/grub.cfg": b"configfile x\n"},
     {"BOOTX64.EFI": b"s", "grubx64.efi": b"g", "grub.cfg": b"configfile x\n"}),
    ({"centos/shimx64.efi": b"s", "centos/grubx64.efi": b"g", "centos/grub.cfg": b"menuentry 'x' {\n}\n"},
     {"BOOTX64.EFI": b"s", "grubx64.efi": b"g", "grub.cfg": b"set prefix=($root)/EFI/centos\nconfigfile $prefix/grub.cfg\n"}),
    ({"GRUB/grubx64.efi": b"g"}, {"BOOTX64.EFI": b"g"}),
    ({"redhat/grub.efi": b"old", "redhat/grub.conf": b"title x\n"}, {"BOOTX64.EFI": b"old", "BOOTX64.conf": b"title x\n"}),
    ({"Linux/a-6.1.efi": b"uki"}, {}), ({"debian/shimx64.efi": b"s", "Boot/bootx64.efi": b"there"}, None),
])
def test_fallback_loader(tmp_path: Path, files: dict[str, bytes], copied: dict[str, bytes] | None) -> None:
    made = FolderTree(tmp_path)
    for name, data in files.items():
        made.write(f"/boot/efi/EFI/{name}", data)
    editor = Editor(tree=made)
    efi.add_fallback(editor, "x86_64")
    assert efi.has_fallback(made, "x86_64") is (copied != {})
    if copied is None:
        assert editor.changes == []
    else:
        assert {path.name: path.read_bytes() for path in tmp_path.glob("boot/efi/EFI/BOOT/*")} == copied
        assert bool(editor.warnings) == (copied == {})


SHIM = b"MZ shim " + "\\grubx64.efi".encode("utf-16-le") + b" end"
SUSE_SHIM = b"MZ shim " + "\\grub.efi".encode("utf-16-le") + b" end"


@pytest.mark.parametrize(("files", "changed"), [
    ({"BOOT/BOOTX64.EFI": SHIM, "BOOT/grubx64.efi": b"g"}, {}),
    ({"BOOT/BOOTX64.EFI": SHIM, "BOOT/fbx64.efi": b"f", "redhat/BOOTX64.CSV": b"c", "redhat/shimx64.efi": SHIM}, {}),
    ({"BOOT/BOOTX64.EFI": SUSE_SHIM, "BOOT/fallback.efi": b"f", "sles/boot.csv": b"c"}, {}),
    ({"BOOT/BOOTX64.EFI": b"MZ GRUB itself, which says grubx64.efi"}, {}),
    ({"BOOT/BOOTX64.EFI": SHIM, "debian/shimx64.efi": SHIM, "debian/grubx64.efi": b"g", "debian/mmx64.efi": b"m"},
     {"BOOT/grubx64.efi": b"g", "BOOT/mmx64.efi": b"m"}),
    ({"BOOT/BOOTX64.EFI": SUSE_SHIM, "sles/shim.efi": SUSE_SHIM, "sles/grub.efi": b"g", "sles/MokManager.efi": b"m"},
     {"BOOT/grub.efi": b"g", "BOOT/MokManager.efi": b"m"}),
    ({"BOOT/BOOTX64.EFI": SHIM, "BOOT/fbx64.efi": b"f", "fedora/shimx64.efi": SHIM, "fedora/grubx64.efi": b"g"},
     {"BOOT/grubx64.efi": b"g", "fedora/BOOTX64.CSV": "shimx64.efi,fedora,,fedora\n".encode("utf-16-le")}),
])
def test_a_fallback_loader_that_finds_nothing_is_completed(tmp_path: Path, files: dict[str, bytes],
                                                           changed: dict[str, bytes]) -> None:
    made = FolderTree(tmp_path)
    for name, data in files.items():
        made.write(f"/boot/efi/EFI/{name}", data)
    assert efi.has_fallback(made, "x86_64") is (changed == {})
    editor = Editor(tree=made)
    efi.add_fallback(editor, "x86_64")
    esp = tmp_path / "boot/efi/EFI"
    assert {str(path.relative_to(esp)): path.read_bytes() for path in esp.rglob("*.*")} == files | changed
    assert efi.has_fallback(made, "x86_64")
    assert not editor.warnings


def test_fallback_loader_of_arm(tmp_path: Path) -> None:
    made = FolderTree(tmp_path)
    for name in ("shimaa64.efi", "grubaa64.efi", "mmaa64.efi", "shimx64.efi"):
        made.write(f"/boot/efi/EFI/debian/{name}", name.encode())
    efi.add_fallback(Editor(tree=made), "aarch64")
    found = {path.name: path.read_bytes() for path in tmp_path.glob("boot/efi/EFI/BOOT/*")}
    assert found == {"BOOTAA64.EFI": b"shimaa64.efi", "grubaa64.efi": b"grubaa64.efi", "mmaa64.efi": b"mmaa64.efi"}


def two_kernels(tmp_path: Path, newer: str, older: str) -> FolderTree:
    made = FolderTree(tmp_path / "guest")
    made.write("/etc/os-release", b"ID=debian\n")
    entries = ""
    for version, without in (("6.1.0-2-amd64", newer), ("6.1.0-1-amd64", older)):
        kernel(made, version, f"/boot/vmlinuz-{version}", f"/boot/initrd.img-{version}", without=without)
        entries += f"menuentry '{version}' {{\n linux /boot/vmlinuz-{version}\n initrd /boot/initrd.img-{version}\n}}\n"
    made.write("/boot/grub/grub.cfg", b'set default="0"\n' + entries.encode())
    return made


KVM_DISKS = "virtio_blk,virtio_scsi,virtio_pci"


def test_another_kernel_is_chosen_where_one_has_the_driver(tmp_path: Path) -> None:
    made = two_kernels(tmp_path, KVM_DISKS, "")
    result = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert "kernel 6.1.0-2-amd64 has no driver for virtio, virtio-scsi" in result.warnings
    assert result.disk_bus == "virtio"
    assert [one.version for one in inspect(made, DISK).kernels if one.default] == ["6.1.0-1-amd64"]


def test_a_kernel_for_xen_is_not_chosen(tmp_path: Path) -> None:
    made = FolderTree(tmp_path / "guest")
    made.write("/etc/os-release", b"ID=sles\n")
    entries = ""
    for version in ("3.0.101-63-xen", "3.0.101-63-default"):
        kernel(made, version, f"/boot/vmlinuz-{version}", f"/boot/initrd-{version}", layout="mkinitrd")
        entries += f"title {version}\nkernel /boot/vmlinuz-{version}\ninitrd /boot/initrd-{version}\n"
    made.write("/boot/grub/menu.lst", b"default 0\n" + entries.encode())
    result = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert "kernel 3.0.101-63-xen starts under Xen only" in result.warnings
    assert [one.version for one in inspect(made, DISK).kernels if one.default] == ["3.0.101-63-default"]


def test_a_kernel_without_network_cards_of_servers_is_said(tmp_path: Path) -> None:
    made = two_kernels(tmp_path, "e1000e", "")
    said = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.METAL)).warnings
    assert [words for words in said if "network cards of servers" in words] == [
        "kernel 6.1.0-2-amd64 has no driver for the usual network cards of servers"]


def test_the_default_stays_where_it_can_boot_and_none_is_better(tmp_path: Path) -> None:
    made = two_kernels(tmp_path, KVM_DISKS, KVM_DISKS)
    result = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert result.disk_bus == "sata"
    assert [one.version for one in inspect(made, DISK).kernels if one.default] == ["6.1.0-2-amd64"]


def test_no_kernel_with_a_driver_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    every = KVM_DISKS + ",ahci,nvme,ata_piix,mptsas,vmw_pvscsi"
    made = two_kernels(tmp_path, every, every)
    before = sorted((path, path.read_bytes()) for path in made.root.rglob("*") if path.is_file())
    with pytest.raises(RefusedError, match=r"6\.1\.0-2-amd64, 6\.1\.0-1-amd64"):
        adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert sorted((path, path.read_bytes()) for path in made.root.rglob("*") if path.is_file()) == before


def test_a_unified_kernel_image_is_left_alone_with_words(tmp_path: Path) -> None:
    made = FolderTree(tmp_path / "guest")
    made.write("/etc/os-release", b"ID=fedora\n")
    kernel(made, "6.8.0-1", "/boot/efi/EFI/Linux/abc-6.8.0-1.efi", "-")
    result = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert any("unified kernel image" in warning for warning in result.warnings)
    assert made.read("/boot/efi/EFI/Linux/abc-6.8.0-1.efi") == b"kernel 6.8.0-1"


def test_of_two_loaders_the_one_with_entries_counts(tmp_path: Path) -> None:
    made = tree("rhel6", tmp_path / "guest")
    made.write("/boot/grub2/grub.cfg", b"# nothing\n")
    found = find(made)
    assert found
    assert found[0].kind == "grub-legacy"


@pytest.mark.parametrize(("saved", "place"), [("1", 1), ("7", 0), ("b", 1), ("Linux A", 0), ("nothing", 0), (None, 0)])
def test_what_was_saved_is_a_number_an_id_or_a_title(saved: str | None, place: int) -> None:
    entries = tuple(Entry(id=name, title=f"Linux {name.upper()}", kernel=f"/boot/{name}", initrds=(), options="")
                    for name in ("a", "b"))
    assert grub2._place(saved, entries) == place
    assert grub2._place(saved, ()) is None


def test_entries_that_start_no_linux_are_left_out(guest: FolderTree) -> None:
    guest.write("/boot/loader/entries/windows.conf", b"title Windows\nefi /EFI/Microsoft/Boot/bootmgfw.efi\n")
    guest.write("/boot/loader/entries/a.conf", b"title A\nlinux /a\n")
    assert [entry.id for entry in bls.read(guest)] == ["a"]


def test_a_block_that_has_no_room_stays_as_it_is(guest: FolderTree) -> None:
    """It has 1024 bytes, and GRUB writes into it as it is."""
    old = (b"# GRUB Environment Block\nkernelopts=root=/dev/sda1\n").ljust(1024, b"#")
    guest.write("/boot/grub2/grubenv", old)
    editor = Editor(tree=guest)
    assert grubenv.write(editor, {"kernelopts": "x" * (1024 - len("# GRUB Environment Block\nkernelopts=\n"))}, why="x")
    guest.write("/boot/grub2/grubenv", old)
    assert not grubenv.write(editor, {"kernelopts": "x" * 1000}, why="x")
    assert guest.read("/boot/grub2/grubenv") == old
    assert "/boot/grub2/grubenv: GRUB's environment block has no room for the new settings" in editor.warnings


@pytest.mark.parametrize(("path", "content", "module", "first"), [
    ("/boot/grub/menu.lst", "title A\nkernel /boot/a\ntitle B\nkernel /boot/b\n", grub_legacy, "default=1"),
    ("/boot/extlinux.conf", "LABEL a\n LINUX /boot/a\nLABEL b\n LINUX /boot/b\n", extlinux, "DEFAULT b")])
def test_a_menu_without_a_default_gets_one(guest: FolderTree, path: str, content: str, module: Any, first: str) -> None:
    guest.write(path, content.encode())
    menu = module.read(guest)
    module.choose(Editor(tree=guest), menu, menu.entries[1], why="x")
    assert guest.read(path).decode() == f"{first}\n{content}"
    assert module.read(guest).default == 1


def test_a_loader_that_is_too_large_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there is not touched either: whether it starts cannot be known."""
    monkeypatch.setattr(efi, "MAX_LOADER", 100)
    made, editor = FolderTree(tmp_path), Editor(tree=FolderTree(tmp_path))
    made.write("/boot/efi/EFI/debian/shimx64.efi", b"s")
    made.write("/boot/efi/EFI/debian/grubx64.efi", b"g" * 101)
    efi.add_fallback(editor, "x86_64")
    assert [path.name for path in tmp_path.glob("boot/efi/EFI/BOOT/*")] == ["BOOTX64.EFI"]
    (warning,) = editor.warnings
    assert warning.startswith("/boot/efi/EFI/debian/grubx64.efi is too large for a boot loader")
    made.write("/boot/efi/EFI/BOOT/BOOTX64.EFI", SHIM + bytes(100))
    assert efi.has_fallback(made, "x86_64")


def test_where_there_is_no_menu_the_better_kernel_is_said(tmp_path: Path) -> None:
    made = two_kernels(tmp_path, KVM_DISKS, "")
    (made.root / "boot/grub/grub.cfg").unlink()
    result = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert "kernel 6.1.0-2-amd64 boots, but 6.1.0-1-amd64 has the drivers: choose that one in the boot menu" in result.warnings


def test_modules_without_a_kernel_are_none(tmp_path: Path) -> None:
    """What a package that was removed left behind."""
    made = two_kernels(tmp_path, "", "")
    (made.root / "boot/grub/grub.cfg").unlink()
    for version in ("6.1.0-2-amd64", "6.1.0-1-amd64"):
        (made.root / f"boot/vmlinuz-{version}").unlink()
        if version.endswith("2-amd64"):
            assert [one.version for one in kernels.find(made, None)] == ["6.1.0-1-amd64"]
    with pytest.raises(RefusedError, match="no kernel with its modules"):
        adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))


@pytest.mark.parametrize("other", [True, False])
def test_drivers_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, other: bool) -> None:
    """Of a kernel that is not to boot they are left out; of the one that is, nothing goes on without."""
    made = two_kernels(tmp_path, "", "")
    version = "6.1.0-1-amd64" if other else "6.1.0-2-amd64"
    before = made.read(f"/boot/initrd.img-{version}")
    (made.root / f"lib/modules/{version}/kernel/drivers/block/virtio_blk.ko").write_bytes(bytes(30_000))
    monkeypatch.setattr(extend, "MAX_ADDED", 20_000)
    if other:
        said = adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM)).warnings
        assert [one for one in said if "left as it is" in one] == [
            f"the initramfs of kernel {version} is left as it is: the drivers in /lib/modules/{version} are too large"]
    else:
        with pytest.raises(DamagedError, match=f"the drivers in /lib/modules/{version} are too large"):
            adapt(made, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert made.read(f"/boot/initrd.img-{version}") == before
