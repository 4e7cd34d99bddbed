"""Real guests in a state that makes it hard to adapt them: they boot afterwards, or are left as they were, with a reason. TCG."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.debian_guests import Guest, GuestDisk
from fixtures.guest_disks import LAYOUTS, MIB
from tests.e2e.boots import Cell, adapt, build, fails, sha256, works
from tests.e2e.hard import add_cloud_kernel, crash, encrypt_root, files
from tests.oracle import tool
from tests.program import imgtool

TO_KVM = Cell(Guest("esxi"), "kvm", "VIRTIO_BLK")
TO_METAL = Cell(Guest("esxi"), "metal", "AHCI")
XFS = Cell(Guest("esxi", layout="boot", root="xfs", network="networkmanager"), "metal", "NVME")
FROM_METAL = Cell(Guest("metal", layout="boot", root="xfs", network="networkmanager"), "kvm", "VIRTIO_SCSI")
LUKS = Cell(Guest("esxi", layout="boot", network="netplan"), "kvm", "VIRTIO_BLK")
PASSPHRASE = "correct horse"


def refused(disk: GuestDisk, code: int, platform: str = "metal") -> str:
    """``adapt`` ends with that code, and the disk is as it was; what it said."""
    before = sha256(disk.path)
    done = imgtool("adapt", disk.path, "--for", platform)
    assert done.returncode == code, done.stderr
    assert sha256(disk.path) == before
    return done.stderr


@pytest.mark.boot
@pytest.mark.boot_matrix
def test_of_two_kernels_the_one_with_the_driver_boots(tmp_path: Path) -> None:
    """Debian's kernel for clouds is the default, and no initramfs makes it find a disk on AHCI."""
    disk = build(TO_METAL, tmp_path)
    lean = add_cloud_kernel(disk.path, "esxi")
    works(disk, TO_METAL.guest.hardware)
    fails(disk, TO_METAL.hardware)
    made = adapt(disk.path, TO_METAL)
    assert f"kernel {lean} has no driver for sata" in str(made["warnings"])
    assert "default entry is Debian GNU/Linux" in str(made["changes"])
    works(disk, TO_METAL.hardware)


@pytest.mark.boot
@pytest.mark.boot_matrix
@pytest.mark.parametrize("cell", [TO_KVM, XFS], ids=["ext4", "xfs"])
def test_a_guest_that_was_not_shut_down(tmp_path: Path, cell: Cell) -> None:
    """Its journal is replayed in the appliance, then it is adapted."""
    disk = build(cell, tmp_path)
    crash(disk.path, cell.guest.layout)
    _, part = LAYOUTS[cell.guest.layout].partition("/")
    if cell.guest.root == "ext4":
        assert "needs_recovery" in tool("dumpe2fs", "-h", f"{disk.path}?offset={part.start * MIB}").stdout
    else:
        tool("dd", f"if={disk.path}", f"of={tmp_path / 'root'}", "bs=1M", f"skip={part.start}", "conv=sparse", "status=none")
        assert "<DIRTY>" in tool("xfs_logprint", "-t", tmp_path / "root", ok=(0, 1)).stdout
        (tmp_path / "root").unlink()
    adapt(disk.path, cell)
    works(disk, cell.hardware)


@pytest.mark.boot
@pytest.mark.boot_matrix
def test_an_encrypted_root(tmp_path: Path) -> None:
    """crypttab says /dev/sda2, in the initramfs too; it is opened at boot with a key that is in there."""
    disk, key = build(LUKS, tmp_path), tmp_path / "key"
    encrypt_root(disk.path, "esxi", PASSPHRASE)
    key.write_text(PASSPHRASE)
    fails(disk, LUKS.hardware)
    assert "is encrypted" in refused(disk, 4)
    made = adapt(disk.path, Cell(LUKS.guest, "kvm", "VIRTIO_BLK", ("--key-file", str(key))))
    assert PASSPHRASE not in str(made)
    assert works(disk, LUKS.hardware).root_source == "/dev/mapper/cr_root"


@pytest.mark.long
def test_a_full_boot(tmp_path: Path) -> None:
    disk = build(FROM_METAL, tmp_path)
    with files(disk.path, "boot", "/boot") as boot, (boot / "filler").open("wb") as filler:
        filler.write(bytes(200 * MIB))
        filler.flush()
        while True:
            try:
                filler.write(bytes(MIB))
                filler.flush()
            except OSError:
                break
    said = refused(disk, 7, "kvm")
    assert "/boot in the guest has" in said
    assert "remove an old kernel in the guest" in said


@pytest.mark.long
def test_a_file_system_that_may_only_be_read(tmp_path: Path) -> None:
    """Flagged so by its owner: that is no reason to write it, and no damage either."""
    disk = build(TO_KVM, tmp_path)
    tool("tune2fs", "-O", "read-only", f"{disk.path}?offset={MIB}")
    assert "a file system of the guest is read-only" in refused(disk, 4)


@pytest.mark.long
def test_a_configuration_that_is_a_link_to_itself(tmp_path: Path) -> None:
    disk = build(TO_KVM, tmp_path)
    with files(disk.path, "mbr") as root:
        modules = root / "etc/initramfs-tools/modules"
        modules.unlink()
        modules.symlink_to(modules.name)
    said = refused(disk, 5)
    assert "/etc/initramfs-tools/modules: Too many levels of symbolic links" in said
    assert "hint: " in said
