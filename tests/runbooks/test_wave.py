"""A wave of real conversions and migrations, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Registered, Simulator, esxi
from fixtures.libvirtd import Libvirtd
from tests.esxi.machines import machine
from tests.libvirt_endpoint.conftest import daemon, pool
from tests.migrate.machines import MIB, left_behind, same, vmx
from tests.migrate.test_near_libvirt import address
from tests.program import ENVIRONMENT, imgtool
from tests.runbooks.batches import audit, count, events, started, until

__all__ = ["daemon", "pool"]

BOOK = """
name: wave1
endpoints:
  esxi1: {uri: "%s", password: {env: WAVE_PASSWORD}}
  kvm1: {uri: "%s"}
defaults:
  from: "in/{name}/{name}.vmx"
  to: "out/{name}"
  adapt: false
  clone: false
  networks: {VM Network: br0}
limits: {per-source-host: 2, per-worker: 3, bytes-per-second: 12M}
"""
CONVERT = '{convert: {source: "in/{name}/d0.vmdk", destination: "{name}.qcow2", to: qcow2}}'
MIGRATED, CONVERTED = [f"m{number}" for number in range(5)], [f"c{number}" for number in range(4)]
FROM_ESXI = [f"e{number}" for number in range(3)]
ESXI = '- {glob: "e*", from: esxi1, to: kvm1, new-identity: true, networks: {VM Network: none}}'
BAD = ["shared", "absent", "far"]
FAR = '- {name: far, from: "esx://root@127.0.0.1:1/", attempts: 2}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Simulator]:
    """A simulated ESXi with three machines."""
    store = tmp_path / "store"
    store.mkdir()
    paths = [machine(store, name, (8 * MIB,), data=((0, 3 * MIB),)) for name in FROM_ESXI]
    with esxi([Datastore(name="datastore1", directory=store)],
              [Registered(path=f"[datastore1] {path}", running=False) for path in paths]) as running:
        yield running


def book(folder: Path, server: Simulator, kvm: str) -> Path:
    """15 machines: 3 from ESXi to libvirt, 5 from files to files, 4 converted; one cannot go, one is not there, and one cannot be
    reached."""
    (folder / "in").mkdir()
    for name in [*MIGRATED, *CONVERTED, "shared"]:
        vmx(folder / "in" / name, name, (16 * MIB,))
    shared = folder / "in/shared/shared.vmx"
    shared.write_text(shared.read_text() + 'scsi0:0.sharing = "multi-writer"\n')
    lines = [*(f"- {name}" for name in [*MIGRATED, "shared", "absent"]), FAR]
    lines += [ESXI, *(f"- {{name: {name}, steps: [{CONVERT}]}}" for name in CONVERTED)]
    path = folder / "wave1.yaml"
    path.write_text(BOOK % (server.uri(), kvm) + "machines:\n" + "\n".join(lines) + "\n")
    return path


def test_killed_three_times(daemon: Libvirtd, pool: Path, server: Simulator, tmp_path: Path, state: Path,
                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_PASSWORD", "secret")
    monkeypatch.setitem(ENVIRONMENT, "WAVE_PASSWORD", server.password)
    runbook, log = book(tmp_path, server, address(daemon)), tmp_path / "log"
    for number in range(3):
        with started("run", runbook, log=log) as process:
            begun = len(events(state, "begin"))
            until(lambda begun=begun: len(events(state, "begin")) >= begun + 2, f"steps begin: {log.read_text()}")
            time.sleep(0.3 + 0.4 * number)
            os.kill(process.pid, signal.SIGKILL)
    done = imgtool("run", runbook, "--json")
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    states = {one["name"]: one["state"] for one in summary["machines"]}
    assert states == {**dict.fromkeys([*MIGRATED, *FROM_ESXI, *CONVERTED], "done"), **dict.fromkeys(BAD, "failed")}
    check_machines(tmp_path)
    check_libvirt(daemon, pool, tmp_path)
    counted = count(audit(state))
    assert counted.redone == []
    assert counted.interrupted >= 3
    assert counted.most == 3
    assert counted.most_of_host == {"localhost": 2, "127.0.0.1": 2}
    copied = [(one["machine"], one["disk"]) for one in events(state, "disk") if one["result"]["engine"] != "kept"]
    assert sorted(copied) == [(name, 0) for name in sorted([*MIGRATED, *FROM_ESXI])]
    failed = {one["name"]: one for one in summary["machines"] if one["state"] == "failed"}
    assert failed["shared"]["exit_code"] == 4
    assert "[source.disk.shared]" in failed["shared"]["error"]
    assert failed["shared"]["hint"]
    assert "does not exist" in failed["absent"]["error"]
    assert failed["far"]["exit_code"] == 8
    tries = {name: {one["attempt"] for one in events(state, "begin") if one["machine"] == name} for name in BAD}
    assert tries == {"shared": {1}, "absent": {1}, "far": {1, 2}}
    check_retry(tmp_path, state, runbook)


def check_machines(folder: Path) -> None:
    for name in MIGRATED:
        assert sorted(os.listdir(folder / "out" / name)) == [f"{name}.qcow2", f"{name}.xml"]
        same(folder / "in" / name / "0.raw", folder / "out" / name / f"{name}.qcow2", "qcow2")
    for name in CONVERTED:
        same(folder / "in" / name / "0.raw", folder / f"{name}.qcow2", "qcow2")
    assert left_behind(folder) == []


def check_libvirt(daemon: Libvirtd, pool: Path, folder: Path) -> None:
    assert sorted(daemon.virsh("list", "--all", "--name").split()) == FROM_ESXI
    assert sorted(os.listdir(pool)) == [f"{name}.qcow2" for name in FROM_ESXI]
    for name in FROM_ESXI:
        same(folder / "store" / name / f"{name}-flat.vmdk", pool / f"{name}.qcow2", "qcow2")


def check_retry(folder: Path, state: Path, runbook: Path) -> None:
    """Repaired, two go by `jobs retry`, one, in another way, by `run --retry`, no other; a third time nothing is done."""
    before = len(events(state, "begin"))
    shared = folder / "in/shared/shared.vmx"
    shared.write_text(shared.read_text().replace('scsi0:0.sharing = "multi-writer"\n', ""))
    vmx(folder / "in/absent", "absent", (16 * MIB,))
    vmx(folder / "in/far", "far", (16 * MIB,))
    runbook.write_text(runbook.read_text().replace(FAR, "- far"))
    retried = imgtool("jobs", "retry", "wave1/shared", "wave1/absent")
    assert retried.returncode == 0, retried.stderr
    again = imgtool("run", runbook, "--retry", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["done"] == 15
    assert sorted(one["machine"] for one in events(state, "begin")[before:]) == sorted(BAD)
    third = imgtool("run", runbook)
    assert third.returncode == 0, third.stderr
    assert "wave1: 15 of 15 done" in third.stdout
    assert len(events(state, "begin")) == before + 3
