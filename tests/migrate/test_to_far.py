"""migrate to where disks must be sent: a simulated ESXi, a libvirtd behind ssh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Server, Simulator, esxi
from fixtures.libvirtd import Libvirtd
from fixtures.sshd import Sshd
from imgtool.endpoints.uri import parse
from imgtool.errors import ImgtoolError
from imgtool.model.devices import Network, NetworkKind
from imgtool.model.endpoint import Credentials
from imgtool.model.guest import AdaptResult, OsInfo
from imgtool.model.migration import MigrateRequest
from imgtool.progress import Control
from imgtool.steps.migrate import far, migrate
from tests.libvirt_endpoint.conftest import ssh
from tests.migrate.machines import MIB, same, vmx
from tests.migrate.test_files import work_left
from tests.migrate.test_near_libvirt import address
from tests.program import ENVIRONMENT, ROOT, imgtool, result

__all__ = ["ssh"]


@contextmanager
def empty_host(store: Path, **how: object) -> Iterator[Simulator]:
    store.mkdir()
    with esxi([Datastore(name="datastore1", directory=store)], server=Server(networks=("VM Network", "prod"), **how)) as server:
        yield server


def to_esxi(server: Simulator, source: object, *more: object) -> list[str]:
    words = ("migrate", "--from", source, "--to", server.uri(), "--to-password-file", server.password_file, *more)
    return [str(one) for one in words]


def test_libvirt_to_esxi(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    first = vmx(tmp_path / "in", disks=(24 * MIB, 8 * MIB), firmware="efi")
    result("migrate", "--from", first, "--to", address(daemon), "--map-network", "VM Network=nat", "--no-adapt")
    with empty_host(tmp_path / "store") as server:
        arguments = to_esxi(server, address(daemon), "--no-adapt", "--map-network", "nat=prod", "--name", "web02")
        plan = result(*arguments, "--dry-run")
        assert [one["verb"] for one in plan["steps"]] == ["stage", "stage", "send", "compare", "rename"]
        assert plan["steps"][2]["bytes"] >= 9 * MIB
        said = result(*arguments)
        listed = result("migrate", "--from", server.uri(), "--password-file", server.password_file, "--list")
        assert [one["name"] for one in listed["machines"]] == ["web02"]
        assert [one["engine"] for one in said["disks"]] == ["in place", "in place"]
        back = result("migrate", "web02", "--from", server.uri(), "--password-file", server.password_file,
                      "--to", tmp_path / "back", "--map-network", "prod=nat", "--no-adapt")
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", back["disks"][number]["destination"], "qcow2")
    text = (tmp_path / "back" / "web02.xml").read_text()
    assert "564d1122-3344-5566-7788-99aabbccddee" in text
    assert "00:50:56:01:02:03" in text
    assert 'firmware="efi"' in text
    assert work_left(tmp_path) == []
    assert sorted(os.listdir(pool)) == ["web01-0.qcow2", "web01-1.qcow2"]


def test_what_is_wrong_is_answered_with_what_there_is(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", disks=(MIB,))
    with empty_host(tmp_path / "store") as server:
        for option, words in ((("--storage", "gold"), "datastore1"), (("--map-network", "VM Network=dmz"), "'prod'"),
                              (("--pool", "fast"), "Resources")):
            done = imgtool(*to_esxi(server, source, *option))
            assert done.returncode == 2, done.stderr
            assert words in done.stderr
        assert server.counters()["calls"].get("ImportVApp", 0) == 0


def test_a_failed_upload_leaves_nothing(tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", disks=(24 * MIB,))
    with empty_host(tmp_path / "store") as server:
        server.order(match="nfc", cuts=[100_000] * 100)
        done = imgtool(*to_esxi(server, source))
        assert done.returncode == 8, done.stderr
        found = result("migrate", "--from", server.uri(), "--password-file", server.password_file, "--list")
        assert found["machines"] == []
        server.order()
        said = result(*to_esxi(server, source))
        assert said["machine"] == "web01"
    assert work_left(tmp_path) == []


def test_to_a_host_behind_ssh(daemon: Libvirtd, pool: Path, ssh: Sshd, tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", disks=(24 * MIB, 8 * MIB))
    there = ssh.uri("qemu+ssh", "/system", socket=daemon.socket)
    arguments = ("migrate", "--from", source, "--to", there, "--map-network", "VM Network=nat", "--no-adapt")
    assert [one["verb"] for one in result(*arguments, "--dry-run")["steps"]] == ["stage", "stage", "send", "compare", "rename"]
    result(*arguments)
    assert sorted(os.listdir(pool)) == ["web01-0.qcow2", "web01-1.qcow2"]
    assert daemon.virsh("list", "--all", "--name").split() == ["web01"]
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", pool / f"web01-{number}.qcow2", "qcow2")
    back = result("migrate", "web01", "--from", there, "--to", tmp_path / "back", "--name", "web02")
    assert sorted(os.listdir(tmp_path / "back")) == ["web02-0.qcow2", "web02-1.qcow2", "web02.xml"]
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", back["disks"][number]["destination"], "qcow2")
    assert work_left(tmp_path) == []


@pytest.mark.parametrize("cut", [False, True], ids=["killed", "cut"])
def test_goes_on_behind_ssh(daemon: Libvirtd, pool: Path, ssh: Sshd, tmp_path: Path, cut: bool) -> None:
    """The overlay, or the source, and the block map say what is there already."""
    source = vmx(tmp_path / "in", disks=(64 * MIB,))
    arguments = [str(one) for one in ("migrate", "--from", source, "--to", ssh.uri("qemu+ssh", "/system", socket=daemon.socket),
                                      "--map-network", "VM Network=nat", "--no-adapt", "--json")]
    ends = []
    while 0 not in ends and len(ends) < (1 if cut else 2):
        child = subprocess.Popen([sys.executable, "-m", "imgtool", *arguments, "--rate-limit", "3M"], env=ENVIRONMENT, cwd=ROOT,
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.monotonic() + 120
        before = sum(path.stat().st_blocks for path in pool.glob("*"))
        while sum(path.stat().st_blocks for path in pool.glob("*")) < before + 4096 and child.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        if cut:
            ssh.cut()
        else:
            child.kill()
        _, err = child.communicate()
        assert child.returncode in ((0, 8) if cut else (-9,)), err  # after a cut it may connect again by itself
        ends.append(child.returncode)
        assert daemon.virsh("list", "--all", "--name").split() == (["web01"] if child.returncode == 0 else [])
    if 0 not in ends:
        done = subprocess.run([sys.executable, "-m", "imgtool", *arguments], env=ENVIRONMENT, cwd=ROOT, text=True,
                              capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["verified"]
    same(tmp_path / "in" / "0.raw", pool / "web01.qcow2", "qcow2")
    assert os.listdir(pool) == ["web01.qcow2"]
    assert work_left(tmp_path) == []


def test_through_an_ova_both_ways(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    """libvirt → OVA → simulated ESXi → OVA → libvirt: each time the same bytes, uuid-less as packages are, the same addresses."""
    first = vmx(tmp_path / "in", disks=(24 * MIB, 8 * MIB))
    result("migrate", "--from", first, "--to", address(daemon), "--map-network", "VM Network=nat", "--no-adapt")
    said = result("migrate", "web01", "--from", address(daemon), "--to", tmp_path / "a.ova", "--map-network", "nat=prod",
                  "--no-adapt")
    assert sorted(path.name for path in tmp_path.glob("*.ova")) == ["a.ova"]
    assert [one["engine"] for one in said["disks"]] == ["in place", "in place"]
    assert imgtool("migrate", "web01", "--from", address(daemon), "--to", tmp_path / "a.ova", "--no-adapt").returncode == 4
    with empty_host(tmp_path / "store") as server:
        result(*to_esxi(server, tmp_path / "a.ova", "--no-adapt", "--name", "web02"))
        there = ("--from", server.uri(), "--password-file", server.password_file)
        result("migrate", "web02", *there, "--to", tmp_path / "b.ova", "--no-adapt")
    daemon.virsh("undefine", "web01")
    back = result("migrate", "--from", tmp_path / "b.ova", "--to", address(daemon), "--no-adapt", "--map-network", "prod=nat")
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", pool / f"web02-{number}.qcow2", "qcow2")
    assert back["machine"] == "web02"
    assert "00:50:56:01:02:03" in daemon.virsh("dumpxml", "web02", "--inactive")
    assert work_left(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("option", ["--thick", "--storage=x"])
def test_what_a_package_cannot_be(tmp_path: Path, option: str) -> None:
    source = vmx(tmp_path / "in", disks=(MIB,))
    done = imgtool("migrate", "--from", source, "--to", tmp_path / "a.ova", "--no-adapt", option)
    assert done.returncode == 2, done.stderr
    assert not list(tmp_path.glob("*.ova"))
    assert not list(tmp_path.glob(".imgtool*"))


def test_what_no_change_names_is_not_sent(daemon: Libvirtd, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = vmx(tmp_path / "in", disks=(8 * MIB,))
    result("migrate", "--from", first, "--to", address(daemon), "--map-network", "VM Network=nat", "--no-adapt")
    monkeypatch.setattr(far, "adapt_overlays", lambda *_given, **_named: AdaptResult(os=OsInfo(), unlisted=("/etc/shadow",)))
    with empty_host(tmp_path / "store") as server:
        request = MigrateRequest(name="web01", source=parse(address(daemon)), target=parse(server.uri()),
                                 networks=(("nat", Network(kind=NetworkKind.BRIDGE, name="prod")),),
                                 target_credentials=Credentials(password_file=str(server.password_file)))
        with pytest.raises(ImgtoolError, match="/etc/shadow"):
            migrate(request, Control())
        assert server.counters()["calls"].get("ImportVApp", 0) == 0
