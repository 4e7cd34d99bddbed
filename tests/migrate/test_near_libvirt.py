"""migrate to and from a libvirtd of this machine: defined under its name, once, when the disks are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.libvirtd import Libvirtd
from tests.migrate.machines import MIB, left_behind, same, vmx
from tests.migrate.test_files import work_left
from tests.program import ENVIRONMENT, ROOT, imgtool, result

NETWORK = ("--map-network", "VM Network=network:default")


def address(daemon: Libvirtd) -> str:
    """As imgtool takes it."""
    return daemon.uri.replace("qemu+unix://", "qemu://")


def test_from_vmware_files(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", name="web 01", firmware="efi")
    arguments = ("migrate", "--from", source, "--to", address(daemon), "--map-network", "VM Network=none", "--no-adapt")
    plan = result(*arguments, "--dry-run")
    assert [step["verb"] for step in plan["steps"]] == ["copy", "copy", "define"]
    assert os.listdir(pool) == []
    said = result(*arguments)
    assert sorted(os.listdir(pool)) == ["web 01-0.qcow2", "web 01-1.qcow2"]
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", pool / f"web 01-{number}.qcow2", "qcow2")
    assert daemon.virsh("list", "--all", "--name").split("\n")[0].strip() == "web 01"
    assert daemon.virsh("domuuid", "web 01").strip() == said["id"] == "564d1122-3344-5566-7788-99aabbccddee"
    assert "disable" in daemon.virsh("dominfo", "web 01").split("Autostart:")[1].split("\n")[0]
    text = daemon.virsh("dumpxml", "web 01", "--inactive")
    assert "firmware='efi'" in text or "pflash" in text
    assert f"{pool}/web 01-0.qcow2" in text
    assert work_left(tmp_path) == []
    again = imgtool(*arguments)
    assert again.returncode == 4, again.stderr
    assert "[target.name" in again.stderr
    assert "[target.uuid" in again.stderr or "more" in again.stderr


DIES = """
import os, sys
from imgtool.endpoints.libvirt.target import NearTarget
place, name, when = NearTarget, *sys.argv[1:3]
real = getattr(place, name)
def dies(*given):
    if when == "after":
        real(*given)
    os.kill(os.getpid(), 9)
setattr(place, name, dies)
sys.argv = ["imgtool", *sys.argv[3:]]
from imgtool.cli.app import main
main()
"""


def test_it_is_not_made_twice(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    """Killed before and after each step of the end; then one machine is there, and nothing else."""
    source = vmx(tmp_path / "in", disks=(8 * MIB,))
    arguments = ["migrate", "--from", str(source), "--to", address(daemon), "--map-network", "VM Network=none", "--no-adapt"]
    for name, when in (("define", "before"), ("define", "after"), ("rename", "before")):
        done = subprocess.run([sys.executable, "-c", DIES, name, when, *arguments], env=ENVIRONMENT, cwd=ROOT, check=False,
                              capture_output=True, text=True)
        assert done.returncode == -9, (name, when, done.stderr)
    said = result(*arguments)
    assert daemon.virsh("list", "--all", "--name").split() == ["web01"]
    assert os.listdir(pool) == ["web01.qcow2"]
    same(tmp_path / "in" / "0.raw", pool / "web01.qcow2", "qcow2")
    assert said["machine"] == "web01"
    assert work_left(tmp_path) == []


@pytest.mark.parametrize(("name", "when", "left"), [
    ("define", "before", []), ("define", "after", []), ("rename", "before", []), ("rename", "after", ["web01"])])
def test_discard_partial(daemon: Libvirtd, pool: Path, tmp_path: Path, name: str, when: str, left: list[str]) -> None:
    """A half-made machine goes with its disks; one that has its name is whole."""
    source = vmx(tmp_path / "in", disks=(8 * MIB,))
    arguments = ["migrate", "--from", str(source), "--to", address(daemon), "--map-network", "VM Network=none", "--no-adapt"]
    done = subprocess.run([sys.executable, "-c", DIES, name, when, *arguments], env=ENVIRONMENT, cwd=ROOT, check=False,
                          capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    defined = daemon.virsh("list", "--all", "--name").split()
    removed = result(*arguments, "--discard-partial")["removed"]
    assert {*removed} >= {*defined} - {*left}
    assert daemon.virsh("list", "--all", "--name").split() == left
    assert os.listdir(pool) == [f"{one}.qcow2" for one in left]
    assert work_left(tmp_path) == []


def test_what_cannot_be_defined_is_taken_back(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    source = vmx(tmp_path / "in", disks=(8 * MIB,))
    done = imgtool("migrate", "--from", source, "--to", address(daemon), "--map-network", "VM Network=network:nowhere",
                   "--no-adapt")
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr
    assert os.listdir(pool) == []


@pytest.mark.parametrize(("storage", "words"), [
    ("gold", "there is no storage pool 'gold'"), ("/nowhere", "/nowhere is no folder")])
def test_wrong_storage(daemon: Libvirtd, pool: Path, tmp_path: Path, storage: str, words: str) -> None:
    source = vmx(tmp_path / "in", disks=(MIB,))
    done = imgtool("migrate", "--from", source, "--to", address(daemon), "--storage", storage)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_from_libvirt_into_a_folder(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    first = vmx(tmp_path / "in", disks=(8 * MIB, 16 * MIB))
    result("migrate", "--from", first, "--to", address(daemon), "--map-network", "VM Network=none", "--no-adapt")
    assert result("migrate", "--from", address(daemon), "--list")["machines"][0]["name"] == "web01"
    said = result("migrate", "web01", "--from", address(daemon), "--to", tmp_path / "out", "--name", "copy", "--new-identity")
    assert sorted(os.listdir(tmp_path / "out")) == ["copy-0.qcow2", "copy-1.qcow2", "copy.xml"]
    assert said["changes"] == []
    for number in range(2):
        same(tmp_path / "in" / f"{number}.raw", tmp_path / "out" / f"copy-{number}.qcow2", "qcow2")
    assert left_behind(pool) == []


PATCHED = """
import sys
from imgtool.endpoints.libvirt.target import NearTarget
from imgtool.errors import ImgtoolError
def fails(*given):
    raise ImgtoolError("there is no memory for it")
if sys.argv.pop(1) == "fails":
    NearTarget.start = fails
NearTarget.watch = lambda *given: "it runs"
from imgtool.__main__ import main
main()
"""


def test_what_did_not_start_is_started_by_the_same_command(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    """What was copied is not copied again, and one machine is there at the end."""
    source = vmx(tmp_path / "in", disks=(8 * MIB,))
    words = ("migrate", "--from", source, "--to", address(daemon), "--map-network", "VM Network=none", "--no-adapt", "--start")

    def run(way: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", PATCHED, way, *map(str, words)]
        return subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    failed = run("fails")
    assert failed.returncode == 1, failed.stderr
    assert "no memory" in failed.stderr
    before = os.stat(pool / "web01.qcow2").st_ino
    try:
        done = run("starts")
        assert done.returncode == 0, done.stderr
        assert daemon.virsh("domstate", "web01").strip() == "running"
    finally:
        daemon.virsh("destroy", "web01")
    assert os.stat(pool / "web01.qcow2").st_ino == before
    assert daemon.virsh("list", "--all", "--name").split() == ["web01"]
    assert work_left(tmp_path) == []
