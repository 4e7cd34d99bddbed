"""migrate to a simulated ESXi: what is there afterwards is what was here, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Registered, Server, Simulator, esxi
from imgtool.descriptions import description
from tests.esxi.machines import machine as vmx_machine
from tests.migrate.machines import same
from tests.migrate.test_files import work_left
from tests.oracle import tool
from tests.program import ENVIRONMENT, ROOT, imgtool, result

MIB = 1 << 20
SIZES = (24 * MIB, 40 * MIB)
XML = """\
<domain type='kvm'><name>web01</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid><memory unit='MiB'>512</memory>
<vcpu>2</vcpu><os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{0}'/><target dev='sda' bus='scsi'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{1}'/><target dev='sdb' bus='scsi'/></disk>
<controller type='scsi' model='virtio-scsi'/>
<interface type='bridge'><source bridge='br0'/><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>
</devices></domain>
"""


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    """A libvirt machine in a folder: a qcow2 and a raw disk."""
    place = tmp_path / "kvm"
    place.mkdir()
    qcow2, raw = place / "a.qcow2", place / "b.raw"
    tool("qemu-img", "create", "-f", "qcow2", qcow2, str(SIZES[0]))
    tool("qemu-io", "-c", "write -P 1 1M 3M", "-c", "write -P 2 20M 512", qcow2)
    raw.write_bytes(os.urandom(8 * MIB))
    os.truncate(raw, SIZES[1])
    (place / "web01.xml").write_text(XML.format(qcow2, raw))
    return place / "web01.xml"


@contextmanager
def host(store: Path) -> Iterator[Simulator]:
    store.mkdir()
    with esxi([Datastore(name="ds", directory=store)], server=Server(networks=("LAN",))) as server:
        yield server


def arguments(server: Simulator, source: Path, *more: object) -> list[str]:
    return [str(one) for one in ("migrate", "--from", source, "--to", server.uri(), "--password-file", server.password_file,
                                 "--map-network", "br0=LAN", "--no-adapt", *more)]


def arrived(store: Path, domain: Path) -> None:
    """The very bytes, and the machine's own name."""
    vmx = next(store.glob("*/*.vmx"))
    made = description(".vmx").parse(vmx.read_bytes()).machine
    assert (made.uuid, made.nics[0].mac) == ("4dea22b3-1d52-d8f3-2516-782e98ab3fa0", "52:54:00:12:34:56")
    assert made.firmware.kind == "uefi"
    files = {path.stat().st_size: path for path in vmx.parent.glob("*-flat.vmdk")}
    same(files[SIZES[0]], domain.parent / "a.qcow2", "qcow2")
    same(files[SIZES[1]], domain.parent / "b.raw", "raw")


def test_from_a_folder(domain: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in domain.parent.iterdir()}
    with host(tmp_path / "store") as server:
        said = result(*arguments(server, domain, "--report", tmp_path / "report.html"))
        listed = result("migrate", "--from", server.uri(), "--password-file", server.password_file, "--to", tmp_path / "x",
                        "--list")
        assert [one["name"] for one in listed["machines"]] == ["web01"]
        assert server.counters()["leases"] == 0
        arrived(tmp_path / "store", domain)
    assert said["verified"]
    assert {path.name: path.stat().st_mtime_ns for path in domain.parent.iterdir()} == before
    assert work_left(tmp_path) == []


def test_a_target_that_is_full(domain: Path, tmp_path: Path) -> None:
    with host(tmp_path / "store") as server:
        server.order(match="none", full_after=MIB)
        done = imgtool(*arguments(server, domain))
        assert done.returncode == 7, done.stderr
        assert list((tmp_path / "store").iterdir()) == []
        server.reset()
        result(*arguments(server, domain))
        arrived(tmp_path / "store", domain)


def test_killed_while_it_sends(domain: Path, tmp_path: Path) -> None:
    """The half-made machine is taken away by the next run, or by its lease's end."""
    with host(tmp_path / "store") as server:
        server.order(match="nfc", bytes_per_second=MIB)
        child = subprocess.Popen([sys.executable, "-m", "imgtool", *arguments(server, domain)], env=ENVIRONMENT, cwd=ROOT,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        while not any("disk-" in path and count for path, count in server.counters()["bytes"].items()):
            assert time.monotonic() < until
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        server.reset()
        result(*arguments(server, domain))
        arrived(tmp_path / "store", domain)
        assert len(list((tmp_path / "store").glob("*/*.vmx"))) == 1
    assert work_left(tmp_path) == []


def test_what_is_wrong_is_said_before(domain: Path, tmp_path: Path) -> None:
    """A name that is taken; a network that is not there, with those that are."""
    (tmp_path / "store").mkdir()
    path = vmx_machine(tmp_path / "store", "web01", [MIB])
    with esxi([Datastore(name="ds", directory=tmp_path / "store")], [Registered(path=f"[ds] {path}")]) as server:
        done = imgtool(*arguments(server, domain, "--dry-run"))
        assert (done.returncode, "there is no network 'LAN'" in done.stderr, "'VM Network'" in done.stderr) == (2, True, True)
    with esxi([Datastore(name="ds", directory=tmp_path / "store")], [Registered(path=f"[ds] {path}")],
              Server(networks=("LAN",))) as server:
        plan = json.loads(imgtool(*arguments(server, domain, "--dry-run", "--json")).stdout)
        assert "ImportVApp" not in server.counters()["calls"]
    assert "[target.name]" in " ".join(one["what"] for one in plan["problems"])


@pytest.mark.parametrize("way", [(), ("?transport=lease",)])
def test_from_one_host_to_another(tmp_path: Path, way: tuple[str, ...]) -> None:
    (tmp_path / "old").mkdir()
    path = vmx_machine(tmp_path / "old", "web01", [6 * MIB, 9 * MIB], data=((MIB, MIB),))
    with esxi([Datastore(name="ds", directory=tmp_path / "old")], [Registered(path=f"[ds] {path}")]) as source, \
            host(tmp_path / "store") as server:
        uri = source.uri() + ("&transport=lease" if way else "")
        result("migrate", "web01", "--from", uri, "--password-file", source.password_file, "--to", server.uri(),
               "--map-network", "VM Network=LAN", "--to-password-file", server.password_file)
    for name in ("web01", "web01_1"):
        old = tmp_path / "old" / "web01" / f"{name}-flat.vmdk"
        files = {one.stat().st_size: one for one in (tmp_path / "store").glob("*/*-flat.vmdk")}
        same(files[old.stat().st_size], old, "raw")
