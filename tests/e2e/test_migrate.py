"""Whole migrations of real guests: born on one hypervisor, they boot on the other, with their network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import debian_guests
from fixtures.debian_guests import Guest, GuestDisk
from fixtures.esxi import Datastore, Registered, Simulator, esxi
from fixtures.guest_disks import LAYOUTS
from fixtures.hardware import LSISAS1068, MAC, PVSCSI, VIRTIO_SCSI, Hardware
from fixtures.libvirtd import Libvirtd, boot
from fixtures.marker import Marker
from tests.e2e.boots import sha256, works
from tests.esxi.machines import describe
from tests.libvirt_endpoint.conftest import daemon, pool
from tests.libvirt_endpoint.domains import NIC, domain
from tests.libvirt_endpoint.domains import disk as libvirt_disk
from tests.metal.copies import disk as loop
from tests.migrate.test_near_libvirt import address
from tests.program import ENVIRONMENT, imgtool, result

__all__ = ["daemon", "pool"]
PTY = re.compile(r"<serial type='pty'>")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Emptied at once: disks are too large to be kept for the next runs."""
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(tmp_path / "state"))
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def on_esxi(guest: Guest, work: Path, *, firmware: str = "bios") -> tuple[GuestDisk, Datastore, Registered]:
    """The guest as a machine on a datastore."""
    store = work / "store"
    (store / "web01").mkdir(parents=True)
    disk = debian_guests.build(store / "web01" / "web01-flat.vmdk", guest)
    path = describe(store, "web01", (disk.path.stat().st_size,), extra=f'firmware = "{firmware}"')
    return disk, Datastore(name="datastore1", directory=store), Registered(path=f"[datastore1] {path}")


def migrated(server: Simulator, target: str, *more: object) -> dict[str, object]:
    found: dict[str, object] = result("migrate", "web01", "--from", server.uri(), "--password-file", server.password_file,
                                      "--to", target, *more)
    return found


def booted(daemon: Libvirtd, name: str, work: Path) -> Marker:
    """Starts a machine that was defined, with its serial port in a file."""
    serial = work / "serial.log"
    text = daemon.virsh("dumpxml", name, "--inactive")
    text, count = PTY.subn(f'<serial type="file"><source path="{serial}"/>', text)
    assert count == 1
    (work / "changed.xml").write_text(text, encoding="utf-8")
    daemon.virsh("define", work / "changed.xml")
    return boot(daemon, name, serial, timeout=500)


@pytest.mark.boot
@pytest.mark.parametrize(("guest", "firmware"), [
    (Guest("esxi"), "bios"),
    pytest.param(Guest("esxi", layout="uefi", stable=True, network="networkd"), "efi", marks=pytest.mark.long),
], ids=["bios", "uefi"])
def test_from_esxi_to_libvirt(daemon: Libvirtd, pool: Path, work: Path, guest: Guest, firmware: str) -> None:
    """The card of the guest is ens192 with a static address: it stays so, although virtio's is another."""
    disk, store, machine = on_esxi(guest, work, firmware=firmware)
    before = disk.path.stat().st_mtime_ns
    with esxi([store], [machine]) as server:
        said = migrated(server, address(daemon), "--map-network", "VM Network=nat")
    assert said["changes"]
    assert disk.path.stat().st_mtime_ns == before
    text = daemon.virsh("dumpxml", "web01", "--inactive")
    assert "bus='virtio'" in text
    assert "<model type='virtio'/>" in text
    found = booted(daemon, "web01", work)
    assert found.root_source == f"/dev/vda{LAYOUTS[guest.layout].partition('/')[0]}"
    assert found.payload_sha256 == disk.payload_sha256
    assert found.failed_units == ()
    assert disk.address in " ".join(found.nics)


@pytest.mark.boot
@pytest.mark.long
def test_started_and_looked_at(daemon: Libvirtd, pool: Path, work: Path) -> None:
    _, store, machine = on_esxi(Guest("esxi"), work)
    with esxi([store], [machine]) as server:
        said = migrated(server, address(daemon), "--map-network", "VM Network=nat", "--start", "--report", work / "report.html")
    assert "serial console" in str(said["started"])
    assert str(said["started"]) in (work / "report.html").read_text()
    assert imgtool("migrate", "--from", address(daemon), "--list").stdout.split()[1] == "web01"


@pytest.mark.boot
@pytest.mark.parametrize(("guest", "there"), [
    pytest.param(Guest("kvm", layout="gpt", stable=True, network="networkd"), (PVSCSI,), marks=pytest.mark.long),
    pytest.param(Guest("kvm", layout="lvm", network="netplan"), (PVSCSI, LSISAS1068), marks=pytest.mark.long),
], ids=["gpt", "lvm"])
def test_from_libvirt_to_esxi(daemon: Libvirtd, pool: Path, work: Path, guest: Guest, there: tuple[Hardware, ...]) -> None:
    """Born on virtio; what the datastore has afterwards boots on pvscsi and vmxnet3, and on older hardware. The source is as
    it was."""
    disk = debian_guests.build(pool / "kvm01.raw", guest)
    before = sha256(disk.path)
    daemon.define(domain("kvm01", libvirt_disk(disk.path, form="raw"), NIC), work)
    (work / "store").mkdir()
    with esxi([Datastore(name="datastore1", directory=work / "store")]) as server:
        said = result("migrate", "kvm01", "--from", address(daemon), "--to", server.uri(),
                      "--password-file", server.password_file, "--map-network", "nat=VM Network")
    assert said["changes"]
    assert sha256(disk.path) == before
    (flat,) = (work / "store").rglob("*-flat.vmdk")
    (vmx,) = (work / "store").rglob("*.vmx")
    text = vmx.read_text()
    assert 'virtualDev = "pvscsi"' in text
    assert "vmxnet3" in text.lower()
    for hardware in there:
        works(replace(disk, path=flat), hardware)


@pytest.mark.boot
@pytest.mark.parametrize("guest", [
    Guest("metal", layout="boot", network="networkd"),
    pytest.param(Guest("metal", layout="boot", root="xfs", network="networkmanager"), marks=pytest.mark.long),
], ids=["ext4", "xfs"])
def test_p2v(daemon: Libvirtd, pool: Path, work: Path, guest: Guest) -> None:
    """A loop device as the disk of a machine with AHCI and e1000e, which its guest knows and no others."""
    disk = debian_guests.build(work / "metal.raw", guest)
    with loop(disk.path) as device:
        said = result("p2v", "metal01", "--from", f"metal://{device}", "--to", address(daemon), "--map-network", "default=nat",
                      "--format", "raw")
    assert said["changes"]
    text = daemon.virsh("dumpxml", "metal01", "--inactive")
    assert "bus='virtio'" in text
    (made,) = said["disks"]
    works(replace(disk, path=Path(made["destination"])), with_card_of(text, VIRTIO_SCSI))


def with_card_of(text: str, hardware: Hardware) -> Hardware:
    """With the address of a domain's card: of the machine that the test runs on, where that has one with a device behind it."""
    found = re.search(r"<mac address='([0-9a-f:]+)'", text)
    return replace(hardware, nic=tuple(word.replace(MAC, found[1] if found else MAC) for word in hardware.nic))
