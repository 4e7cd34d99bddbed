"""Physical disks (loop devices) are read: what file systems use, all else, after stops, and only if they are still the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from imgtool.copying import receive
from imgtool.endpoints.filling import Filler
from imgtool.errors import RefusedError, UnreachableError, UsageError
from imgtool.model import ImageSpec
from imgtool.model.metal import Reading
from tests import guest_disk, oracle
from tests.metal.copies import CONTROL, copied, copying, disk, metal, mounted_on, publish
from tests.oracle import tool
from tests.program import ENVIRONMENT, ROOT
from tests.tools.test_only_used import check_result

WHOLE = Reading(whole=True)
CHUNK = receive.CHUNK
RAW = ImageSpec(format="raw")
SIZE = 24 * CHUNK + 4096


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A disk without a file system: data, zeros, data that packs well."""
    path, rand = tmp_path / "source", random.Random(11)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, data in ((0, rand.randbytes(9 * CHUNK)), (12 * CHUNK + 512, b"words " * 500_000), (SIZE - 512, b"end" * 100)):
            file.seek(start)
            file.write(data)
    return path


@pytest.fixture
def device(raw: Path) -> Iterator[Path]:
    with disk(raw) as made:
        yield made


def test_the_machine_and_its_disks(device: Path, raw: Path) -> None:
    with metal(device, reading=WHOLE) as source:
        (found,) = source.machines()
        seen = source.look(source.find(found.name), CONTROL)
        assert (found.name, seen.suffix, seen.text, seen.state.running) == (os.uname()[1].split(".")[0], "", b"", None)
        assert [(slot.path, slot.capacity) for slot in seen.parsed.machine.disks] == [(str(device), SIZE)]
        assert [(one.name, one.capacity, one.kind) for one in seen.state.disks] == [(str(raw), SIZE, "block")]
        assert seen.parsed.machine.memory.size >= 1 << 30
        with pytest.raises(UsageError, match="is not there"):
            source.find("another")
    with metal(reading=WHOLE) as source:
        assert all("loop" not in slot.path for slot in source.look(found, CONTROL).parsed.machine.disks)


@pytest.mark.parametrize("path", ["/dev/nothing", "/etc/passwd", "/dev/null"])
def test_what_is_no_disk_is_refused(path: str) -> None:
    with metal(Path(path)) as source, pytest.raises(UsageError, match="is no disk of that machine"):
        source.look(source.machines()[0], CONTROL)


def test_every_byte(device: Path, raw: Path, tmp_path: Path) -> None:
    reader = copied(device, tmp_path / "copy", reading=WHOLE)
    oracle.same(raw, "raw", tmp_path / "copy", "raw")
    assert reader.bytes_read == SIZE
    assert (tmp_path / "copy").stat().st_blocks * 512 < 11 * CHUNK


@pytest.mark.long
@pytest.mark.parametrize("sector", [512, 4096])
def test_only_what_file_systems_use(tmp_path: Path, sector: int) -> None:
    if sector == 512:
        guest = guest_disk.build(tmp_path)
        with disk(guest.path) as device:
            reader = copied(device, tmp_path / "copy")
        check_result(guest, tmp_path / "copy", tmp_path)
        assert len(reader.warnings) == 2, reader.warnings
        return
    path = big_sectors(tmp_path)
    with disk(path, sector=4096) as device:
        reader = copied(device, tmp_path / "copy")
    assert reader.bytes_read < 200 << 20
    with disk(tmp_path / "copy", sector=4096) as device:
        tool("e2fsck", "-fn", f"{device}p1")


def big_sectors(place: Path) -> Path:
    """A disk of 2 GiB that addresses 4096 bytes, with a GPT and one ext4 on it."""
    path = place / "big"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    with disk(path, sector=4096) as device:
        tool("sh", "-c", f"echo 'size=500000' | sfdisk -q -X gpt {device}", ok=(0, 1))
        tool("partx", "-u", device, ok=(0, 1))
        tool("mkfs.ext4", "-q", "-b", "4096", f"{device}p1")
    return path


KEEP_ON = """
import sys
from pathlib import Path
from imgtool.progress import Control, Rate
from imgtool.model import ImageSpec
from imgtool.model.metal import Reading
from tests.metal import copies
copies.CONTROL = Control(rate=Rate(10 << 20))
receive = copies.receive
receive.SAVE_BYTES, receive.SAVE_SECONDS = 4 << 20, 0.1
reader = copies.copied(Path(sys.argv[1]), Path(sys.argv[2]), reading=Reading(whole=True))
print(reader.bytes_read)
"""


def test_kill_9_ten_times(device: Path, raw: Path, tmp_path: Path) -> None:
    """It goes on where it was, until it is done; what a killed run had saved is not read again."""
    copy = tmp_path / "copy"
    argv = [sys.executable, "-c", KEEP_ON, str(device), str(copy)]
    partial = Path(f"{copy}.imgtool-partial.map")
    for number in range(10):
        before = partial.stat().st_size if partial.exists() else 0
        with subprocess.Popen(argv, env=ENVIRONMENT, cwd=ROOT) as child:
            while child.poll() is None and (not partial.exists() or partial.stat().st_size <= before + 32 * (number % 2)):
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL, number
    left = partial.stat().st_size // 32
    assert left > 8
    done = subprocess.run(argv, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= SIZE - 8 * CHUNK
    oracle.same(raw, "raw", copy, "raw")
    assert not partial.exists()


def test_goes_on_when_the_far_end_was_killed(device: Path, raw: Path, tmp_path: Path) -> None:
    class Killing:
        """Kills the process at the other end after some pieces."""

        def __init__(self, receiver: receive.Receiver, pid: int) -> None:
            self.chunks, self.left, self.pid = receive.Chunks(receiver, CONTROL.progress.bar(0, "").__enter__()), 20, pid

        def write(self, offset: int, data: memoryview) -> None:
            self.left -= 1
            if not self.left:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self.chunks.write(offset, data)

        def zero(self, offset: int, length: int) -> None:
            self.chunks.zero(offset, length)

    copy = tmp_path / "copy"

    def read_and_kill() -> None:
        with copying(device, copy, reading=WHOLE) as (reader, receiver):
            reader.read([(0, SIZE)], Killing(receiver, reader.file.wire.call("hello")[0]["pid"]), CONTROL)

    with pytest.raises(UnreachableError, match="the connection ended"):
        read_and_kill()
    reader = copied(device, copy, reading=WHOLE)
    assert reader.bytes_read <= SIZE - 2 * CHUNK
    oracle.same(raw, "raw", copy, "raw")


def half(device: Path, copy: Path, reading: Reading) -> Mapping[str, object]:
    """A copy that was stopped in its middle; the state of its source."""
    with copying(device, copy, reading=reading) as (reader, receiver):
        middle = receiver.blocks.chunks // 2 * receiver.blocks.chunk
        holes = [(low, min(high, middle)) for low, high in reader.holes() if low < middle]
        sink = receive.Chunks(receiver, CONTROL.progress.bar(0, "").__enter__())
        at = 0
        for low, high in [*holes, (middle, middle)]:
            reader.read([(at, low)] if at < low else [], sink, CONTROL)
            sink.zero(low, high - low)
            at = high
        receiver.save()
        return reader.state


def test_a_source_whose_beginning_changed_is_noticed(device: Path, tmp_path: Path) -> None:
    half(device, tmp_path / "copy", WHOLE)
    tool("dd", "if=/dev/urandom", f"of={device}", "bs=512", "count=1", "seek=9", "status=none")
    with pytest.raises(RefusedError, match="the source has changed"):
        copied(device, tmp_path / "copy", reading=WHOLE)


def test_a_source_that_changed_anywhere_in_a_sample_is_noticed(device: Path, tmp_path: Path) -> None:
    half(device, tmp_path / "copy", WHOLE)
    tool("dd", "if=/dev/urandom", f"of={device}", "bs=512", "count=1", f"seek={5 * CHUNK // 512}", "status=none")
    with pytest.raises(RefusedError, match=f"has changed since .* byte {5 * CHUNK} on"):
        copied(device, tmp_path / "copy", reading=WHOLE)


def test_as_any_other_reader(device: Path, raw: Path, tmp_path: Path) -> None:
    """What the protocol says is enough for a copy, and ``fill`` is found."""
    with copying(device, tmp_path / "copy", reading=WHOLE) as (reader, receiver):
        assert isinstance(reader, Filler)
        sink = receive.Chunks(receiver, CONTROL.progress.bar(0, "").__enter__())
        reader.read([(start, start + length) for _, start, length in receiver.missing()], sink, CONTROL)
        receiver.close_up()
    publish(tmp_path / "copy")
    oracle.same(raw, "raw", tmp_path / "copy", "raw")


def test_who_wrote_into_a_file_system_meanwhile_is_noticed(tmp_path: Path) -> None:
    """One small file: its superblock, its bitmap or its journal has changed, and they are compared when the copy goes on."""
    path = tmp_path / "xfs"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    tool("mkfs.xfs", "-q", path)
    with disk(path) as device:
        before = half(device, tmp_path / "copy", Reading())
        with mounted_on(device, tmp_path / "m") as point:
            (point / "note").write_text("written between two runs")
        with metal(device) as source, \
                source.reader(source.look(source.machines()[0], CONTROL), 0, CONTROL) as reader, \
                receive.receiving(str(tmp_path / "copy"), size=reader.size, spec=RAW, source=before) as receiver, \
                pytest.raises(RefusedError, match=rf"{device} has changed since the copy was begun"):
            reader.fill(receiver, CONTROL)


@pytest.mark.long
@pytest.mark.parametrize("fs", ["xfs", "ext4"])
def test_bytes_read_of_a_disk_with_a_tenth_used(tmp_path: Path, fs: str) -> None:
    """20 GiB, 2 GiB of files: what is read, maps included, is at most 1.1 of the blocks that the file system has in use."""
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(20 << 30)
    with disk(path) as device:
        tool(f"mkfs.{fs}", "-q", device)
        with mounted_on(device, tmp_path / "m") as point:
            for number in range(32):
                (point / f"file-{number}").write_bytes(os.urandom(64 << 20))
            os.sync()
            space = os.statvfs(point)
            used = (space.f_blocks - space.f_bfree) * space.f_frsize
        if fs == "ext4":  # statvfs leaves its tables out
            said = dict(line.split(":", 1) for line in tool("dumpe2fs", "-h", device).stdout.splitlines() if ":" in line)
            used = (int(said["Block count"]) - int(said["Free blocks"])) * int(said["Block size"])
        before = read_of(device)
        copied(device, tmp_path / "copy")
        assert read_of(device) - before <= 1.1 * used
        with disk(tmp_path / "copy") as copy, mounted_on(copy, tmp_path / "m2") as point:
            assert len(list(point.glob("file-*"))) == 32


def read_of(device: Path) -> int:
    """Bytes that were read from it, by its own count (Documentation/block/stat)."""
    return int(Path(f"/sys/block/{device.name}/stat").read_text().split()[2]) * 512


def test_a_disk_that_is_used_while_it_is_read(device: Path, tmp_path: Path) -> None:
    with copying(device, tmp_path / "copy", reading=WHOLE) as (reader, receiver):
        read = reader.read

        def disturbed(*args: object) -> None:
            read(*args)  # type: ignore[arg-type]
            tool("dd", "if=/dev/urandom", f"of={device}", "bs=512", "count=1", "seek=1", "status=none")

        reader.read = disturbed  # type: ignore[method-assign]
        with pytest.raises(RefusedError, match="has changed while it was read"):
            reader.fill(receiver, CONTROL)
