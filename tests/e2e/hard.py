"""What makes a guest hard to adapt, put into its disk by loop mounts: the guest is ours, so the host's kernel may read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures import cache, roots, tree
from fixtures.debian import EXCLUDED
from fixtures.debian_guests import BIRTHS
from fixtures.guest_disks import LAYOUTS, MIB
from fixtures.guest_roots import NO_MODULES
from fixtures.roots import Recipe
from tests.oracle import luks, tool

CLOUD = Recipe(("linux-image-cloud-amd64",), (*EXCLUDED, *NO_MODULES))
"""Debian's kernel for clouds: virtio, pvscsi and NVMe, but neither AHCI nor any card of a real machine."""
ENTRY = """menuentry "Debian GNU/Linux, with Linux {kernel}" {{
    search --no-floppy --fs-uuid --set=root {uuid}
    linux /boot/vmlinuz-{kernel} root=UUID={uuid} ro console=tty0 console=ttyS0,115200
    initrd /boot/initrd.img-{kernel}
}}
"""


@contextmanager
def files(disk: Path, layout: str, point: str = "/", *, place: Path | None = None) -> Iterator[Path]:
    """A file system of a guest's disk, mounted for as long as the block lasts, beside it or at ``place``, which is there."""
    _, part = LAYOUTS[layout].partition(point)
    where = place or disk.with_name("mounted")
    where.mkdir(exist_ok=True)
    tool("mount", "-o", f"loop,offset={part.start * MIB},sizelimit={part.size * MIB}", disk, where)
    try:
        yield where
    finally:
        tool("umount", where)
    if place is None:
        where.rmdir()


def crash(disk: Path, layout: str) -> None:
    """The disk becomes what was on it just behind an fsync: the root file system has a journal that is to be replayed."""
    copy = disk.with_name("crashed")
    with files(disk, layout) as root:
        for number in range(20):
            with (root / f"var/written-{number}").open("wb") as file:
                file.write(os.urandom(5000))
                os.fsync(file.fileno())
        tool("cp", "--sparse=always", disk, copy)
    copy.rename(disk)


def _make_initramfs(root: Path, modules: tuple[str, ...], kernel: str) -> None:
    """With these drivers alone; the settings are then as they were."""
    listed, born = root / "etc/initramfs-tools/modules", root / "etc/initramfs-tools/conf.d/born"
    kept = listed.read_text(), born.read_text()
    listed.write_text("\n".join(modules) + "\n")
    born.write_text("MODULES=list\nRESUME=none\n")
    tree.chroot(root, "update-initramfs", "-c", "-k", kernel)
    listed.write_text(kept[0])
    born.write_text(kept[1])


def add_cloud_kernel(disk: Path, born: str) -> str:
    """The kernel that boots from now on, with an initramfs for that hardware alone; its version. For the layout "mbr"."""
    tar = roots.root_tar(CLOUD, cache.DEFAULT)
    uuid = tool("blkid", "-p", "-O", MIB, "-s", "UUID", "-o", "value", disk).stdout.strip()
    with files(disk, "mbr") as root:
        tool("tar", "-C", root, "-xpf", tar, "--wildcards", "./boot/*-cloud-*", "./usr/lib/modules/*-cloud-*")
        (kernel,) = (path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*cloud*"))
        _make_initramfs(root, (*BIRTHS[born].modules, "ext4"), kernel)
        menu = root / "boot/grub/grub.cfg"
        head, entry, rest = menu.read_text().partition("menuentry ")
        menu.write_text(f'{head}set default="0"\n{ENTRY.format(kernel=kernel, uuid=uuid)}{entry}{rest}')
    return kernel


def encrypt_root(disk: Path, born: str, passphrase: str) -> None:
    """LUKS around the root of the layout "boot", opened with a key that lies in the initramfs, as servers do that start alone.

    QEMU writes the LUKS volume, since the host has no device-mapper.
    """
    _, part = LAYOUTS["boot"].partition("/")
    start, size = part.start * MIB, part.size * MIB
    with files(disk, "boot") as root, files(disk, "boot", "/boot", place=root / "boot"):
        _tell_of_the_key(root, f"{BIRTHS[born].disk}2", passphrase)
        (kernel,) = (path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
        _make_initramfs(root, (*BIRTHS[born].modules, "ext4"), kernel)
    plain, locked = disk.with_name("plain"), disk.with_name("locked")
    tool("dd", f"if={disk}", f"of={plain}", "bs=1M", f"skip={part.start}", f"count={part.size}", "conv=sparse", "status=none")
    tool("e2fsck", "-fp", plain, ok=(0, 1))
    tool("resize2fs", plain, f"{size // MIB - 8}M")
    tool("truncate", "-s", size - 8 * MIB, plain)
    luks("convert", "-f", "raw", "-O", "luks", "--object", f"secret,id=key,data={passphrase}",
         "-o", "key-secret=key,iter-time=10", plain, locked)
    assert locked.stat().st_size <= size
    with disk.open("r+b") as file:
        os.posix_fallocate(file.fileno(), start, size)
    tool("dd", f"if={locked}", f"of={disk}", "bs=1M", f"seek={part.start}", "conv=notrunc", "status=none")
    plain.unlink()
    locked.unlink()


def _tell_of_the_key(root: Path, device: str, passphrase: str) -> None:
    tree.put(root, "/etc/keys/root.key", passphrase, 0o600)
    tree.put(root, "/etc/crypttab", f"cr_root {device} /etc/keys/root.key luks,initramfs\n")
    hook = root / "etc/cryptsetup-initramfs/conf-hook"
    hook.write_text(hook.read_text() + 'KEYFILE_PATTERN="/etc/keys/*.key"\n')
    for path in ("etc/fstab", "boot/grub/grub.cfg"):
        file = root / path
        file.write_text(file.read_text().replace(f"{device} /", "/dev/mapper/cr_root /").replace(f"root={device}",
                                                                                                 "root=/dev/mapper/cr_root"))
