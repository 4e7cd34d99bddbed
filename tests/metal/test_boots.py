"""A guest that was born on KVM, written to a physical disk that is larger, boots there on real hardware's devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import debian_guests
from fixtures.boot import boot
from fixtures.debian_guests import Guest
from fixtures.hardware import AHCI, NVME, Hardware
from fixtures.sshd import sshd
from tests.e2e.boots import TIMEOUT, sha256
from tests.metal.physical import physical, result, serial
from tests.metal.tables import sound
from tests.program import imgtool

pytestmark = pytest.mark.boot

LARGER = (2048 + 700 << 20) + 512
BIOS = Guest("kvm", layout="gpt", stable=True, network="networkd")
UEFI = Guest("kvm", layout="uefi-own", stable=True, network="networkd")


def moved(tmp_path: Path, guest: Guest, where: dict[str, Hardware], *words: str) -> None:
    source = debian_guests.build(tmp_path / "guest.raw", guest)
    before = sha256(source.path)
    with physical(tmp_path, LARGER, full=False) as device:
        found = result(imgtool("v2p", source.path, "--disk", f"vda={device}", "--yes-write-to", serial(device), *words, "--json",
                               timeout=1200))
        assert found["changes"]
        sound(device)
        for name, hardware in where.items():
            report = boot(device, format="raw", hardware=hardware, timeout=TIMEOUT)
            assert report.booted, "\n".join([name, report.why, *report.lines])
            assert report.payload_sha256 == source.payload_sha256
            assert report.failed_units == (), report.lines
            assert any("UP" in nic.split() and source.address in nic for nic in report.nics), report.lines
    assert sha256(source.path) == before


@pytest.mark.parametrize("hardware", [NVME, pytest.param(AHCI, marks=pytest.mark.boot_matrix)], ids=["nvme", "ahci"])
def test_it_boots_by_uefi(tmp_path: Path, hardware: Hardware) -> None:
    """With variables that are empty: by the fallback loader that was put there."""
    moved(tmp_path, UEFI, {"UEFI": hardware.uefi()}, "--grow")


@pytest.mark.boot_matrix
@pytest.mark.parametrize("words", [(), ("--grow",)], ids=" ".join)
def test_it_boots_by_bios(tmp_path: Path, words: tuple[str, ...]) -> None:
    moved(tmp_path, BIOS, {"AHCI": AHCI, "NVMe": NVME}, *words)


@pytest.mark.boot_matrix
def test_a_guest_of_esxi_boots(tmp_path: Path) -> None:
    """Sent over ssh to the machine that has the disk: this one."""
    with sshd(tmp_path / "sshd") as server:
        moved(tmp_path, Guest("esxi", layout="lvm", stable=True, network="netplan"), {"AHCI": AHCI, "NVMe": NVME}, "--to",
              server.uri("metal+ssh", ""))
