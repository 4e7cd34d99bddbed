"""A real Debian guest installs at its first boot the package that ``adapt --packages`` copied into it. TCG: two minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.debian_guests import Guest
from imgtool.guests.linux import first_boot, packages
from tests.e2e.boots import Cell, adapt, build, works
from tests.oracle import tool

CONTROL = "Package: imgtool-tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: a test\n"
FIRST = 1 << 20
"""Where the guest's root file system begins."""
SCRIPT = f"""\
#!/bin/sh
echo on >/proc/sys/kernel/printk_devkmsg
while [ -e {first_boot.SCRIPT} ]; do sleep 1; done
sleep 1
echo "<4>IMGTOOL nic tiny $(dpkg-query --show --showformat '${{Status}}' imgtool-tiny) $(cat /etc/tiny)" >/dev/kmsg
echo "<4>IMGTOOL nic left $(ls -d {packages.FOLDER} {first_boot.UNIT} {first_boot.WANTED})" >/dev/kmsg
cut -c1-200 {first_boot.LOG} | tail -n 5 | while read -r line; do echo "<4>IMGTOOL nic log $line" >/dev/kmsg; done
"""
"""Before the guest's report: its words stand among those of the network cards."""
WAITS = "/usr/local/sbin/imgtool-waits"


def tiny(folder: Path) -> Path:
    """A package of one file, which its own script writes."""
    control = folder / "tree/DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(CONTROL)
    (control / "postinst").write_text("#!/bin/sh\necho configured >/etc/tiny\n")
    (control / "postinst").chmod(0o755)
    (folder / "given").mkdir()
    tool("dpkg-deb", "--build", "--root-owner-group", folder / "tree", folder / "given/imgtool-tiny_1.0_all.deb")
    return folder / "given"


def let_the_report_wait(disk: Path, point: Path) -> None:
    point.mkdir()
    tool("mount", "-o", f"loop,offset={FIRST}", disk, point)
    try:
        (point / "etc/systemd/system/imgtool-marker.service.d/wait.conf").write_text(f"[Service]\nExecStartPre=-{WAITS}\n")
        (point / WAITS.lstrip("/")).write_text(SCRIPT)
        (point / WAITS.lstrip("/")).chmod(0o755)
    finally:
        tool("umount", point)


@pytest.mark.boot
@pytest.mark.long
def test_a_guest_installs_what_it_was_given(tmp_path: Path) -> None:
    cell = Cell(Guest("esxi"), "kvm", "VIRTIO_BLK", ("--packages", str(tiny(tmp_path))))
    disk = build(cell, tmp_path)
    let_the_report_wait(disk.path, tmp_path / "point")
    made = adapt(disk.path, cell)
    where = [change["where"] for change in made["changes"]]  # type: ignore[attr-defined]
    assert f"{packages.FOLDER}/imgtool-tiny_1.0_all.deb" in where
    assert first_boot.WANTED in where
    report = works(disk, cell.hardware)
    assert "tiny install ok installed configured" in report.nics, report.nics
    assert "left" in report.nics, report.nics
    assert "log exit code: 0" in report.nics
