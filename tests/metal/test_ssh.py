"""A physical machine at the other end of ssh: this host, through an sshd on the loopback interface."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.sshd import Sshd, sshd
from imgtool.copying.receive import CHUNK, Chunks
from imgtool.endpoints.far import tunnel
from imgtool.endpoints.far.file import data_of
from imgtool.endpoints.metal import Metal, packing
from imgtool.endpoints.metal.reader import MetalReader
from imgtool.endpoints.uri import parse
from imgtool.errors import ImgtoolError, RefusedError, UnreachableError
from imgtool.model.metal import Reading
from imgtool.progress import Stop
from tests import oracle
from tests.metal.copies import CONTROL, copied, copying, disk, metal, mounted_on
from tests.oracle import tool
from tests.program import ENVIRONMENT, ROOT

WHOLE = Reading(whole=True)
SIZE = 20 * CHUNK


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with sshd(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.write(random.Random(1).randbytes(3 * CHUNK) + b"words that pack well " * 600_000)
    return path


def test_a_disk_there(server: Sshd, raw: Path, tmp_path: Path) -> None:
    with disk(raw) as device:
        uri = parse(server.uri("metal+ssh", str(device)))
        with metal(uri=uri, reading=WHOLE) as source:
            (found,) = source.machines()
            assert found.name == os.uname()[1].split(".")[0]
            assert source.look(source.find("127.0.0.1"), CONTROL).parsed.machine.disks[0].path == str(device)
        copied(device, tmp_path / "copy", reading=WHOLE, uri=uri)
    oracle.same(raw, "raw", tmp_path / "copy", "raw")


def test_by_another_name_and_two_disks(server: Sshd, raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "by id"
    folder.mkdir()
    other = tmp_path / "other"
    other.write_bytes(bytes(CHUNK))
    with disk(raw) as first, disk(other) as second:
        (folder / "disk").symlink_to(first)
        uri = parse(server.uri("metal+ssh", f"{folder}/disk,{second}".replace(" ", "%20")))
        with metal(uri=uri, reading=WHOLE) as source:
            seen = source.look(source.machines()[0], CONTROL)
            assert [slot.path for slot in seen.parsed.machine.disks] == [str(first), str(second)]
            with source.reader(seen, 1, CONTROL) as reader:
                assert reader.size == CHUNK


def test_a_connection_that_is_cut(server: Sshd, raw: Path, tmp_path: Path) -> None:
    """What has come stays, and the next run goes on with it."""
    class Cutting:
        def __init__(self, sink: object) -> None:
            self.below, self.left = sink, 30

        def __getattr__(self, name: str) -> object:
            self.left -= 1
            if not self.left:
                server.cut()
            return getattr(self.below, name)

    def cut() -> None:
        with copying(device, tmp_path / "copy", reading=WHOLE, uri=uri) as (reader, receiver), CONTROL.progress.bar(0, "") as bar:
            reader.read([(0, SIZE)], Cutting(Chunks(receiver, bar)), CONTROL)  # type: ignore[arg-type]

    with disk(raw) as device:
        uri = parse(server.uri("metal+ssh", str(device)))
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1: the connection"):
            cut()
        reader = copied(device, tmp_path / "copy", reading=WHOLE, uri=uri)
    assert CHUNK < reader.bytes_read < SIZE - 2 * CHUNK
    oracle.same(raw, "raw", tmp_path / "copy", "raw")


def test_who_is_not_let_in_is_told(server: Sshd, tmp_path: Path) -> None:
    uri = parse(server.uri("metal+ssh", "/dev/loop0", known_hosts=str(tmp_path / "none")))
    with pytest.raises(UnreachableError, match="Host key verification failed") as caught:
        Metal(uri, Stop())
    assert "known_hosts" in (caught.value.hint or "")


def test_packed_on_the_way(server: Sshd, raw: Path) -> None:
    """By whatever codec the far end has, the same bytes; what does not shrink comes as it is."""
    with disk(raw) as device, metal(uri=parse(server.uri("metal+ssh", str(device))), reading=WHOLE) as source:
        seen = source.look(source.machines()[0], CONTROL)
        with source.reader(seen, 0, CONTROL) as reader:
            wanted = bytes(reader.file.read(3 * CHUNK, 1 << 20))
            assert wanted.startswith(b"words that pack well")
            answer = reader.file.ask_read(3 * CHUNK, 1 << 20, "zlib").result()
            assert answer[0]["codec"] == "zlib"
            assert len(answer[1]) < len(wanted) // 10
            assert data_of(answer, 1 << 20) == wanted
            assert len(reader.file.ask_read(0, 1 << 20, "zlib").result()[1]) == 1 << 20


def test_the_faster_way_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(packing.time, "monotonic", lambda: now[0])
    for plain, packed, best in ((1.0, 0.1, "zlib"), (0.1, 1.0, None)):
        choice = packing.Packing("zlib")
        assert choice.codec is None
        for _ in range(40):
            now[0] += packed if choice.codec else plain
            choice.came(1 << 20, choice.codec)
        assert choice.codec == best
    assert packing.Packing(None).codec is None


def test_without_python(raw: Path, tmp_path: Path) -> None:
    """dd gives the whole disk; what else cannot be is said before anything is copied."""
    tools = ["dd", "head", "readlink", "printf"]
    with sshd(tmp_path / "sshd", tools=tools) as server, disk(raw) as device:
        uri = parse(server.uri("metal+ssh", str(device)))
        with metal(uri=uri, reading=Reading(live=True)) as source:
            (found,) = source.machines()
            assert found.name == os.uname()[1].split(".")[0]
            seen = source.look(found, CONTROL)
            assert not seen.state.can_resume
            assert any("neither python3 nor qemu-nbd" in problem.what for problem in seen.parsed.problems)
            assert (seen.parsed.machine.disks[0].capacity, seen.parsed.machine.cpu.count) == (SIZE, os.cpu_count())
            with source.reader(seen, 0, CONTROL) as reader:
                assert not isinstance(reader, MetalReader)
                copy = bytearray(SIZE)

                class Into:
                    def write(self, offset: int, data: memoryview) -> None:
                        copy[offset:offset + len(data)] = data

                    def zero(self, offset: int, length: int) -> None:
                        pass

                reader.read([], Into(), CONTROL)
                assert copy == raw.read_bytes()
                os.truncate(raw, SIZE // 2)
                with pytest.raises(UnreachableError, match=f"{device} came to byte {SIZE // 2} of {SIZE}"):
                    reader.read([], Into(), CONTROL)


def test_without_python_by_another_name(raw: Path, tmp_path: Path) -> None:
    """The disk's name is not taken for the host's."""
    link = tmp_path / "by-id"
    with sshd(tmp_path / "sshd", tools=["dd", "head", "readlink", "printf"]) as server, disk(raw) as device:
        link.symlink_to(device)
        with metal(uri=parse(server.uri("metal+ssh", str(link)))) as source:
            (found,) = source.machines()
            assert found.name == os.uname()[1].split(".")[0]
            assert [slot.path for slot in source.look(found, CONTROL).parsed.machine.disks] == [str(device)]


def test_a_far_machine_that_hangs(server: Sshd) -> None:
    uri = parse(server.uri("metal+ssh", "/dev/sda"))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1: sleep did not end within 1 s"):
        tunnel.run(uri, ["sleep", "20"], stop=Stop(), seconds=1)


def test_without_python_by_qemu_nbd(raw: Path, tmp_path: Path) -> None:
    """In parts: a copy that was cut goes on, what file systems do not use is not read, a bad sector is told from a cut."""
    tools = ["dd", "head", "readlink", "printf", "qemu-nbd", "qemu-img"]
    with sshd(tmp_path / "sshd", tools=tools) as server, disk(raw) as device:
        uri = parse(server.uri("metal+ssh", str(device)))
        with copying(device, tmp_path / "copy", reading=WHOLE, uri=uri) as (reader, receiver), CONTROL.progress.bar(0, "") as bar:
            reader.read([(0, 5 * CHUNK)], Chunks(receiver, bar), CONTROL)
            receiver.save()
        reader = copied(device, tmp_path / "copy", reading=WHOLE, uri=uri)
        assert reader.bytes_read == SIZE - 5 * CHUNK
        oracle.same(raw, "raw", tmp_path / "copy", "raw")
        with metal(uri=uri, reading=WHOLE) as source:
            seen = source.look(source.machines()[0], CONTROL)
            assert seen.state.can_resume
            assert any("qemu-nbd gives its disks" in problem.what for problem in seen.parsed.problems)
            os.truncate(raw, 2 * CHUNK)
            with pytest.raises(ImgtoolError, match=f"{device} cannot be read at byte"), \
                    source.reader(seen, 0, CONTROL) as whole:
                whole.read([(CHUNK, 4 * CHUNK)], Nowhere(), CONTROL)


class Nowhere:
    def write(self, offset: int, data: memoryview) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...


@pytest.mark.long
def test_used_blocks_by_qemu_nbd(tmp_path: Path) -> None:
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(256 << 20)
    tool("mkfs.ext4", "-q", path)
    with sshd(tmp_path / "sshd", tools=["dd", "head", "readlink", "printf", "qemu-nbd"]) as server, disk(path) as device:
        with mounted_on(device, tmp_path / "m") as point:
            (point / "file").write_bytes(random.Random(3).randbytes(20 << 20))
        uri = parse(server.uri("metal+ssh", str(device)))
        reader = copied(device, tmp_path / "copy", uri=uri)
        assert 20 << 20 < reader.bytes_read < 60 << 20
    with disk(tmp_path / "copy") as copy, mounted_on(copy, tmp_path / "c") as point:
        assert (point / "file").read_bytes() == random.Random(3).randbytes(20 << 20)


def test_a_busy_disk_without_python_is_refused(raw: Path, tmp_path: Path) -> None:
    tool("mkfs.ext4", "-q", "-F", raw)
    (tmp_path / "m").mkdir()
    with sshd(tmp_path / "sshd", tools=["dd", "head", "readlink"]) as server, disk(raw) as device:
        tool("mount", device, tmp_path / "m")
        try:
            with metal(uri=parse(server.uri("metal+ssh", str(device))), reading=Reading(live=True)) as source:
                seen = source.look(source.machines()[0], CONTROL)
                assert [problem.fatal for problem in seen.parsed.problems if "is in use" in problem.what] == [True]
                with pytest.raises(RefusedError, match="is mounted at"), source.reader(seen, 0, CONTROL):
                    pass
        finally:
            tool("umount", tmp_path / "m")


HOLD = """
import sys
from imgtool.endpoints import far
from imgtool.endpoints.uri import parse
from imgtool.progress import Stop
with far.connected(parse(sys.argv[1]), Stop()) as wire:
    wire.call("freeze", mounts=[sys.argv[2]], seconds=120)
    print(wire.call("hello")[0]["pid"], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", ["ssh", "sshd", "the far end"])
def test_it_thaws_whoever_dies(server: Sshd, tmp_path: Path, killed: str) -> None:
    """A file system stays frozen no longer than imgtool, ssh, sshd and the far end live."""
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tool("mkfs.ext4", "-q", path)
    with disk(path) as device, mounted_on(device, tmp_path / "m") as point, \
            subprocess.Popen([sys.executable, "-c", HOLD, server.uri("metal+ssh", "/x"), str(point)], env=ENVIRONMENT, cwd=ROOT,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        pid = int(holder.stdout.readline())
        with subprocess.Popen([sys.executable, "-c", f"open({str(point / 'new')!r}, 'w').write('x')"]) as writer:
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(1)
            if killed == "ssh":
                os.killpg(child_of(holder.pid), signal.SIGKILL)
            elif killed == "sshd":
                assert server.cut()
            else:
                os.kill(pid, signal.SIGKILL)
            assert writer.wait(30) == 0
        holder.kill()


def child_of(pid: int) -> int:
    """The one process that another has started."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
