"""A wave of real conversions and migrations, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.migrate.machines import MIB, left_behind, same, vmx
from tests.program import ENVIRONMENT, imgtool
from tests.runbooks.batches import audit, count, events, started, until

BOOK = """
name: wave1
defaults:
  from: "in/{name}/{name}.vmx"
  to: "out/{name}"
  adapt: false
  clone: false
  networks: {VM Network: br0}
limits: {per-source-host: 2, per-worker: 3, bytes-per-second: 12M}
"""
CONVERT = '{convert: {source: "in/{name}/d0.vmdk", destination: "{name}.qcow2", to: qcow2}}'
MIGRATED, CONVERTED = [f"m{number}" for number in range(6)], [f"c{number}" for number in range(4)]
BAD = ["shared", "absent", "far"]
FAR = '- {name: far, from: "esx://root@127.0.0.1:1/", attempts: 2}'


def book(folder: Path) -> Path:
    """13 machines: 6 migrate, 4 convert; one cannot go, one is not there, and one cannot be reached."""
    (folder / "in").mkdir()
    for name in [*MIGRATED, *CONVERTED, "shared"]:
        vmx(folder / "in" / name, name, (16 * MIB,))
    shared = folder / "in/shared/shared.vmx"
    shared.write_text(shared.read_text() + 'scsi0:0.sharing = "multi-writer"\n')
    lines = [*(f"- {name}" for name in [*MIGRATED, "shared", "absent"]), FAR]
    lines += [f"- {{name: {name}, steps: [{CONVERT}]}}" for name in CONVERTED]
    path = folder / "wave1.yaml"
    path.write_text(BOOK + "machines:\n" + "\n".join(lines) + "\n")
    return path


def test_killed_three_times(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_PASSWORD", "secret")
    runbook, log = book(tmp_path), tmp_path / "log"
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
    assert states == {**dict.fromkeys([*MIGRATED, *CONVERTED], "done"), **dict.fromkeys(BAD, "failed")}
    check_machines(tmp_path)
    counted = count(audit(state))
    assert counted.redone == []
    assert counted.interrupted >= 3
    assert counted.most == 3
    assert counted.most_of_host == {"localhost": 2, "127.0.0.1": 1}
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


def check_retry(folder: Path, state: Path, runbook: Path) -> None:
    """Repaired, the three that failed go, one of them in another way, and no other is touched; a third time nothing is done."""
    before = len(events(state, "begin"))
    shared = folder / "in/shared/shared.vmx"
    shared.write_text(shared.read_text().replace('scsi0:0.sharing = "multi-writer"\n', ""))
    vmx(folder / "in/absent", "absent", (16 * MIB,))
    vmx(folder / "in/far", "far", (16 * MIB,))
    runbook.write_text(runbook.read_text().replace(FAR, "- far"))
    again = imgtool("run", runbook, "--retry", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["done"] == 13
    assert sorted(one["machine"] for one in events(state, "begin")[before:]) == sorted(BAD)
    third = imgtool("run", runbook)
    assert third.returncode == 0, third.stderr
    assert "wave1: 13 of 13 done" in third.stdout
    assert len(events(state, "begin")) == before + 3
