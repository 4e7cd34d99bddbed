"""Disks in use: refused, or copied while a writer is busy, the last pass while the file system is frozen."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from imgtool.endpoints import far
from imgtool.endpoints.metal import live
from imgtool.errors import ImgtoolError, RefusedError
from imgtool.model.endpoint import Uri
from imgtool.model.metal import Reading
from imgtool.progress import Stop
from tests.metal.copies import CONTROL, copied, copying, disk, metal, mounted_on
from tests.oracle import tool
from tests.program import ENVIRONMENT, ROOT

CHECK = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n"), "btrfs": ("btrfs", "check")}
SIZE = 1 << 30


@contextmanager
def in_use(place: Path, fs: str, options: str = "rw") -> Iterator[tuple[Path, Path]]:
    """(disk, where its one partition is mounted)."""
    path, point = place / f"{fs}.disk", place / fs
    with path.open("wb") as file:
        file.truncate(SIZE)
    tool("sh", "-c", f"echo 'start=2048' | sfdisk -q -X gpt {path}")
    with disk(path) as device:
        tool(f"mkfs.{fs}", "-q", f"{device}p1")
        with mounted_on(Path(f"{device}p1"), point):
            (point / "old").write_bytes(os.urandom(150 << 20))
            os.sync()
            if options != "rw":
                tool("mount", "-o", f"remount,{options}", point)
            yield device, point


class Writer:
    """Makes, changes and deletes files until it is told to stop. Knows what it had finished."""

    def __init__(self, point: Path) -> None:
        self.point, self.rounds = point, 0
        self.log: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            number = self.rounds
            path = self.point / f"file-{number % 7}"
            path.write_bytes(hashlib.sha256(str(number).encode()).digest() * 40_000)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self.rounds += 1
            self.log.append((time.monotonic(), number))
            (self.point / f"gone-{number}").write_bytes(b"x" * 5000)
            if number > 3:
                (self.point / f"gone-{number - 3}").unlink(missing_ok=True)
            time.sleep(0.05)


def sums(point: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(point.iterdir()) if path.is_file()}


def test_a_disk_in_use_is_refused(tmp_path: Path) -> None:
    with in_use(tmp_path, "ext4") as (device, _), metal(device) as source:
        seen = source.look(source.machines()[0], CONTROL)
        assert any(problem.fatal and "is mounted at" in problem.what for problem in seen.parsed.problems)
        assert seen.state.disks[0].data is None
        with pytest.raises(RefusedError, match="is in use"), source.reader(seen, 0, CONTROL):
            pass
        source.reading = Reading(live=True)
        seen = source.look(source.machines()[0], CONTROL)
        assert not any(problem.fatal for problem in seen.parsed.problems)
        assert 150 << 20 < (seen.state.disks[0].data or 0) < 300 << 20


@pytest.mark.parametrize("reading", [Reading(whole=True), Reading(whole=True, live=True)])
def test_a_file_system_of_several_disks(tmp_path: Path, reading: Reading) -> None:
    """The second disk of a btrfs is in no table of mounts, and has no holder: as the disks of a pool of ZFS."""
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(256 << 20)
    (tmp_path / "m").mkdir()
    with disk(tmp_path / "a") as first, disk(tmp_path / "b") as second:
        tool("mkfs.btrfs", "-q", "-d", "raid0", first, second)
        with metal(second, reading=reading) as source:
            assert not source.look(source.machines()[0], CONTROL).parsed.problems
            tool("mount", first, tmp_path / "m")
            try:
                seen = source.look(source.machines()[0], CONTROL)
                assert [problem.fatal for problem in seen.parsed.problems if f"{second} is active" in problem.what] == [True]
                with pytest.raises(RefusedError, match="open exclusively"):
                    copied(second, tmp_path / "copy", reading=reading)
            finally:
                tool("umount", tmp_path / "m")


def test_mounted_read_only_it_is_not(tmp_path: Path) -> None:
    with in_use(tmp_path, "ext4", "ro") as (device, point):
        manifest = sums(point)
        reader = copied(device, tmp_path / "copy", reading=Reading(whole=True))
    assert reader.bytes_read == SIZE
    check_copy(tmp_path / "copy", "ext4", tmp_path / "m", manifest)


def check_copy(copy: Path, fs: str, point: Path, manifest: dict[str, str]) -> None:
    """Sound, and its files are those of the manifest."""
    point.mkdir()
    with disk(copy) as device:
        tool("mount", f"{device}p1", point)
        try:
            assert sums(point) == manifest
        finally:
            tool("umount", point)
        name, *words = CHECK[fs]
        tool(name, *words, f"{device}p1")


@pytest.mark.parametrize("fs", ["ext4", "xfs", pytest.param("btrfs", marks=pytest.mark.long)])
def test_while_a_writer_is_busy(tmp_path: Path, fs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is taken while all stands still, by reading the mounted file system: reading a frozen one is allowed."""
    manifest: dict[str, str] = {}
    still = live._still

    def taken(*args: object) -> None:
        manifest.update(sums(point))
        still(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(live, "_still", taken)
    monkeypatch.setattr(live, "LITTLE", 1 << 20)
    with in_use(tmp_path, fs) as (device, point), Writer(point) as writer:
        reader = copied(device, tmp_path / "copy", reading=Reading(live=True))
        after = writer.rounds
        deadline = time.monotonic() + 20
        while writer.rounds == after and time.monotonic() < deadline:
            time.sleep(0.05)
        assert writer.rounds > after, "the file system is still frozen"
    assert {"old", "file-1"} <= manifest.keys()
    check_copy(tmp_path / "copy", fs, tmp_path / "m", manifest)
    print(fs, *(f"{one.name}: {one.bytes_read >> 20} MiB in {one.seconds} s" for one in reader.passes), sep="; ")
    names = [one.name for one in reader.passes]
    assert names[0] == "first"
    assert names[-1] == "frozen"
    assert len(names) >= 3
    first, last = reader.passes[0].bytes_read, reader.passes[-1].bytes_read
    assert last < first / 4
    if fs == "btrfs":
        assert "does not say what it uses" in reader.warnings[0]
    else:
        assert first < 300 << 20


def test_one_pass_while_it_is_frozen(tmp_path: Path) -> None:
    with in_use(tmp_path, "xfs") as (device, point), Writer(point):
        reader = copied(device, tmp_path / "copy", reading=Reading(frozen=True))
    assert [one.name for one in reader.passes] == ["frozen"]
    (tmp_path / "m").mkdir()
    with disk(tmp_path / "copy") as copy:
        tool("mount", f"{copy}p1", tmp_path / "m")
        tool("umount", tmp_path / "m")
        tool("xfs_repair", "-n", f"{copy}p1")


def test_a_freeze_that_did_not_hold_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file systems thaw by themselves after the time that was given; the copy is not taken for whole."""
    monkeypatch.setattr(live, "_still", lambda *_: time.sleep(4))
    with in_use(tmp_path, "ext4") as (device, point):
        with pytest.raises(ImgtoolError, match="thawed by themselves after 2 s"):
            copied(device, tmp_path / "copy", reading=Reading(frozen=True, freeze_seconds=2))
        (point / "new").write_text("it goes on")
    assert not (tmp_path / "copy").exists()


def test_a_live_copy_goes_on(tmp_path: Path) -> None:
    with in_use(tmp_path, "ext4") as (device, point):
        with copying(device, tmp_path / "copy", reading=Reading(live=True)) as (reader, receiver):
            live._pass(reader, receiver, "first", CONTROL, missing=True)
        (point / "new").write_bytes(b"new" * 100_000)
        manifest = sums(point)
        reader = copied(device, tmp_path / "copy", reading=Reading(live=True))
    assert reader.passes[0].bytes_read == 0
    assert sum(one.bytes_read for one in reader.passes) < 60 << 20
    check_copy(tmp_path / "copy", "ext4", tmp_path / "m", manifest)


HOLD = """
import sys
from imgtool.endpoints import far
from imgtool.model.endpoint import Uri
from imgtool.progress import Stop
with far.connected(Uri(scheme="metal"), Stop()) as wire:
    wire.call("freeze", mounts=[sys.argv[1]], seconds=120)
    print("frozen", flush=True)
    sys.stdin.read()
"""


def blocked_until(holder: subprocess.Popen[bytes], path: Path) -> None:
    """A writer waits until the holder of the freeze is killed."""
    assert holder.stdout
    assert holder.stdout.readline() == b"frozen\n"
    with subprocess.Popen([sys.executable, "-c", f"open({str(path)!r}, 'w').write('x')"]) as writer:
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(1)
        holder.kill()
        assert writer.wait(20) == 0


def test_it_thaws_when_the_connection_goes(tmp_path: Path) -> None:
    """imgtool and what it started die by SIGKILL; the freezing process sees its pipe end."""
    with in_use(tmp_path, "ext4") as (_, point), \
            subprocess.Popen([sys.executable, "-c", HOLD, str(point)], env=ENVIRONMENT, cwd=ROOT, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE) as holder:
        blocked_until(holder, point / "waiting")


def test_what_cannot_be_frozen_must_not_change(tmp_path: Path) -> None:
    """A freezing process says which mounts it had to leave out."""
    with far.connected(Uri(scheme="metal"), Stop()) as wire:
        answer, _ = wire.call("freeze", mounts=["/proc"], seconds=5)
        assert answer["skipped"] == ["/proc"]
        wire.call("thaw", handle=answer["handle"])
        with pytest.raises(ImgtoolError, match="No such file"):
            wire.call("freeze", mounts=[str(tmp_path / "none")], seconds=5)
