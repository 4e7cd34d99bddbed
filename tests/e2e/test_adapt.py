"""Guests that were born on one hardware boot on another, with their network, after ``adapt``; and not before. TCG.

What ``make test`` boots comes from whole migrations, each direction once (``test_migrate.py``, ``tests/metal/test_boots.py``):

=============  ==============  ==========  ===========  ==========  ======================
born on        to              boot        root         network     boots on
=============  ==============  ==========  ===========  ==========  ======================
esxi (pvscsi)  kvm             MBR         ext4, names  ifupdown    virtio-blk, virtio-net
kvm (virtio)   esxi            GPT, BIOS   ext4, UUID   networkd    pvscsi, vmxnet3
metal (AHCI)   kvm, by p2v     MBR, /boot  ext4, names  networkd    virtio-scsi
kvm            metal, by v2p   UEFI        ext4, UUID   networkd    NVMe, e1000e
=============  ==============  ==========  ===========  ==========  ======================

``make boot-matrix`` has all layouts, file systems, network systems and controllers; ``make test-long`` has what is here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.debian_guests import Guest
from tests.e2e.boots import Cell, adapt, build, fails, sha256
from tests.program import ENVIRONMENT, ROOT, imgtool, result

TO_KVM = Cell(Guest("esxi"), "kvm", "VIRTIO_BLK")


@pytest.mark.long
@pytest.mark.boot
def test_from_esxi_to_kvm(tmp_path: Path) -> None:
    """Root and fstab say /dev/sda1, the card is ens192 with a static address; the initramfs has vmw_pvscsi alone.

    That it boots afterwards is shown by ``test_migrate.py``, with the same guest.
    """
    disk = build(TO_KVM, tmp_path)
    before, names = (sha256(disk.path), disk.path.stat().st_mtime_ns), os.listdir(tmp_path)
    inspected(result("inspect", disk.path))
    planned = result("adapt", disk.path, "--for", "kvm", "--dry-run")
    assert {change["where"] for change in planned["changes"]} >= {"/etc/fstab", "/boot/grub/grub.cfg"}
    killed(disk.path)
    assert (sha256(disk.path), disk.path.stat().st_mtime_ns) == before
    fails(disk, TO_KVM.hardware)
    made = adapt(disk.path, TO_KVM)
    assert (made["disk_bus"], made["nic_model"]) == ("virtio", "virtio")
    assert made["changes"] == planned["changes"]
    assert made["unlisted"] == []
    assert os.listdir(tmp_path) == names
    after = sha256(disk.path)
    assert adapt(disk.path, TO_KVM)["changes"] == []
    assert sha256(disk.path) == after


def inspected(found: dict[str, Any]) -> None:
    assert (found["os"]["distro"], found["os"]["hostname"]) == ("debian", "esxi-born")
    assert found["os"]["version"].split(".")[0] == "12"
    assert (found["firmware"], found["bootloader"]["kind"]) == ("bios", "grub2")
    (kernel,) = found["kernels"]
    assert "vmw_pvscsi" in kernel["early"]
    assert "virtio_blk" not in kernel["early"]
    assert "virtio_blk" in kernel["drivers"]
    assert [(nic["name"], nic["addresses"]) for nic in found["nics"]] == [("ens192", ["10.0.2.77/24"])]
    assert found["filesystems"][0]["mounted_at"] == "/"


def killed(disk: Path) -> None:
    """``kill -9`` in the middle of adapt: the appliance has begun to write."""
    with subprocess.Popen([sys.executable, "-m", "imgtool", "adapt", disk, "--for", "kvm"], cwd=ROOT, env=ENVIRONMENT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 120:
            if any(path.stat().st_size > 1 << 20 for path in disk.parent.glob(".imgtool-*/redo/0.qcow2")):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_a_disk_without_a_system(tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(8 << 20)
    before = empty.stat().st_mtime_ns
    made = result("adapt", empty, "--for", "kvm")
    assert (made["os"]["family"], made["changes"], made["disk_bus"]) == ("unknown", [], None)
    assert "left as it is" in made["warnings"][0]
    assert empty.stat().st_mtime_ns == before
    assert imgtool("adapt", empty, "--for", "kvm", "--key-file", tmp_path / "none").returncode == 2
