"""Machines of VMware, translated and converted, start in a real libvirtd with a real Debian, as it is: no driver was added."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures import debian, machine_folder
from fixtures.libvirtd import boot, libvirtd
from tests.program import imgtool

PTY = re.compile(r'<serial type="pty">')


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """Emptied at once: a disk is too large to be kept for the next runs."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def run(*args: object) -> None:
    done = imgtool(*args)
    assert done.returncode == 0, done.stderr


def translated(vmx: Path, work: Path) -> Path:
    """Only the description: the guest starts on the VMDK."""
    run("translate", vmx, work / "vm.xml")
    return work / "vm.xml"


def converted(vmx: Path, work: Path) -> Path:
    run("convert", vmx, work / "kvm", "--to", "qcow2")
    return work / "kvm" / "vm.xml"


def packed(vmx: Path, work: Path) -> Path:
    """Into an OVA and out of it."""
    run("convert", vmx, work / "vm.ova", "--to", "vmdk")
    run("convert", work / "vm.ova", work / "kvm", "--to", "qcow2")
    return work / "kvm" / "vm.xml"


@pytest.mark.boot
@pytest.mark.long
@pytest.mark.parametrize(("way", "bus", "bus_there", "chipset"), [
    (converted, "scsi0", 'model="vmpvscsi"', "q35"),
    (translated, "ide0", 'bus="ide"', "pc"),
    (packed, "scsi0", 'model="vmpvscsi"', "q35"),
])
def test_starts(work: Path, way: Callable[[Path, Path], Path], bus: str, bus_there: str, chipset: str) -> None:
    disk = debian.build(work / "debian.raw")
    xml = way(machine_folder.around(disk.path, work / "esxi", bus=bus), work)
    text = xml.read_text(encoding="utf-8")
    assert bus_there in text
    assert re.search(rf'machine="{chipset}[-"]|machine="pc-{chipset}', text) or f'machine="{chipset}"' in text
    serial = work / "serial.log"
    text, count = PTY.subn(f'<serial type="file"><source path="{serial}"/>', text)
    assert count == 1
    xml.write_text(text, encoding="utf-8")
    with libvirtd(work / "libvirtd") as daemon:
        daemon.virsh("define", "--validate", xml)
        found = boot(daemon, "vm", serial)
    assert found.payload_sha256 == disk.payload_sha256
    assert found.failed_units == ()
