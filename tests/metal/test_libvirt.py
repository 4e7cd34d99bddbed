"""v2p of machines of a real libvirtd, here and behind ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.libvirtd import Libvirtd
from fixtures.sshd import Sshd
from tests.libvirt_endpoint.conftest import daemon, pool, ssh
from tests.libvirt_endpoint.domains import disk, domain
from tests.metal.physical import MIB, has, image, physical, result, serial, written
from tests.oracle import tool
from tests.program import imgtool

__all__ = ["daemon", "pool", "ssh"]


@pytest.fixture
def raw(daemon: Libvirtd, pool: Path, tmp_path: Path) -> Path:
    """What the second of the two disks of the machine ``web`` has."""
    source = image(tmp_path)
    tool("qemu-img", "create", "-q", "-f", "qcow2", pool / "first.qcow2", "4M")
    tool("qemu-img", "convert", "-O", "qcow2", source, pool / "second.qcow2")
    daemon.virsh("pool-refresh", "default")
    first, second = disk(pool / "first.qcow2"), disk(pool / "second.qcow2", device="vdb")
    daemon.define(domain("web", first, second), tmp_path)
    return source


def test_a_disk_of_a_machine_here(daemon: Libvirtd, raw: Path, tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        words = ("v2p", "web", "--from", daemon.address, "--disk", f"vdb={device}", "--no-adapt", "--json")
        plan = result(imgtool(*words, "--dry-run"))
        assert (plan["machine"], plan["disks"][0]["image"]) == ("web", str(tmp_path / "default" / "second.qcow2"))
        done = result(imgtool(*words, "--yes-write-to", serial(device)))
        assert done["machine"] == "web"
        assert [one for one in done["warnings"] if "vda of web is not written" in one]
        has(device, raw)


def test_one_that_runs_is_refused(daemon: Libvirtd, raw: Path, tmp_path: Path) -> None:
    assert raw.exists()
    daemon.virsh("start", "web")
    with physical(tmp_path, 80 * MIB) as device:
        before = written(device)
        done = imgtool("v2p", "web", "--from", daemon.address, "--disk", f"vdb={device}", "--no-adapt", "--yes-write-to",
                       serial(device))
        assert (done.returncode, "web is running" in done.stderr) == (4, True), done.stderr
        assert written(device) == before


def test_a_disk_of_a_machine_behind_ssh(daemon: Libvirtd, ssh: Sshd, raw: Path, tmp_path: Path) -> None:
    """It comes here first; the physical disk is at the other end, too."""
    with physical(tmp_path, 80 * MIB) as device:
        done = result(imgtool("v2p", "web", "--from", ssh.uri("qemu+ssh", "/system", socket=daemon.socket), "--to",
                              ssh.uri("metal+ssh", ""), "--disk", f"vdb={device}", "--no-adapt", "--json", "--yes-write-to",
                              serial(device)))
        assert done["disks"][0]["verified"]
        has(device, raw)
