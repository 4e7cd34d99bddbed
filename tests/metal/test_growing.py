"""The last partition and its file system grow into a larger disk: one appliance for several disks."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgtool.errors import DamagedError, RefusedError
from imgtool.frozen import frozen
from imgtool.model.guest import Change
from imgtool.model.v2p import V2pRequest
from imgtool.steps.v2p import change
from imgtool.steps.v2p.change import Changed
from tests.loops import loop_device
from tests.metal.physical import MIB, physical, result, serial, started, v2p
from tests.metal.tables import gpt, partitions, sound
from tests.oracle import tool
from tests.program import imgtool

KINDS = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q"), "swap": ("mkswap", "-q")}
INSIDE, OLD, NEW = 310 * MIB, 320 * MIB, 500 * MIB + 512


def source(place: Path, kind: str) -> Path:
    inside = place / "inside"
    with inside.open("wb") as file:
        file.truncate(INSIDE)
    tool(*KINDS[kind], inside)
    disk = gpt(place / f"{kind}.raw", OLD, "2048:+310M")
    tool("dd", f"if={inside}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    return disk


def described(place: Path, kinds: list[str]) -> Path:
    disks = "".join(f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{source(place, kind)}'/>"
                    f"<target dev='vd{'abcd'[number]}' bus='virtio'/></disk>" for number, kind in enumerate(kinds))
    domain = place / "m.xml"
    domain.write_text(f"<domain type='kvm'><name>m</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
                      f"<devices>{disks}</devices></domain>")
    return domain


@pytest.mark.long
def test_file_systems_grow(tmp_path: Path) -> None:
    domain = described(tmp_path, list(KINDS))
    with ExitStack() as stack:
        devices = [stack.enter_context(physical(tmp_path, NEW, name=f"physical-{kind}", full=False)) for kind in KINDS]
        words = [word for name, device in zip("abcd", devices, strict=True)
                 for word in ("--disk", f"vd{name}={device}", "--yes-write-to", serial(device))]
        found = result(imgtool("v2p", "m", "--from", domain, "--no-adapt", "--grow", *words, "--json", timeout=1200))
        assert any("swap cannot grow" in warning for warning in found["warnings"])
        for device, kind in zip(devices, KINDS, strict=True):
            sound(device)
            grown = kind != "swap"
            assert partitions(device)[0][1] == (498 * MIB if grown else INSIDE)
            if grown:
                assert size_of(tmp_path, device, kind) > 400 * MIB, "its tables and its log are not counted"


def size_of(place: Path, device: Path, kind: str) -> int:
    """Of the file system, mounted by the host's kernel and checked by its own tool."""
    backing = serial(device)
    with loop_device(Path(backing), f"--offset={MIB}", f"--sizelimit={498 * MIB}") as inner:
        tool(*{"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n"), "btrfs": ("btrfs", "check", "--readonly")}[kind], inner)
        point = place / f"mount-{kind}"
        point.mkdir()
        tool("mount", "-t", kind, inner, point)
        try:
            return int(tool("df", "-B1", "--output=size", point).stdout.split()[1])
        finally:
            tool("umount", point)


def test_a_change_is_found_again_only_for_the_same_command(tmp_path: Path) -> None:
    """Else other bytes would be written behind those that are there."""
    made = Changed(token="t", sizes=(1, 2), changes=(Change(where="/etc/fstab", what="w", why="y"),), warnings=("w",))
    record = tmp_path / "changed.json"
    record.write_text(json.dumps({"about": "this", "changed": frozen(made)}))
    assert change._found(str(record), "this") == made
    with pytest.raises(RefusedError, match="have changed since the run that was stopped") as caught:
        change._found(str(record), "that")
    assert "--discard-partial" in str(caught.value.hint)
    for text in ("", "[]", "{}", '{"about": "this", "changed": 7}', '{"about": "this"}'):
        record.write_text(text)
        with pytest.raises(DamagedError, match="is damaged"):
            change._found(str(record), "this")


def test_what_a_change_depends_on() -> None:
    def about(state: object = 1, sizes: tuple[int, ...] = (5,), **how: object) -> str:
        disk = SimpleNamespace(state={"mtime": state})
        return change._about(V2pRequest(name="m", disks=(), **how), SimpleNamespace(disks=(disk,)), sizes)  # type: ignore[arg-type]

    assert about() == about()
    assert len({about(), about(2), about(sizes=(6,)), about(adapt=False), about(macs=(("a", "b"),)), about(drivers="d")}) == 6


def remembered(state: Path) -> int:
    """Bytes of records in the block map."""
    for path in state.glob("v2p/*/0.map"):
        said = path.read_bytes()
        return len(said) - said.find(b"\n") - 1
    return 0


@pytest.mark.long
def test_stopped_after_the_change_the_same_bytes_go_on(tmp_path: Path, state: Path) -> None:
    """An appliance does not do the same thing twice byte for byte."""
    disk = source(tmp_path, "ext4")
    with physical(tmp_path, NEW, full=False) as device:
        first = started(disk, device, "--grow", "--rate-limit", "20M")
        while first.poll() is None and not remembered(state):
            time.sleep(0.1)
        first.kill()
        first.communicate()
        other = v2p(disk, device)
        assert other.returncode == 4, "without --grow these are other bytes"
        found = result(v2p(disk, device, "--grow", "--json"))
        assert found["disks"][0]["bytes_resumed"] > 0
        assert size_of(tmp_path, device, "ext4") > 400 * MIB
