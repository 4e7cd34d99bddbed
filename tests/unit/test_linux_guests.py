"""Phony guests of every distribution that is known: what is seen in them, and what adapt changes, file by file."""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtool.guests.linux import adapt, commands, initramfs, inspect
from imgtool.model.guest import AdaptRequest, AdaptResult, Platform
from tests.folder_tree import FolderTree
from tests.golden import check
from tests.phony import DISK, GUESTS, tree

ALL = sorted(path.stem for path in GUESTS.glob("*.tree"))
MAC = "52:54:00:00:00:01"


def content(root: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file()]
    return {f"/{path.relative_to(root)}": f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes() for path in paths}


def difference(before: dict[str, bytes | str], after: dict[str, bytes | str]) -> Iterator[str]:
    """Text files line by line; of an initramfs, the modules that are new. Kept copies are not shown."""
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path, b""), after.get(path, b"")
        if path.endswith(".imgtool-orig") or (old == new and path in before and path in after):
            continue
        if isinstance(old, bytes) and isinstance(new, bytes) and ("initr" in path.rsplit("/", 1)[-1]):
            yield f"*** {path}: extended\n"
        elif isinstance(new, str):
            yield f"*** {path} {new}\n"
        else:
            texts = [re.sub("#{9,}", "###…", bytes(one if isinstance(one, bytes) else b"").decode()) for one in (old, new)]
            lines = [[f"{line}\n" for line in one.split("\n")] for one in texts]
            yield f"*** {path}{': removed' if path not in after else ': new' if path not in before else ''}\n"
            yield from list(difflib.unified_diff(*lines, n=0))[2:]


def story(result: AdaptResult) -> Iterator[str]:
    able = result.capabilities
    yield f"os = {result.os.distro} {result.os.version} {result.os.hostname} | {result.os.name}\n"
    yield f"disks = {', '.join(able.disk_buses)}\nnics = {', '.join(able.nic_models)}\nmachine = {able.machine}\n"
    yield from (f"warning: {warning}\n" for warning in result.warnings)
    yield from (f"change: {change.where}: {change.what}\n" for change in result.changes)


@pytest.fixture(params=ALL)
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, FolderTree]:
    return request.param, tree(request.param, tmp_path / "guest")


@pytest.mark.parametrize("platform", list(Platform))
def test_adapt_changes_what_is_golden_and_nothing_later(guest: tuple[str, FolderTree], platform: Platform) -> None:
    name, phony = guest
    before = content(phony.root)
    options = AdaptRequest(images=(), platform=platform, nics=(MAC,))
    result = adapt(phony, DISK, options)
    after = content(phony.root)
    with commands(phony, platform) as ran:
        rebuilding = [f"rebuilt by: {shlex.join(argv)}\n" for argv in ran]
    check(GUESTS / f"{name}.{platform}", "".join([*story(result), *rebuilding, *difference(before, after)]))
    kept = {path.replace("/.", "/").removesuffix(".imgtool-orig"): data for path, data in after.items() if path.endswith("orig")}
    changed = [path for path, data in before.items() if after.get(path) != data]
    assert [path for path in changed if kept.get(path) != before[path]] == []
    again = adapt(phony, DISK, options)
    assert again.changes == ()
    assert content(phony.root) == after
    assert again.capabilities == result.capabilities


def test_each_initramfs_has_the_drivers_afterwards(guest: tuple[str, FolderTree]) -> None:
    _, phony = guest
    adapt(phony, DISK, AdaptRequest(images=(), platform=Platform.KVM, nics=(MAC,)))
    for kernel in inspect(phony, DISK).kernels:
        wanted = {"virtio_blk", "virtio_pci", "virtio_scsi", "virtio_net", "ahci", "nvme", "sd_mod"} & set(kernel.drivers)
        if kernel.initramfs:
            assert wanted <= set(kernel.early)


def test_inspect_sees_what_the_golden_file_says(guest: tuple[str, FolderTree]) -> None:
    name, phony = guest
    before = content(phony.root)
    info = inspect(phony, DISK)
    lines = [f"os = {info.os}", f"firmware = {info.firmware}", f"tool = {info.initramfs_tool}", f"tools = {info.tools}",
             f"selinux = {info.selinux}", f"cloud-init = {info.cloud_init}", f"loader = {info.bootloader}",
             *(f"kernel = {kernel}" for kernel in info.kernels), *(f"nic = {nic}" for nic in info.nics),
             *(f"reference = {one.path}: {one.what}: {one.name} → {one.stable}" for one in info.references), *info.warnings]
    check(GUESTS / f"{name}.info", "".join(f"{line}\n" for line in lines))
    assert content(phony.root) == before


def test_no_backup_leaves_no_copies(tmp_path: Path) -> None:
    phony = tree("debian12", tmp_path / "guest")
    adapt(phony, DISK, AdaptRequest(images=(), platform=Platform.KVM, backup=False))
    assert not [path for path in content(phony.root) if path.endswith(".imgtool-orig")]


def test_what_is_appended_can_be_read_by_cpio(tmp_path: Path) -> None:
    """Not by our own reader: the tail of the file is a zstd stream of a cpio archive, at a multiple of 4 bytes."""
    phony = tree("debian12", tmp_path / "guest")
    path = phony.root / "boot/initrd.img-6.1.0-18-amd64"
    end = initramfs.read(str(path)).end
    old = path.read_bytes()
    adapt(phony, DISK, AdaptRequest(images=(), platform=Platform.KVM, nics=(MAC,)))
    new = path.read_bytes()
    assert new.startswith(old[:end])
    begin = end + -end % 4
    unpacked = subprocess.run(["zstd", "-dqc"], input=new[begin:], capture_output=True, check=True).stdout
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], input=unpacked, cwd=folder, check=True)
    base = folder / "usr/lib/modules/6.1.0-18-amd64"
    assert (base / "kernel/drivers/block/virtio_blk.ko").read_bytes() == b"\x7fELF block/virtio_blk"
    assert (base / "kernel/drivers/crypto/crc32c.ko").is_file()
    assert (base / "modules.dep").read_bytes() == (phony.root / "usr/lib/modules/6.1.0-18-amd64/modules.dep").read_bytes()
    assert not (folder / "lib").exists()
    assert "virtio_blk" in (folder / "conf/modules").read_text().split()
    assert "Name=ens192" in (folder / "etc/systemd/network/10-imgtool-ens192.link").read_text()
    assert path.stat().st_mode & 0o777 == 0o600
