"""Guests that mean harm: nothing outside the guest's tree is read or written, and each ends in a result or an error of ours."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtool.errors import ImgtoolError
from imgtool.guests.linux import adapt, inspect
from imgtool.guests.linux.modules import read_modules
from imgtool.guests.linux.network import find, yamls
from imgtool.guests.tree import READ_LIMIT
from imgtool.model.guest import AdaptRequest, Platform
from tests.folder_tree import FolderTree
from tests.phony import DISK, tree

REQUEST = AdaptRequest(images=(), platform=Platform.KVM, nics=("52:54:00:00:00:01",))


@pytest.fixture
def guest(tmp_path: Path) -> FolderTree:
    return tree("debian12", tmp_path / "guest")


@pytest.mark.parametrize("path", ["/etc/fstab", "/etc/default/grub", "/boot/grub/grub.cfg", "/etc/initramfs-tools/modules",
                                  "/etc/initramfs-tools/conf.d/resume", "/etc/network/interfaces", "/boot/grub/device.map",
                                  "/usr/lib/modules/6.1.0-18-amd64/kernel/drivers/block/virtio_blk.ko"])
@pytest.mark.parametrize("how", ["absolute", "up"])
def test_links_do_not_lead_out(guest: FolderTree, tmp_path: Path, path: str, how: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("/dev/sda1 SECRET\nRESUME=/dev/sda3\n")
    guest.symlink(str(secret) if how == "absolute" else "../" * 12 + str(secret).lstrip("/"), path)
    with suppress(ImgtoolError, OSError):
        inspect(guest, DISK)
        adapt(guest, DISK, REQUEST)
    assert secret.read_text() == "/dev/sda1 SECRET\nRESUME=/dev/sda3\n"
    inside = [path.read_bytes() for path in guest.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not any(b"SECRET" in data for data in inside)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "secret") == [
        "guest", "initramfs-6.1.0-18-amd64", "microcode-6.1.0-18-amd64"]


@pytest.mark.parametrize("path", ["/etc/os-release", "/etc/fstab", "/boot/grub/grub.cfg", "/etc/network/interfaces",
                                  "/usr/lib/modules/6.1.0-18-amd64/modules.dep", "/boot/initrd.img-6.1.0-18-amd64"])
@pytest.mark.parametrize("what", ["huge", "pipe", "folder", "circle", "noise"])
def test_files_that_are_none(guest: FolderTree, path: str, what: str) -> None:
    real = guest.real(path)
    real.unlink()
    if what == "huge":
        with real.open("wb") as file:
            file.truncate(READ_LIMIT * 300)
    elif what == "pipe":
        os.mkfifo(real)
    elif what == "folder":
        real.mkdir()
    elif what == "circle":
        real.symlink_to(real.name)
    else:
        real.write_bytes(os.urandom(5000))
    with suppress(ImgtoolError):
        inspect(guest, DISK)
        adapt(guest, DISK, REQUEST)


@pytest.mark.parametrize("path", ["/boot/grub/grub.cfg", "/boot/grub/menu.lst", "/boot/extlinux.conf", "/etc/default/grub",
                                  "/etc/fstab", "/etc/os-release", "/etc/inittab", "/boot/loader/entries/a.conf"])
@pytest.mark.parametrize("content", [
    "\n" * 400_000, "menuentry " + "a" * 400_000, "menuentry " + "{" * 400_000 + "x", "set default=" + " " * 400_000 + "$x",
    "A=" + "a" * 2_000_000, "submenu a {\n" * 100_000 + "menuentry b {\nlinux /c\n}\n" * 100_000],
    ids=["lines", "name", "braces", "blanks", "value", "menus"])
def test_long_texts_are_read_in_a_moment(guest: FolderTree, path: str, content: str) -> None:
    """Without care these take hours, or all memory; a signal does not end that."""
    guest.write("/boot/grub/grub.cfg", b"")
    guest.write(path, content.encode())
    assert inspect(guest, DISK).kernels


def test_a_kernel_with_an_odd_name_is_only_a_name(guest: FolderTree, tmp_path: Path) -> None:
    for name in ("6.1 x\ny", "$(touch x)", "*", "[a", "-rf", "6.1;reboot"):
        guest.write(f"/usr/lib/modules/{name}/modules.dep", b"kernel/a.ko:\n")
        guest.write(f"/boot/vmlinuz-{name}", b"x")
    versions = {kernel.version for kernel in inspect(guest, DISK).kernels}
    assert {"6.1 x\ny", "$(touch x)", "*", "[a", "-rf", "6.1;reboot", "6.1.0-18-amd64"} == versions
    adapt(guest, DISK, REQUEST)
    assert not (tmp_path / "x").exists()


def test_modules_outside_their_folder_are_not_taken(tmp_path: Path) -> None:
    phony = FolderTree(tmp_path)
    phony.write("/lib/modules/1/modules.dep", b"../../../etc/shadow.ko:\n/etc/x.ko:\n"
                                              b"/lib/modules/1/ok.ko: ../x.ko /lib/modules/2/y.ko\n"
                                              b"/usr/lib/modules/1/merged.ko:\nx/../../z.ko:\nkernel/plain.ko: ok.ko\nno colon\n")
    found = read_modules(phony, "/lib/modules/1")
    assert dict(found.files) == {"ok": "ok.ko", "merged": "merged.ko", "plain": "kernel/plain.ko"}
    assert found.closure(["plain", "absent"]) == ("kernel/plain.ko", "ok.ko")


def test_modules_that_need_each_other_end(tmp_path: Path) -> None:
    phony = FolderTree(tmp_path)
    phony.write("/lib/modules/1/modules.dep", b"a.ko: b.ko\nb.ko: a.ko\n")
    phony.write("/lib/modules/1/modules.softdep", b"softdep a pre: b-x c post: a\n")
    assert read_modules(phony, "/lib/modules/1").closure(["a"]) == ("a.ko", "b.ko")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True))


def test_yaml_bombs_stay_small(tmp_path: Path) -> None:
    phony = FolderTree(tmp_path)
    used = "network: {ethernets: {eth0: {addresses: *j, set-name: *j, match: {macaddress: *j}}}}\n"
    phony.write("/etc/netplan/a.yaml", (BOMB + used).encode())
    phony.write("/etc/netplan/b.yaml", b"network: " + b"[" * 5000)
    phony.write("/etc/netplan/c.yaml", b"network: {ethernets: {eth1: {}}}\n#" + b"x" * yamls.MAX_YAML)
    found = find.read(phony)
    assert [nic.path for nic in found] == ["/etc/netplan/a.yaml"]
    assert len(str(found)) < 1000


MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


def test_yaml_that_merges_without_end_stays_small() -> None:
    assert len(str(yamls.load(MERGES))) < 1000  # some versions of PyYAML take a key once, others 9 to the power of 11 times
    assert yamls.load("a: &a {dhcp4: true}\nb: {<<: *a, c: d}\n")["b"] == {"dhcp4": True, "c": "d"}


@pytest.mark.parametrize("content", ["a: !!bool x", "a: !!int ''", "a: !!float ''", "a: !!timestamp x", "a: 2001-99-99"])
def test_yaml_with_odd_values_is_none(content: str) -> None:
    assert yamls.load(content) == {}


WORDS = ["network:", "ethernets:", "eth0", "[Match]", "Name=", "[", "]", "{", "}", ": ", "\n", "  ", "- ",
         "iface eth0 inet static", "address ", "\"", "'", "&a", "*a", "DEVICE=", "IPADDR=", "[ipv4]", "address1=",
         "!!python/object:os.system ", "!!bool ", "!!int ", "<<: *a", "config:", "type: physical", "name: "]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=5))).map("".join))
def test_any_text_is_read(tmp_path: Path, content: str) -> None:
    phony = FolderTree(tmp_path)
    for path in ("/etc/netplan/a.yaml", "/etc/network/interfaces", "/etc/systemd/network/a.network",
                 "/etc/systemd/network/a.link", "/etc/NetworkManager/system-connections/a", "/etc/sysconfig/network/ifcfg-eth0",
                 "/etc/cloud/cloud.cfg",
                 "/etc/sysconfig/network-scripts/ifcfg-eth0", "/etc/udev/rules.d/70-net.rules", "/etc/os-release"):
        phony.write(path, content.encode("utf-8", "surrogateescape"))
    for nic in find.read(phony):
        assert nic.path
