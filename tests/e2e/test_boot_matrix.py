"""``make boot-matrix``: six directions, boot loaders, file systems, network systems. Each cell fails before, and works after.

A cell takes two boots and an adapt: 2 minutes under TCG. Results stand in docs/support.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.debian_guests import Guest
from tests.e2e.boots import Cell, adapt, build, fails, works

pytestmark = [pytest.mark.boot, pytest.mark.boot_matrix]

CELLS = (
    Cell(Guest("esxi"), "kvm", "VIRTIO_BLK"),
    Cell(Guest("esxi", layout="lvm", stable=True, network="netplan"), "kvm", "VIRTIO_SCSI"),
    Cell(Guest("esxi", layout="gpt", stable=True, network="networkd"), "kvm", "VIRTIO_BLK"),
    Cell(Guest("esxi"), "kvm", "VIRTIO_SCSI", ("--rebuild-initramfs",)),
    Cell(Guest("esxi"), "metal", "AHCI"),
    Cell(Guest("esxi", layout="boot", root="xfs", network="networkmanager"), "metal", "NVME"),
    Cell(Guest("esxi", layout="uefi-own", stable=True), "metal", "NVME"),
    Cell(Guest("kvm", network="ifupdown-dhcp"), "esxi", "PVSCSI"),
    Cell(Guest("kvm", layout="lvm", network="netplan"), "esxi", "LSISAS1068"),
    Cell(Guest("kvm", layout="gpt", root="btrfs", stable=True), "esxi", "PVSCSI"),
    Cell(Guest("kvm", layout="uefi-own", stable=True, network="networkd"), "metal", "NVME"),
    Cell(Guest("kvm", layout="boot"), "metal", "AHCI"),
    Cell(Guest("kvm", layout="gpt", root="xfs", network="networkmanager"), "metal", "AHCI"),
    Cell(Guest("metal", layout="gpt", network="networkd"), "kvm", "VIRTIO_BLK"),
    Cell(Guest("metal", layout="boot", root="xfs", network="networkmanager"), "kvm", "VIRTIO_SCSI"),
    Cell(Guest("metal", layout="uefi-own", stable=True), "kvm", "VIRTIO_BLK"),
    Cell(Guest("metal"), "kvm", "LSI"),
    Cell(Guest("metal"), "esxi", "PVSCSI"),
    Cell(Guest("metal", layout="lvm", network="netplan"), "esxi", "PVSCSI"),
    Cell(Guest("nvme", layout="gpt"), "kvm", "VIRTIO_BLK"),
    Cell(Guest("nvme", layout="gpt", root="btrfs", stable=True), "esxi", "PVSCSI"),
)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(tmp_path: Path, cell: Cell) -> None:
    disk = build(cell, tmp_path)
    fails(disk, cell.hardware)
    adapt(disk.path, cell)
    works(disk, cell.hardware)
    disk.path.unlink()


def test_the_old_hardware_still_boots(tmp_path: Path) -> None:
    """The drivers that were there stay. The network follows one card only: its name is on the new one."""
    cell = CELLS[0]
    disk = build(cell, tmp_path)
    adapt(disk.path, cell)
    works(disk, cell.guest.hardware, network=False)
