"""A domain that we write is started by a real libvirtd, and the guest on its disk reports itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.debian import build
from fixtures.libvirtd import Libvirtd, boot, libvirtd
from fixtures.run import ToolError
from imgtool.descriptions.domain_xml import render
from imgtool.model.devices import Bus, DiskSlot, Network, NetworkKind, Nic, Port
from imgtool.model.machine import Cpu, Machine, Memory, Tools


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that is emptied at once: a disk is too large to be kept for the next runs."""
    path = tmp_path_factory.mktemp("domains")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def daemon(work: Path) -> Iterator[Libvirtd]:
    with libvirtd(work / "libvirt") as running:
        yield running


def machine(name: str, disk: Path, serial: Path) -> Machine:
    """A small one without KVM, whose serial port is a file."""
    return Machine(
        name=name, accelerator="qemu", chipset="q35", cpu=Cpu(mode="maximum"), memory=Memory(size=1 << 30),
        disks=(DiskSlot(path=str(disk), bus=Bus.VIRTIO, format="raw"),), serials=(Port(kind="file", path=str(serial)),),
        nics=(Nic(model="virtio", network=Network(kind=NetworkKind.NAT)),), tools=Tools(agent=True), boot=("disk",),
        rng="/dev/urandom", balloon="virtio")


@pytest.mark.long
@pytest.mark.boot
def test_debian_boots_as_a_domain(work: Path, daemon: Libvirtd) -> None:
    disk = build(work / "debian.raw")
    serial, written = work / "serial", work / "debian.xml"
    written.write_bytes(render(machine("debian", disk.path, serial)).text)
    daemon.virsh("define", "--validate", written)
    found = boot(daemon, "debian", serial)
    assert found.payload_sha256 == disk.payload_sha256
    assert found.root_source == "/dev/vda1"
    assert found.failed_units == ()


@pytest.mark.boot
def test_a_domain_that_does_not_start_says_why(work: Path, daemon: Libvirtd) -> None:
    written = work / "missing.xml"
    written.write_bytes(render(machine("missing", work / "missing.raw", work / "nothing")).text)
    daemon.virsh("define", written)
    with pytest.raises(ToolError, match=r"missing\.raw"):
        boot(daemon, "missing", work / "nothing")
