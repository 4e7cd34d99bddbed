"""p2v: a loop device, as a physical disk, becomes a virtual machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.metal.copies import disk
from tests.migrate.machines import MIB, raw_disk, same
from tests.program import ENVIRONMENT, imgtool, result


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(tmp_path / "state"))


def test_into_a_folder(tmp_path: Path) -> None:
    raw = raw_disk(tmp_path / "raw", 64 * MIB)
    with disk(raw) as device:
        plan = result("p2v", "web09", "--from", f"metal://{device}", "--to", tmp_path / "out", "--map-network", "default=nat",
                      "--no-adapt", "--dry-run")
        assert plan["machine"] == "web09"
        said = result("p2v", "web09", "--from", f"metal://{device}", "--to", tmp_path / "out", "--no-adapt")
    assert sorted(os.listdir(tmp_path / "out")) == ["web09.qcow2", "web09.xml"]
    same(raw, tmp_path / "out" / "web09.qcow2", "qcow2")
    assert said["machine"] == "web09"
    text = (tmp_path / "out" / "web09.xml").read_text()
    assert "<vcpu" in text
    assert f'file="{tmp_path}/out/web09.qcow2"' in text


def test_wrong_use(tmp_path: Path) -> None:
    for words, code in ((("--from", "metal:///dev/nothing", "--to", tmp_path / "x"), 2), (("--to", tmp_path / "x"), 2),
                        (("--from", "metal:///dev/sda", "--to", tmp_path / "x", "--snapshot", "zfs"), 2)):
        done = imgtool("p2v", *words)
        assert done.returncode == code, done.stderr
        assert not (tmp_path / "x").exists()
