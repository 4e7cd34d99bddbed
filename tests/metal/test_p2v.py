"""p2v: a loop device, as a physical disk, becomes a virtual machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.metal.copies import disk, mounted_on
from tests.migrate.machines import MIB, raw_disk, same
from tests.oracle import tool
from tests.program import ENVIRONMENT, imgtool, result


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(tmp_path / "state"))


def test_into_a_folder(tmp_path: Path) -> None:
    raw = raw_disk(tmp_path / "raw", 64 * MIB)
    with disk(raw) as device:
        plan = result("p2v", "web09", "--from", f"metal://{device}", "--to", tmp_path / "out", "--map-network", "default=nat",
                      "--no-adapt", "--whole", "--dry-run")
        assert plan["machine"] == "web09"
        said = result("p2v", "web09", "--from", f"metal://{device}", "--to", tmp_path / "out", "--no-adapt", "--whole")
    assert sorted(os.listdir(tmp_path / "out")) == ["web09.qcow2", "web09.xml"]
    same(raw, tmp_path / "out" / "web09.qcow2", "qcow2")
    assert said["machine"] == "web09"
    text = (tmp_path / "out" / "web09.xml").read_text()
    assert "<vcpu" in text
    assert f'file="{tmp_path}/out/web09.qcow2"' in text


def test_a_disk_in_use(tmp_path: Path) -> None:
    """What each pass has read is in the result and in the journal."""
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.ext4", "-q", raw)
    with disk(raw) as device, mounted_on(device, tmp_path / "m") as point:
        (point / "file").write_bytes(os.urandom(8 * MIB))
        said = result("p2v", "web09", "--from", f"metal://{device}", "--to", tmp_path / "out", "--no-adapt", "--live")
    (one,) = said["disks"]
    names = [each["name"] for each in one["passes"]]
    assert (names[0], names[-1]) == ("first", "frozen")
    assert 8 * MIB < one["passes"][0]["bytes_read"] < 40 * MIB
    assert sum(each["bytes_read"] for each in one["passes"]) == one["bytes_read"]
    journal = (tmp_path / "state" / "jobs" / f"{said['job']}.jsonl").read_text()
    assert json.dumps(one["passes"])[1:-1] in journal


def test_wrong_use(tmp_path: Path) -> None:
    for words, code in ((("--from", "metal:///dev/nothing", "--to", tmp_path / "x"), 2), (("--to", tmp_path / "x"), 2),
                        (("--from", "metal:///dev/sda", "--to", tmp_path / "x", "--snapshot", "zfs"), 2)):
        done = imgtool("p2v", *words)
        assert done.returncode == code, done.stderr
        assert not (tmp_path / "x").exists()
