"""Bad sectors: a loop device upon a file with sectors that cannot be read (QEMU's blkdebug behind FUSE), or that is cut."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgtool.copying.receive import CHUNK, Chunks
from imgtool.endpoints.far.wire import FarError
from imgtool.endpoints.metal import live
from imgtool.errors import DamagedError, ImgtoolError
from imgtool.model.metal import Reading
from tests.metal.copies import CONTROL, copied, copying, disk
from tests.oracle import tool

SIZE = 3 * CHUNK
BAD = (1 << 20, (1 << 20) + 512, CHUNK + 700 * 512, 2 * CHUNK + 8 * 512)
"""Byte offsets of sectors that cannot be read."""


@contextmanager
def failing(place: Path, data: bytes, bad: tuple[int, ...] = BAD) -> Iterator[Path]:
    """A file that holds ``data`` but for the sectors at ``bad``, which cannot be read."""
    raw, shown, rules = place / "good", place / "shown", place / "rules"
    raw.write_bytes(data)
    shown.touch()
    rules.write_text("".join(f'[inject-error]\nevent = "none"\niotype = "read"\nerrno = "5"\nsector = "{start // 512}"\n\n'
                             for start in bad))
    argv = ["qemu-storage-daemon", "--blockdev", f"driver=file,filename={raw},node-name=f",
            "--blockdev", f"driver=blkdebug,image=f,config={rules},node-name=b", "--blockdev", "driver=raw,file=b,node-name=r",
            "--export", f"type=fuse,id=e,node-name=r,mountpoint={shown}"]
    with subprocess.Popen(argv) as daemon:
        try:
            until = time.monotonic() + 30
            while shown.stat().st_size != len(data) and daemon.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            assert shown.stat().st_size == len(data)
            yield shown
        finally:
            daemon.terminate()


@pytest.fixture
def data() -> bytes:
    return random.Random(5).randbytes(SIZE)


def with_zeros(data: bytes) -> bytes:
    found = bytearray(data)
    for start in BAD:
        found[start:start + 512] = bytes(512)
    return bytes(found)


def test_bad_sectors(tmp_path: Path, data: bytes) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    with failing(tmp_path, data) as path, disk(path, direct=True) as device:
        with pytest.raises(ImgtoolError, match=rf"/dev/loop\d+ cannot be read at byte ({'|'.join(map(str, BAD))})$") as caught:
            copied(device, tmp_path / "plain", reading=Reading(whole=True))
        assert "--rescue" in str(caught.value.hint)
        rescue = Reading(whole=True, rescue=str(maps))
        reader = copied(device, tmp_path / "copy", reading=rescue)
    assert (tmp_path / "copy").read_bytes() == with_zeros(data)
    assert reader.bad
    lost = sorted(offset for start, end in reader.bad for offset in range(start, end, 512))
    assert lost == sorted(BAD)
    (written,) = maps.iterdir()
    check_map(written, SIZE, lost)


def check_map(path: Path, size: int, bad: list[int]) -> None:
    """As ddrescue's manual has it: comments, the state of the work, then lines that follow each other to the end."""
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == ["0x00000000", "+", "1"]
    at, found = 0, []
    for start, length, status in lines[1:]:
        assert int(start, 16) == at
        at += int(length, 16)
        if status == "-":
            found += range(int(start, 16), at, 512)
    assert (at, found) == (size, bad)


def test_ddrescue_reads_the_map(tmp_path: Path, data: bytes) -> None:
    with failing(tmp_path, data) as path, disk(path, direct=True) as device:
        reader = copied(device, tmp_path / "copy", reading=Reading(whole=True, rescue=str(tmp_path)))
    assert reader.bad
    said = tool("ddrescuelog", "--list-blocks=-", "--block-size=512", reader.bad.path).stdout.split()
    assert [int(one) * 512 for one in said] == sorted(BAD)


def test_a_disk_that_ends_early(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "short"
    path.write_bytes(data)
    with disk(path) as device:
        os.truncate(path, 2 * CHUNK)
        reader = copied(device, tmp_path / "copy", reading=Reading(whole=True, rescue=str(tmp_path)))
    assert reader.bad
    assert list(reader.bad) == [(2 * CHUNK, SIZE)]
    assert (tmp_path / "copy").read_bytes() == data[:2 * CHUNK] + bytes(CHUNK)


@pytest.mark.parametrize("busy", [False, True])
def test_a_new_copy_forgets_what_another_has_found(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch,
                                                   busy: bool) -> None:
    """The disk may have been repaired meanwhile."""
    path, rescue = tmp_path / "sound", Reading(whole=True, rescue=str(tmp_path))
    path.write_bytes(data)
    monkeypatch.setattr(live, "fill", lambda *_words: ())
    with disk(path) as device, copying(device, tmp_path / "copy", reading=rescue) as (reader, receiver):
        assert reader.bad

        def unreadable(_start: int, _length: int) -> bytes:
            error = FarError("no")
            error.errno = errno.EIO
            raise error

        reader.bad.read(0, 512, unreadable)
        assert Path(reader.bad.path).exists()
        if busy:
            monkeypatch.setattr(reader, "physical", SimpleNamespace(busy=True))
        reader.fill(receiver, CONTROL)
        assert list(reader.bad) == []
        assert not Path(reader.bad.path).exists()


def test_what_was_bad_is_remembered(tmp_path: Path, data: bytes) -> None:
    """A later run goes on with the map, and does not lose what an earlier one has found."""
    with failing(tmp_path, data) as path, disk(path, direct=True) as device:
        rescue = Reading(whole=True, rescue=str(tmp_path))
        with copying(device, tmp_path / "copy", reading=rescue) as (first, receiver), CONTROL.progress.bar(0, "") as bar:
            first.read([(0, 2 * CHUNK)], Chunks(receiver, bar), CONTROL)
        again = copied(device, tmp_path / "copy", reading=rescue)
        assert again.bad
        assert len({offset for start, end in again.bad for offset in range(start, end, 512)}) == len(BAD)
        Path(again.bad.path).write_text("0x0 + 1\n0x0 0x10 +\n")
        with pytest.raises(DamagedError, match="no map of bad sectors of this disk"):
            copied(device, tmp_path / "third", reading=rescue)
