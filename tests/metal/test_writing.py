"""A physical disk written: its bytes, what is zeroed, larger and smaller disks, resume after any stop, failures."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.sshd import sshd
from imgtool.errors import ImgtoolError, NoSpaceError, UnreachableError
from imgtool.progress import Control
from imgtool.steps.v2p.write import _discard, _outside, _reread
from tests.loops import loop_device, loop_device_at
from tests.metal.physical import MIB, SIZE, has, image, physical, result, serial, started, v2p, written
from tests.metal.tables import gpt, mbr, partitions, sound
from tests.oracle import state as state_of
from tests.oracle import tool
from tests.program import imgtool

SLOW = ("--rate-limit", "30M")


@pytest.mark.parametrize("size", [SIZE, 80 * MIB + 512, 42 * MIB])
def test_a_disk_of_any_size_that_holds_it(tmp_path: Path, size: int) -> None:
    source = image(tmp_path)
    before = state_of(tmp_path)["image.raw"]
    with physical(tmp_path, size) as device:
        (disk,) = result(v2p(source, device, "--json"))["disks"]
        has(device, source)
        sound(device)
        assert partitions(device) == partitions(source)
        assert disk["verified"]
        assert disk["bytes_written"] < 22 * MIB, "only what the image holds"
    assert state_of(tmp_path)["image.raw"] == before


@pytest.mark.long
def test_a_disk_of_more_than_2_tib(tmp_path: Path) -> None:
    """And an odd number of sectors."""
    size = (2 << 40) + 3 * 512
    with physical(tmp_path, size, full=False) as device:
        source = image(tmp_path)
        found = result(v2p(source, device, "--json", timeout=600))
        assert found["disks"][0]["verified"]
        sound(device)
        has(device, source)
        with device.open("rb") as file:
            file.seek(size - 512)
            assert file.read(8) == b"EFI PART"


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vhdx"])
def test_any_format(tmp_path: Path, kind: str) -> None:
    source = image(tmp_path)
    packed = tmp_path / f"image.{kind}"
    tool("qemu-img", "convert", "-f", "raw", "-O", kind, source, packed)
    with physical(tmp_path, 80 * MIB) as device:
        assert v2p(packed, device).returncode == 0
        has(device, source)


def test_old_bytes_stay_only_behind_the_image(tmp_path: Path) -> None:
    """And with --wipe nowhere."""
    source = image(tmp_path)
    old = random.Random(9).randbytes(MIB)
    with physical(tmp_path, 100 * MIB) as device:
        tool("sh", "-c", f"echo 0 > /sys/block/{device.name}/queue/discard_max_bytes")
        assert v2p(source, device).returncode == 0
        has(device, source)
        data = device.read_bytes()
        assert data[80 * MIB:81 * MIB] == old
        assert not any(data[97 * MIB:100 * MIB - 33 * 512]), "but no old superblock at the end of the disk"
        assert v2p(source, device, "--wipe").returncode == 0
        data = device.read_bytes()
        assert not any(data[SIZE:100 * MIB - 33 * 512])


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    source = gpt(tmp_path / "data.raw", SIZE, "2048:+40M")
    tool("mkfs.ext4", "-q", "-b", "4096", "-E", f"offset={MIB}", source, "40m")
    with physical(tmp_path, 80 * MIB, "--sector-size=4096") as device:
        assert v2p(source, device).returncode == 0
        sound(device)
        assert partitions(device) == partitions(source)
        tool("e2fsck", "-fn", f"{device}?offset={MIB}")
        tool("mount", "-o", f"ro,offset={MIB}", device, (point := tmp_path / "point", point.mkdir())[0])
        tool("umount", point)
    bad = mbr(tmp_path / "mbr.raw", SIZE, "1MiB,30MiB,83")
    with physical(tmp_path, 80 * MIB, "--sector-size=4096", name="other") as device:
        done = v2p(bad, device)
        assert (done.returncode, "MBR" in done.stderr) == (4, True), done.stderr


def test_a_machine_by_its_description(tmp_path: Path) -> None:
    first, second = image(tmp_path, "a.raw"), image(tmp_path, "b.raw", 48 * MIB)
    domain = tmp_path / "m.xml"
    disks = "".join(f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>"
                    f"<target dev='{name}' bus='virtio'/></disk>" for path, name in ((first, "vda"), (second, "vdc")))
    domain.write_text(f"<domain type='kvm'><name>m</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
                      f"<devices>{disks}</devices></domain>")
    with physical(tmp_path, 80 * MIB) as one, physical(tmp_path, 80 * MIB, name="second") as two:
        words = ["v2p", "m", "--from", domain, "--no-adapt", "--yes-write-to", serial(one), "--yes-write-to", serial(two)]
        wrong = imgtool(*words, "--disk", f"vdb={one}")
        assert (wrong.returncode, "vda, vdc" in wrong.stderr) == (2, True), wrong.stderr
        done = imgtool(*words, "--disk", f"vdc={two}", "--disk", f"vda={one}", "--json")
        assert [disk["source"] for disk in result(done)["disks"]] == ["vdc", "vda"]
        has(one, first)
        has(two, second)
        alone = imgtool(*words, "--disk", f"vda={one}")
        assert "vdc of m is not written" in alone.stderr


def test_what_would_be_done(tmp_path: Path) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device:
        before = written(device)
        plan = result(v2p(source, device, "--dry-run", "--json", yes=False))
        (disk,) = plan["disks"]
        assert (disk["confirm"], disk["confirmed"], disk["disk"]["size"]) == (serial(device), False, 80 * MIB)
        assert [step["verb"] for step in plan["steps"]] == ["v2p"]
        text = v2p(source, device, "--dry-run").stdout
        assert f"the backup GPT is written at the end of the disk, byte {80 * MIB - 33 * 512}" in text
        assert written(device) == before


def kill(process: subprocess.Popen[str], device: Path, more: int, signum: int) -> str:
    """When so many bytes were written; what it says then."""
    begin = written(device)
    while written(device) - begin < more and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signum)
    return process.communicate()[1]


def test_killed_ten_times_it_goes_on(tmp_path: Path, state: Path) -> None:
    source = tmp_path / "large.raw"
    gpt(source, 200 * MIB, "2048:+190M")
    with source.open("r+b") as file:
        file.seek(MIB)
        for number in range(180):
            file.write(random.Random(number).randbytes(MIB))
    with physical(tmp_path, 220 * MIB) as device:
        begin = written(device)
        for _ in range(10):
            kill(started(source, device, *SLOW), device, 14 * MIB, signal.SIGKILL)
        assert not any(device.read_bytes()[:512]), "a half-written disk cannot boot"
        last = result(v2p(source, device, "--json"))["disks"][0]
        has(device, source)
        sound(device)
        assert last["bytes_resumed"] > 60 * MIB
        assert last["verified"]
        assert written(device) - begin < 181 * MIB + 10 * 24 * MIB
    assert not list((state / "v2p").iterdir())


def stopped(source: Path, device: Path) -> None:
    process = started(source, device, *SLOW)
    told = kill(process, device, 20 * MIB, signal.SIGTERM)
    assert process.returncode == 143
    assert told.splitlines()[-2:] == ["error: interrupted; a disk that was begun is written in part",
                                      "hint: the same command goes on where it stopped"]


def test_what_was_written_since_is_noticed(tmp_path: Path) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device:
        stopped(source, device)
        with device.open("r+b") as file:
            file.seek(9 * MIB + 4096)
            file.write(b"somebody else" * 1000)
        done = v2p(source, device)
        assert (done.returncode, "was written to since" in done.stderr) == (4, True), done.stderr
        assert v2p(source, device, "--discard-partial").stdout == "forgotten\n"
        assert v2p(source, device, "--discard-partial").stdout == "there was nothing\n"
        assert v2p(source, device).returncode == 0
        has(device, source)


def test_a_source_that_changed_is_noticed(tmp_path: Path) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device:
        stopped(source, device)
        with source.open("r+b") as file:
            file.seek(MIB)
            file.write(b"new")
        done = v2p(source, device)
        assert (done.returncode, "source has changed" in done.stderr) == (4, True), done.stderr


def test_another_disk_of_that_name_is_noticed(tmp_path: Path) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device:
        stopped(source, device)
    with loop_device_at(device, image(tmp_path, "other", 80 * MIB)):
        done = v2p(source, device)
        assert (done.returncode, "of another source" in done.stderr) == (4, True), done.stderr


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device:
        first = started(source, device, "--rate-limit", "4M")
        begin = written(device)
        while written(device) == begin and first.poll() is None:
            time.sleep(0.02)
        done = v2p(source, device)
        assert done.returncode == 4, done.stderr
        first.terminate()
        first.communicate()


def test_a_disk_that_gives_back_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgtool.endpoints.far.file import FarFile
    from imgtool.errors import DifferError
    from imgtool.model.v2p import DiskChoice, V2pRequest
    from imgtool.progress import Control
    from imgtool.steps.v2p import v2p as run

    source = image(tmp_path)
    honest = FarFile.write
    with physical(tmp_path, 80 * MIB) as device:
        request = V2pRequest(name=str(source), disks=(DiskChoice(source="", device=str(device)),), adapt=False,
                             confirmed=(serial(device),))
        monkeypatch.setattr(FarFile, "write", lambda file, offset, data: honest(
            file, offset, bytes(len(data)) if offset == 12 * MIB else data))
        with pytest.raises(DifferError, match=f"from byte {12 * MIB} on"):
            run(request, Control())


@contextmanager
def failing(place: Path, size: int) -> Iterator[Path]:
    """A disk whose writes fail behind its first 20 MiB, by QEMU's blkdebug and FUSE."""
    (place / "below").write_bytes(bytes(size))
    (place / "mount").touch()
    errors = [{"event": "none", "iotype": "write", "sector": 20 * 2048 + page * 8, "errno": 5} for page in range(512)]
    node = {"driver": "raw", "node-name": "disk", "file": {
        "driver": "blkdebug", "image": {"driver": "file", "filename": str(place / "below")}, "inject-error": errors}}
    argv = ["qemu-storage-daemon", "--blockdev", json.dumps(node),
            "--export", f"type=fuse,id=x,node-name=disk,mountpoint={place / 'mount'},writable=on"]
    with subprocess.Popen(argv) as process:
        try:
            while not (place / "mount").stat().st_size and process.poll() is None:
                time.sleep(0.05)
            with loop_device(place / "mount") as device:
                yield device
        finally:
            process.terminate()


def test_a_disk_that_fails_writes(tmp_path: Path) -> None:
    source = image(tmp_path)
    with failing(tmp_path, 80 * MIB) as device:
        done = v2p(source, device)
        assert done.returncode == 1
        assert "Input/output error" in done.stderr
        assert not any(device.read_bytes()[:512])


def test_a_disk_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    """As a thin LUN whose pool is full."""
    (tmp_path / "pool").mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", tmp_path / "pool")
    try:
        with (tmp_path / "pool/disk").open("wb") as file:
            file.truncate(80 * MIB)
        with loop_device(tmp_path / "pool/disk") as device:
            done = v2p(image(tmp_path), device)
            assert done.returncode in (1, 7), done.stderr
            assert "error:" in done.stderr
            assert not any(device.read_bytes()[:512])
    finally:
        tool("umount", tmp_path / "pool")


def test_over_ssh(tmp_path: Path, state: Path) -> None:
    """Cut in its middle, it goes on with what its map, saved every 10 seconds, has."""
    source = image(tmp_path)
    with sshd(tmp_path / "sshd") as server, physical(tmp_path, 80 * MIB) as device:
        to = ("--to", server.uri("metal+ssh", "/"))
        process = started(source, device, *to, "--rate-limit", "5M")
        while not remembered(state) and process.poll() is None:
            time.sleep(0.02)
        assert server.cut()
        _, said = process.communicate()
        assert process.returncode == 8, said
        done = result(v2p(source, device, *to, "--json"))
        assert 0 < done["disks"][0]["bytes_resumed"] < SIZE
        has(device, source)
        sound(device)


def remembered(state: Path) -> bool:
    """A map has more than its first line."""
    return any(path.read_bytes().partition(b"\n")[2] for path in (state / "v2p").rglob("*") if path.is_file())


@given(low=st.integers(0, 20), length=st.integers(0, 20),
       ranges=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4))
def test_what_is_written_last_is_left_out(low: int, length: int, ranges: list[tuple[int, int]]) -> None:
    """All else is written, once."""
    late = [(min(one), max(one)) for one in ranges]
    found = [at for start, end in _outside((low, low + length), late) for at in range(start, end)]
    assert found == [at for at in range(low, low + length) if not any(start <= at < end for start, end in late)]


@pytest.mark.parametrize(("error", "ends"), [(ImgtoolError("not supported"), False), (UnreachableError("gone"), True),
                                             (NoSpaceError("full"), True)])
def test_a_discard_is_a_hint(error: ImgtoolError, ends: bool) -> None:
    """A disk that does not take one is not asked again; one that is gone is an error."""
    asked = []

    def discard(start: int, length: int) -> None:
        asked.append((start, length))
        raise error

    def told(*, discards: bool) -> None:
        work = SimpleNamespace(disk=SimpleNamespace(discards=discards))
        _discard(work, SimpleNamespace(discard=discard), [(0, 5), (7, 9)], Control())  # type: ignore[arg-type]

    told(discards=False)
    assert asked == []
    with pytest.raises(type(error)) if ends else nullcontext():
        told(discards=True)
    assert asked == [(0, 5)]


def test_a_table_that_the_kernel_does_not_take_is_said() -> None:
    def reread(error: ImgtoolError) -> list[str]:
        def fails() -> NoReturn:
            raise error

        return list(_reread(SimpleNamespace(reread=fails)))  # type: ignore[arg-type]

    (note,) = reread(ImgtoolError("busy"))
    assert "did not take the new partition table (busy)" in note
    with pytest.raises(UnreachableError):
        reread(UnreachableError("gone"))
