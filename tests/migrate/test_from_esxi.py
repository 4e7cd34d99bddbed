"""migrate from a simulated ESXi: what arrives is what is there, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures import notes_machine
from fixtures.esxi import Datastore, Registered, Simulator, esxi
from fixtures.libvirtd import Libvirtd
from tests.esxi.machines import ODD_NAME, machine
from tests.migrate.machines import same
from tests.migrate.test_files import wait_for, work_left
from tests.migrate.test_near_libvirt import address
from tests.program import ENVIRONMENT, ROOT, imgtool, result

MIB = 1 << 20
SIZES = (96 * MIB, 24 * MIB + 512)
DATA = ((0, 5 * MIB), (20 * MIB, 3 * MIB + 700))
OPTIONS = ("--map-network", "VM Network=none", "--no-adapt")


@contextmanager
def host(store: Path, name: str = "web01", sizes: tuple[int, ...] = SIZES, *, data: tuple[tuple[int, int], ...] | None = DATA,
         extra: str = "", running: bool = False) -> Iterator[Simulator]:
    """An ESXi with one machine; ``ENVIRONMENT`` holds its password."""
    store.mkdir()
    path = machine(store, name, sizes, data=data, extra=extra)
    with esxi([Datastore(name="datastore1", directory=store)],
              [Registered(path=f"[datastore1] {path}", running=running)]) as server:
        yield server


def arguments(server: Simulator, target: object, *more: object) -> list[str]:
    return [str(one) for one in ("migrate", "--from", server.uri(), "--password-file", server.password_file, "--to", target,
                                 *OPTIONS, *more)]


def flats(store: Path, name: str = "web01") -> list[Path]:
    return sorted((store / name).glob("*-flat.vmdk"), key=lambda path: (len(path.name), path.name))


@pytest.mark.parametrize("name", ["web01", ODD_NAME])
def test_into_a_folder(tmp_path: Path, name: str) -> None:
    with host(tmp_path / "store", name) as server:
        assert result(*arguments(server, tmp_path / "x", "--list"))["machines"][0]["name"] == name
        plan = result(*arguments(server, tmp_path / "out", "--dry-run"))
        assert [one["verb"] for one in plan["steps"]] == ["copy", "copy", "define"]
        assert plan["steps"][0]["estimate_seconds"] > 0
        said = result(*arguments(server, tmp_path / "out"))
    for number, raw in enumerate(flats(tmp_path / "store", name)):
        same(raw, tmp_path / "out" / f"{name}-{number}.qcow2", "qcow2")
        assert os.stat(tmp_path / "out" / f"{name}-{number}.qcow2").st_blocks * 512 < 12 * MIB
    assert [one["bytes_read"] <= size for one, size in zip(said["disks"], SIZES, strict=True)] == [True, True]
    assert work_left(tmp_path) == []


def test_a_running_machine(tmp_path: Path) -> None:
    with host(tmp_path / "store", running=True) as server:
        done = imgtool(*arguments(server, tmp_path / "out"))
        assert done.returncode == 4, done.stderr
        assert "[source.running]" in done.stderr


def test_shut_down_first(tmp_path: Path) -> None:
    """Only where it is asked for, and by the guest's own tools."""
    (tmp_path / "store").mkdir()
    path = machine(tmp_path / "store", "web01", (8 * MIB,))
    with esxi([Datastore(name="datastore1", directory=tmp_path / "store")],
              [Registered(path=f"[datastore1] {path}", running=True, tools=True)]) as server:
        said = result(*arguments(server, tmp_path / "out", "--shutdown-source"))
        assert server.counters()["calls"]["ShutdownGuest"] == 1
        listed = result(*arguments(server, tmp_path / "x", "--list"))
    assert listed["machines"][0]["power"] == "off"
    assert said["machine"] == "web01"
    same(flats(tmp_path / "store")[0], tmp_path / "out" / "web01.qcow2", "qcow2")


def started(server: Simulator, target: object, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "imgtool", *arguments(server, target, *more), "--json"], env=ENVIRONMENT,
                            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_five_times(daemon: Libvirtd, pool: Path, tmp_path: Path) -> None:
    """Each run goes on where the last one was; nothing that is on the disk is fetched again."""
    sizes, killed = (64 * MIB,), 0
    chance = random.Random(5)
    with host(tmp_path / "store", sizes=sizes, data=None) as server:
        server.order(bytes_per_second=24 * MIB)
        copy = pool / "web01.qcow2.imgtool-partial"
        for count in range(1, 6):
            child = started(server, address(daemon))
            wait_for(copy, count * 8 * MIB)
            time.sleep(chance.random() / 4)
            child.kill()
            child.communicate()
            killed += 1
        server.order()
        child = started(server, address(daemon))
        out, err = child.communicate()
        assert child.returncode == 0, err
        sent = sum(count for path, count in server.counters()["bytes"].items() if path.endswith("-flat.vmdk"))
    assert json.loads(out)["disks"][0]["bytes_read"] <= 64 * MIB
    assert sent <= 64 * MIB + killed * 64 * MIB  # what a killed run has fetched since its map was saved comes again
    same(flats(tmp_path / "store")[0], pool / "web01.qcow2", "qcow2")
    assert os.listdir(pool) == ["web01.qcow2"]
    assert work_left(tmp_path) == []


def test_cut_and_expired(tmp_path: Path) -> None:
    """Twenty connections cut, a session that ends on both ways in, a burst of 503: one run, and few bytes again."""
    with host(tmp_path / "store", sizes=(96 * MIB,), data=None) as server:
        chance = random.Random(20)
        server.order(match="-flat.vmdk", cuts=[chance.randrange(1, 6 * MIB) for _ in range(20)], unavailable=6, retry_after=0)
        child = started(server, tmp_path / "out")
        wait_for(tmp_path / "out" / "web01.qcow2.imgtool-partial", 8 * MIB)
        server.expire()
        out, err = child.communicate()
        assert child.returncode == 0, err
        sent = sum(count for path, count in server.counters()["bytes"].items() if path.endswith("-flat.vmdk"))
    same(flats(tmp_path / "store")[0], tmp_path / "out" / "web01.qcow2", "qcow2")
    assert json.loads(out)["disks"][0]["bytes_read"] == 96 * MIB
    assert sent <= 96 * MIB + 21 * 8 * 2 * MIB


def test_the_password_is_nowhere(tmp_path: Path) -> None:
    with host(tmp_path / "store") as server:
        server.order(bytes_per_second=12 * MIB)
        child = started(server, tmp_path / "out", "--report", tmp_path / "report.html")
        seen = set()
        while child.poll() is None:
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(place.read_bytes())
                except OSError:
                    continue
            time.sleep(0.05)
        out, err = child.communicate()
        assert child.returncode == 0, err
        secret = server.password.encode()
    assert len(seen) > 1
    told = [*seen, out.encode(), err.encode(), (tmp_path / "report.html").read_bytes()]
    told += [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert all(secret not in text for text in told)


@pytest.mark.long
def test_the_machine_of_the_notes(tmp_path: Path) -> None:
    """32 and 384 GiB, mostly empty: by a lease, which leaves holes out; powered off, so without its locks and swap files."""
    store = tmp_path / "store"
    store.mkdir()
    made = notes_machine.build(store / notes_machine.NAME)
    for name in os.listdir(made.directory):
        if name.endswith((".lck", ".vswp")):
            (made.directory / name).unlink()
    path = f"[datastore1] {notes_machine.NAME}/{notes_machine.NAME}.vmx"
    with esxi([Datastore(name="datastore1", directory=store)], [Registered(path=path)]) as server:
        said = result("migrate", notes_machine.NAME, "--from", server.uri(), "--password-file", server.password_file,
                      "--to", tmp_path / "out", "--map-network", "VMNet=none", "--no-adapt")
        sent = sum(server.counters()["bytes"].values())
    assert [disk["virtual_size"] for disk in said["disks"]] == [32 << 30, 384 << 30]
    assert sent < 2 << 30
    for number, disk in enumerate(made.disks):
        done = result("verify", disk.descriptor, tmp_path / "out" / f"{notes_machine.NAME}-{number}.qcow2")
        assert done["identical"]
    assert sum(path.stat().st_blocks * 512 for path in (tmp_path / "out").iterdir()) < 4 << 30
