"""A real guest that means harm, in the real appliance: nothing is read, written or run outside of it. TCG: a minute each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.debian_guests import Guest, build
from tests.e2e.boots import sha256
from tests.e2e.hard import files
from tests.program import imgtool

pytestmark = pytest.mark.long

SECRET = "/dev/sda1 SECRET-OF-THE-HOST\nRESUME=/dev/sda3\n"
ODD = "6.1 x\ny;touch odd"
TOOLS = ("/sbin/dracut", "/usr/bin/dracut", "/usr/sbin/update-initramfs", "/usr/sbin/mkinitramfs", "/usr/sbin/grub-install",
         "/sbin/modprobe", "/sbin/depmod", "/usr/sbin/update-grub", "/bin/systemctl")
TROJAN = """#!/bin/sh
echo ran >> /root/trojan-ran
for place in '{host}' /tmp /var/tmp /root/.ssh; do mkdir -p "$place"; echo owned > "$place/trojan"; done
echo owned > '{host}/secret'
for disk in /dev/sd* /dev/vd*; do dd if=/dev/urandom of="$disk" bs=1M count=4; done
echo owned > /dev/virtio-ports/org.libguestfs.channel.0
kill -9 -1
echo o > /proc/sysrq-trigger
sleep 20
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder of this host that the guest knows of; nothing may change in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"secret": SECRET}


@pytest.fixture
def disk(tmp_path: Path, outside: Path) -> Path:
    """All that is wrong with it at once."""
    made = build(tmp_path / "guest.raw", Guest("esxi")).path
    with files(made, "mbr") as root:
        _links(root, str(outside / "secret"))
        _devices(root)
        _kernel(root)
        for path in TOOLS:
            place = root / path.lstrip("/")
            place.unlink(missing_ok=True)
            place.write_text(TROJAN.format(host=outside))
            place.chmod(0o755)
    return made


def _links(root: Path, secret: str) -> None:
    (root / "etc/elsewhere").mkdir()
    (root / "etc/initramfs-tools/modules").rename(root / "etc/elsewhere/modules")
    for path, target in (("etc/fstab", "../../../../../../proc/self/environ"),
                         ("etc/initramfs-tools/modules", "../../../../../../../../../../../etc/elsewhere/modules"),
                         ("etc/crypttab", "../../../../../../../.." + secret), ("etc/hosts", secret), ("etc/loop", "loop"),
                         ("etc/network/interfaces.d/up", "../../../../../../../../../.." + secret),
                         ("etc/systemd/network/up.link", secret), ("etc/modprobe.d/up.conf", "/proc/kcore"),
                         ("etc/initramfs-tools/conf.d/zz-imgtool.conf", "../../../../../not/there/yet")):
        place = root / path
        place.unlink(missing_ok=True)
        place.symlink_to(target)


def _devices(root: Path) -> None:
    for path, mode, number in (("etc/default/grub", stat.S_IFCHR, os.makedev(1, 5)), ("boot/grub/device.map", stat.S_IFIFO, 0),
                               ("etc/hostname", stat.S_IFBLK, os.makedev(8, 0)), ("etc/machine-info", stat.S_IFCHR, 0x108)):
        (root / path).unlink(missing_ok=True)
        os.mknod(root / path, mode | 0o644, number)


def _kernel(root: Path) -> None:
    folder = root / "usr/lib/modules" / ODD
    folder.mkdir()
    (folder / "modules.dep").write_text("../../../../../etc/shadow.ko:\nkernel/virtio_blk.ko: /etc/passwd\n")
    (folder / "kernel").symlink_to("/proc")
    (root / f"boot/vmlinuz-{ODD}").write_bytes(b"kernel")
    (root / f"boot/initrd.img-{ODD}").symlink_to("/dev/zero")


def _ran(disk: Path) -> bool:
    with files(disk, "mbr") as root:
        return (root / "root/trojan-ran").exists()


def test_it_is_adapted_and_nothing_of_it_runs(tmp_path: Path, disk: Path) -> None:
    """fstab is a link to what the appliance runs with, then a file of 1 GB."""
    before = set(os.listdir(tmp_path))
    done = imgtool("adapt", disk, "--for", "kvm", cwd=tmp_path)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "SECRET" not in done.stdout + done.stderr
    assert set(os.listdir(tmp_path)) == before
    assert not _ran(disk)
    with files(disk, "mbr") as root:
        assert "virtio_blk" in (root / "etc/elsewhere/modules").read_text()
        assert (root / "not/there/yet").read_text().endswith("MODULES=most\n")
        (root / "etc/fstab").unlink()
        with (root / "etc/fstab").open("wb") as fstab:
            fstab.truncate(1 << 30)
    found = imgtool("inspect", disk, cwd=tmp_path)
    print(found.stdout, found.stderr)
    assert found.returncode == 0
    assert "Traceback" not in found.stderr


def test_its_own_tool_runs_in_the_appliance_only(tmp_path: Path, disk: Path) -> None:
    """Asked for by --rebuild-initramfs. It ruins the appliance and what that has of the disk; the image is as it was."""
    before, names = sha256(disk), set(os.listdir(tmp_path))
    done = imgtool("adapt", disk, "--for", "kvm", "--rebuild-initramfs", cwd=tmp_path)
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert sha256(disk) == before
    assert set(os.listdir(tmp_path)) == names
