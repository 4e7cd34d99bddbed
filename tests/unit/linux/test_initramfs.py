"""Initramfs files of every packing: what is in them, and one more archive behind. Made, and checked, by the host's programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imgtool.errors import DamagedError, NoSpaceError
from imgtool.guests.linux import adapt, compression, cpio, extend, initramfs
from imgtool.model.guest import AdaptRequest, Platform
from tests.folder_tree import FolderTree
from tests.phony import DISK, PACKERS, archive, kernel, packed, tree

READABLE = [name for name in PACKERS if name != "lzo"]
UNPACKERS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dqc"], "xz": ["xz", "-dc"], "lz4": ["lz4", "-dc"], "cpio": ["cat"]}
FIRST = 1536
"""Bytes of the archive before the packed one."""
MORE = (cpio.Entry(name="new", mode=cpio.FILE, size=3, data=b"new"),)


def made(tmp_path: Path, packing: str, *, zeros: int = 0) -> Path:
    """Microcode, not packed, then a packed archive with ``lib`` as a link."""
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "kernel/x86").mkdir(parents=True)
    (first / "kernel/x86/microcode").write_bytes(b"x" * 999)
    (second / "usr/lib/modules/6.1/kernel").mkdir(parents=True)
    (second / "usr/lib/modules/6.1/kernel/ext4.ko.xz").write_bytes(b"module")
    (second / "lib").symlink_to("usr/lib")
    (second / "etc").mkdir()
    (second / "etc/fstab").write_text("/dev/sda1 / ext4\n")
    path = tmp_path / f"initramfs.{packing}"
    path.write_bytes(archive(first) + packed(archive(second), packing) + bytes(zeros))
    return path


@pytest.mark.parametrize("packing", READABLE)
@pytest.mark.parametrize("zeros", [0, 5, 512])
def test_reads_every_packing(tmp_path: Path, packing: str, zeros: int) -> None:
    path = made(tmp_path, packing, zeros=zeros)
    found = initramfs.read(str(path))
    assert found.packing == packing
    assert found.end == path.stat().st_size - zeros or packing == "cpio"  # cpio fills up its blocks
    assert found.modules("6.1") == {"ext4"}
    assert found.real("lib/modules/6.1") == "usr/lib/modules/6.1"
    assert found.texts == {"etc/fstab": b"/dev/sda1 / ext4\n"}
    assert "kernel/x86/microcode" in found.names


@pytest.mark.parametrize("packing", READABLE)
@pytest.mark.parametrize("zeros", [0, 5])
def test_appends_what_can_be_read_again_and_again(tmp_path: Path, packing: str, zeros: int) -> None:
    path = made(tmp_path, packing, zeros=zeros)
    old = initramfs.read(str(path))
    extend.append(str(path), old, MORE)
    new = initramfs.read(str(path))
    assert new.names == old.names | {"new"}
    extend.append(str(path), new, (cpio.Entry(name="newer", mode=cpio.FILE, size=1, data=b"1"),))
    assert initramfs.read(str(path)).names == old.names | {"new", "newer"}


@pytest.mark.parametrize("packing", READABLE)
def test_the_hosts_programs_read_what_is_appended(tmp_path: Path, packing: str) -> None:
    path = made(tmp_path, packing)
    old = initramfs.read(str(path))
    extend.append(str(path), old, MORE)
    begin = old.end if packing == "lz4" else old.end + -old.end % 4
    assert path.read_bytes()[old.end:begin] == bytes(begin - old.end)
    unpacker = UNPACKERS.get(packing, ["cat"])
    data = subprocess.run(unpacker, input=path.read_bytes()[begin:], capture_output=True, check=True).stdout
    listed = subprocess.run(["cpio", "-it", "--quiet"], input=data, capture_output=True, check=True).stdout
    assert listed == b"new\n"


def test_an_lz4_stream_goes_on(tmp_path: Path) -> None:
    """As the kernel's unlz4 reads it: one stream from the first block to the last, without zeros between."""
    path = made(tmp_path, "lz4")
    begin = path.read_bytes().index(compression.LZ4_MAGIC)
    old = initramfs.read(str(path))
    before = subprocess.run(["lz4", "-dc"], input=path.read_bytes()[begin:], capture_output=True, check=True).stdout
    extend.append(str(path), old, MORE)
    after = subprocess.run(["lz4", "-dc"], input=path.read_bytes()[begin:], capture_output=True, check=True).stdout
    assert after == before + cpio.write(MORE)


def test_xz_has_the_only_check_that_the_kernel_knows() -> None:
    data = compression.pack(b"x" * 10000, "xz")
    assert data[7] == 1  # CRC32: xz-file-format.txt, 2.1.1.2


def test_lzo_cannot_be_read_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="lzo"):
        initramfs.read(str(made(tmp_path, "lzo")))


@pytest.mark.parametrize("packing", READABLE)
def test_a_cut_off_one_is_damaged(tmp_path: Path, packing: str) -> None:
    path = made(tmp_path, packing)
    whole = path.read_bytes()
    end = initramfs.read(str(path)).end
    for length in (end - 10, FIRST + 40, 50):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            initramfs.read(str(path))


def test_what_is_no_archive_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", bytes(4096), b"MZ" + bytes(1000), b"\x1f\x8b" + bytes(100), b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
                 *(b"070701" + digits * 40 for digits in (b"zzzzzzzz", b"-0000001", b"0x000001", b" 0_00001"))):
        path.write_bytes(data)
        with pytest.raises(DamagedError):
            initramfs.read(str(path))


@pytest.mark.parametrize("packing", ["gzip", "zstd", "xz", "bzip2", "lz4"])
def test_a_bomb_is_refused(tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_UNPACKED", 32 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(packed(bytes(48 << 20), packing))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DamagedError, match="unpacks to more"):
        initramfs.read(str(path))


def test_many_small_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "MAX_KEPT", 10_000)
    path = tmp_path / "x"
    path.write_bytes(cpio.write(cpio.Entry(name=f"{number:0100}", mode=cpio.FILE, size=0, data=b"") for number in range(200)))
    with pytest.raises(DamagedError, match="too many"):
        initramfs.read(str(path))


def test_links_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "x"
    links = [cpio.Entry(name=name, mode=cpio.LINK, size=1, data=target) for name, target in (("a", b"b"), ("b", b"a"))]
    path.write_bytes(cpio.write(links))
    with pytest.raises(DamagedError, match="circle"):
        initramfs.read(str(path)).real("a/x")


def guest(tmp_path: Path, **options: str) -> FolderTree:
    phony = FolderTree(tmp_path / "guest")
    phony.write("/etc/os-release", b"ID=debian\n")
    kernel(phony, "6.1.0-1-amd64", "/boot/vmlinuz-6.1.0-1-amd64", "/boot/initrd.img-6.1.0-1-amd64", **options)
    return phony


def run(phony: FolderTree, platform: Platform = Platform.KVM) -> None:
    adapt(phony, DISK, AdaptRequest(images=(), platform=platform))


def test_a_full_boot_says_so_and_changes_nothing_there(tmp_path: Path) -> None:
    phony = guest(tmp_path)
    before = sorted((path.name, path.read_bytes()) for path in (phony.root / "boot").iterdir())
    phony.room = 100
    with pytest.raises(NoSpaceError, match="/boot in the guest has 0 MiB free"):
        run(phony)
    assert sorted((path.name, path.read_bytes()) for path in (phony.root / "boot").iterdir()) == before


def test_the_old_one_is_kept_if_there_is_room_for_another_kernel(tmp_path: Path) -> None:
    phony = guest(tmp_path)
    path = phony.root / "boot/initrd.img-6.1.0-1-amd64"
    old = path.read_bytes()
    phony.room = 3 * len(old) + 100_000
    run(phony)
    kept = path.with_name(path.name + ".imgtool-orig")
    assert kept.read_bytes() == old
    run(phony, Platform.ESXI)
    assert kept.read_bytes() == old, "the first one stays"


def test_little_room_means_no_copy(tmp_path: Path) -> None:
    phony = guest(tmp_path)
    phony.room = (phony.root / "boot/initrd.img-6.1.0-1-amd64").stat().st_size + 2000
    run(phony)
    assert not (phony.root / "boot/initrd.img-6.1.0-1-amd64.imgtool-orig").exists()


def test_lzo_is_left_alone_with_a_warning_and_no_bus(tmp_path: Path) -> None:
    phony = guest(tmp_path, packing="lzo")
    before = (phony.root / "boot/initrd.img-6.1.0-1-amd64").read_bytes()
    result = adapt(phony, DISK, AdaptRequest(images=(), platform=Platform.KVM))
    assert any("lzo" in warning for warning in result.warnings)
    assert result.capabilities.disk_buses == ()
    assert (phony.root / "boot/initrd.img-6.1.0-1-amd64").read_bytes() == before


def test_other_platforms_add_to_what_is_there(tmp_path: Path) -> None:
    phony = tree("debian12", tmp_path / "guest")
    for platform in (Platform.KVM, Platform.ESXI, Platform.METAL):
        adapt(phony, DISK, AdaptRequest(images=(), platform=platform))
    found = initramfs.read(str(phony.root / "boot/initrd.img-6.1.0-18-amd64")).modules("6.1.0-18-amd64")
    assert {"virtio_blk", "vmw_pvscsi", "mptspi", "mptsas", "megaraid_sas", "usb_storage", "nvme_core", "crc32c"} <= found


def test_disks_named_within_the_initramfs_follow(tmp_path: Path) -> None:
    phony = guest(tmp_path)
    path = phony.root / "boot/initrd.img-6.1.0-1-amd64"
    old = initramfs.read(str(path))
    names = {"etc/cmdline.d/95root.conf": b" root=/dev/sda1 resume=/dev/sda3\n",
             "etc/lvm/devices/system.devices": b"IDTYPE=sys_wwid\n",
             "conf/conf.d/resume": b"RESUME=/dev/sda3\n"}
    extend.append(str(path), old, [cpio.Entry(name=name, mode=cpio.FILE, size=len(data), data=data)
                                   for name, data in names.items()])
    run(phony)
    texts = initramfs.read(str(path)).texts
    assert texts["etc/cmdline.d/95root.conf"] == f" root=UUID={DISK[0].uuid} resume=UUID={DISK[2].uuid}\n".encode()
    assert texts["conf/conf.d/resume"] == f"RESUME=UUID={DISK[2].uuid}\n".encode()
    assert b"use_devicesfile = 0" in texts["etc/lvm/lvmlocal.conf"]
