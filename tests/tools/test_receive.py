"""A disk that arrives in chunks: whole and equal after any stop, and nothing is fetched twice."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from imgtool import storage
from imgtool.copying import receive
from imgtool.errors import DifferError, NoSpaceError, RefusedError, UsageError
from imgtool.formats.disk import open_disk
from imgtool.model import ImageSpec
from imgtool.progress import Control, Rate, Silent, Stop
from tests.program import ENVIRONMENT, ROOT

CHUNK = receive.CHUNK
SIZE = 9 * CHUNK + 512
SOURCE = {"disk": "[ds] a/a-flat.vmdk"}
CONTROL = Control(progress=Silent(), stop=Stop(), rate=Rate())


def disk(path: Path) -> Path:
    """Data, zeros, data with holes, and an odd end."""
    rand = random.Random(7)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for start, length in ((0, CHUNK), (2 * CHUNK + 65536, 70000), (5 * CHUNK, 3 * CHUNK), (SIZE - 512, 512)):
            file.seek(start)
            file.write(rand.randbytes(length))
    return path


def fetch(raw: Path, receiver: receive.Receiver, most: int | None = None) -> list[int]:
    """The chunks that were fetched, in an odd order and by two threads."""
    data = raw.read_bytes()
    wanted = list(receiver.missing())[:most]
    random.Random(1).shuffle(wanted)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: receiver.take(one[0], memoryview(data)[one[1]:one[1] + one[2]]), wanted))
    return [number for number, _, _ in wanted]


def same(raw: Path, path: Path, kind: str) -> None:
    argv = ["qemu-img", "compare", "-f", "raw", "-F", kind, raw, path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "identical" in done.stdout, done.stdout + done.stderr


def fetch_and_fail(raw: Path, receiver: receive.Receiver, fetched: list[int]) -> None:
    fetched += fetch(raw, receiver, 4)
    raise OSError("the cable was cut")


def receiving(path: Path, kind: str, **source: object):
    return receive.receiving(str(path), size=SIZE, spec=ImageSpec(format=kind), source={**SOURCE, **source})


def finish(path: Path) -> None:
    receive.settle(str(path))
    receive.publish(str(path))
    receive.publish(str(path))  # a run before was stopped right here
    receive.forget(str(path))


def test_pieces_and_ranges_of_zeros_make_chunks(tmp_path: Path) -> None:
    """Zeros over many chunks, whole ones and parts, beside bytes that come in any order."""
    bar = CONTROL.progress.bar(SIZE, "x")
    with receiving(tmp_path / "x.raw", "raw") as receiver, bar as there:
        chunks = receive.Chunks(receiver, there)
        chunks.write(CHUNK + 4096, memoryview(b"\1" * 8192))
        chunks.zero(0, CHUNK + 4096)
        chunks.zero(CHUNK + 12288, 4 * CHUNK - 12288 + 512)
        assert receiver.blocks.done == 5 * CHUNK
        chunks.zero(5 * CHUNK + 512, SIZE - 5 * CHUNK - 512)
        assert receiver.blocks.done == SIZE
    assert Path(f"{tmp_path / 'x.raw'}.imgtool-partial").read_bytes() == (
        bytes(CHUNK + 4096) + b"\1" * 8192 + bytes(SIZE - CHUNK - 12288))


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_goes_on_with_what_is_missing(tmp_path: Path, kind: str) -> None:
    raw, path = disk(tmp_path / "source"), tmp_path / f"x.{kind}"
    with pytest.raises(OSError, match="cut"), receiving(path, kind) as receiver:
        fetch_and_fail(raw, receiver, first := [])
    assert not path.exists()
    with receiving(path, kind) as receiver:
        second = fetch(raw, receiver)
        assert sorted(first + second) == list(range(10))
        receiver.close_up()
        with open_disk(str(path) + ".imgtool-partial", source_format=kind) as copy:
            receive.check(copy, receiver.blocks, CONTROL)
    finish(path)
    same(raw, path, kind)
    if kind == "qcow2":
        subprocess.run(["qemu-img", "check", path], check=True, capture_output=True)
    assert path.stat().st_blocks * 512 < 5 * CHUNK
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(["source", path.name])


def test_what_another_run_left_in_a_hole_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    with receiving(path, "raw") as receiver:
        receiver.take(1, memoryview(b"\1" * CHUNK))
        receiver.take(1, memoryview(bytes(CHUNK)))
        receiver.take(2, memoryview(b"\2" * CHUNK))
        receiver.take_zeros(2)
        assert receiver.blocks.is_zero(1)
    with open(str(path) + ".imgtool-partial", "rb") as file:
        assert file.read() == bytes(SIZE)
        assert os.fstat(file.fileno()).st_blocks == 0


def test_what_another_run_left_goes_where_no_hole_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS before 4.2, FAT."""
    monkeypatch.setattr(storage, "punch", lambda *_: False)
    monkeypatch.setattr(storage, "is_hole", lambda *_: False)
    path = tmp_path / "x.raw"
    with receiving(path, "raw") as receiver:
        receiver.take_zeros(3)
        receiver.take(1, memoryview(b"\1" * CHUNK))
        receiver.take(1, memoryview(b"\1" * 4096 + bytes(CHUNK - 4096)))
        receiver.take(2, memoryview(b"\2" * CHUNK))
        receiver.take_zeros(2)
    assert Path(f"{path}.imgtool-partial").read_bytes() == bytes(CHUNK) + b"\1" * 4096 + bytes(SIZE - CHUNK - 4096)
    assert Path(f"{path}.imgtool-partial").stat().st_blocks * 512 <= 2 * CHUNK


def test_the_last_chunk_is_as_long_as_what_is_left(tmp_path: Path) -> None:
    """Also where it is known to be zeros, without its bytes."""
    last = (SIZE - 1) // CHUNK
    rest = SIZE - last * CHUNK
    with receiving(tmp_path / "x.raw", "raw") as receiver:
        receiver.take_zeros(last)
        assert receiver.blocks.digest_of(last) == receive.digest(memoryview(bytes(rest)))
    assert Path(f"{tmp_path / 'x.raw'}.imgtool-partial").stat().st_size == SIZE
    assert 0 < rest < CHUNK


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_map_without_its_copy_is_not_believed(tmp_path: Path, kind: str) -> None:
    """Somebody made room, and left the small file."""
    raw, path = disk(tmp_path / "source"), tmp_path / f"x.{kind}"
    with pytest.raises(OSError, match="cut"), receiving(path, kind) as receiver:
        fetch_and_fail(raw, receiver, [])
    Path(f"{path}.imgtool-partial").unlink()
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"imgtool-partial is gone"), receiving(path, kind):
            pass
    assert receive.discard(str(path))
    with receiving(path, kind) as receiver:
        assert len(fetch(raw, receiver)) == 10


def test_a_copy_that_went_bad_is_found(tmp_path: Path) -> None:
    raw, path = disk(tmp_path / "source"), tmp_path / "x.raw"
    with receiving(path, "raw") as receiver:
        fetch(raw, receiver)
        receiver.close_up()
        for offset in (5 * CHUNK + 3, 3 * CHUNK):
            with open(str(path) + ".imgtool-partial", "r+b") as file:
                file.seek(offset)
                old = file.read(1)
                file.seek(offset)
                file.write(bytes([old[0] ^ 1]))
                file.flush()
                with open_disk(file.name, source_format="raw") as copy, \
                        pytest.raises(DifferError, match=f"from byte {offset // CHUNK * CHUNK} on"):
                    receive.check(copy, receiver.blocks, CONTROL)
                file.seek(offset)
                file.write(old)


def test_a_source_that_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    with receiving(path, "raw", modified="monday") as receiver:
        receiver.take_zeros(0)
    with pytest.raises(RefusedError, match="source has changed"), receiving(path, "raw", modified="tuesday"):
        pass
    assert receive.discard(str(path))
    assert not receive.discard(str(path))
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_copy_is_not_published(tmp_path: Path) -> None:
    with receiving(tmp_path / "x.raw", "raw") as receiver, pytest.raises(RefusedError, match="chunk 0 is missing"):
        receiver.close_up()


def test_the_name_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    path.write_text("precious")
    with receiving(path, "raw"):
        pass
    with pytest.raises(RefusedError, match="exists"):
        finish(path)
    assert receive.discard(str(path))
    assert path.read_text() == "precious"


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError), receive.receiving(str(tmp_path / "x"), size=1, spec=ImageSpec(format="vhdx"), source={}):
        pass


CHILD = """
import sys
from pathlib import Path
from tests.tools.test_receive import SIZE, receiving, CHUNK
raw = Path(sys.argv[1]).read_bytes()
with receiving(Path(sys.argv[2]), "qcow2") as receiver:
    for number, start, length in receiver.missing():
        receiver.take(number, memoryview(raw)[start:start + length])
        receiver.save()
        print(number, flush=True)
"""


def test_a_killed_run_loses_only_what_was_not_saved(tmp_path: Path) -> None:
    raw, path = disk(tmp_path / "source"), tmp_path / "x.qcow2"
    seen: list[int] = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(raw), str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                                 env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)})
        assert child.stdout
        seen += [int(child.stdout.readline()) for _ in range(2)]
        child.send_signal(signal.SIGKILL)
        seen += [int(line) for line in child.stdout]
        child.wait()
        time.sleep(0.01)
    assert seen == list(range(len(seen)))
    with receiving(path, "qcow2") as receiver:
        left = fetch(raw, receiver)
        assert not set(left) & set(seen)
        receiver.close_up()
    finish(path)
    same(raw, path, "qcow2")


def test_a_settled_copy_is_known(tmp_path: Path) -> None:
    path, other = tmp_path / "x.raw", {**SOURCE, "modified": "later"}
    facts = {"size": SIZE, "spec": ImageSpec(format="raw")}
    with receiving(path, "raw") as receiver:
        for number, *_ in list(receiver.missing()):
            receiver.take_zeros(number)
        receiver.close_up()
    assert not receive.settled(str(path), source=SOURCE, **facts)
    receive.settle(str(path))
    assert receive.settled(str(path), source=SOURCE, **facts)
    with pytest.raises(RefusedError, match="another source"):
        receive.settled(str(path), source=other, **facts)


def test_a_disk_whose_machine_could_not_be_made_gives_its_name_back(tmp_path: Path) -> None:
    """``withdraw`` undoes ``publish``, and nothing else: the next run finds the copy, and a disk of another stays where it is."""
    path = tmp_path / "x.raw"
    receive.withdraw(str(path))
    path.write_text("another's")
    receive.withdraw(str(path))
    assert path.read_text() == "another's"
    path.rename(tmp_path / "y.raw")
    settled(path)
    receive.withdraw(str(path))
    assert not path.exists()
    receive.publish(str(path))
    receive.withdraw(str(path))
    assert not path.exists()
    assert receive.settled(str(path), size=SIZE, spec=ImageSpec(format="raw"), source=SOURCE)
    receive.publish(str(path))
    receive.forget(str(path))
    receive.withdraw(str(path))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.raw", "y.raw"]


def settled(path: Path) -> None:
    """A copy that was made in another way."""
    Path(f"{path}{receive.PARTIAL}").write_bytes(bytes(SIZE))
    receive.settle_foreign(str(path), size=SIZE, spec=ImageSpec(format="raw"), source=SOURCE)


def test_a_copy_that_was_made_in_another_way_is_known_too(tmp_path: Path) -> None:
    path, facts = tmp_path / "x.raw", {"size": SIZE, "spec": ImageSpec(format="raw")}
    settled(path)
    assert receive.settled(str(path), source=SOURCE, **facts)
    with pytest.raises(RefusedError, match="another source"):
        receive.settled(str(path), source={**SOURCE, "modified": "later"}, **facts)
    receive.publish(str(path))
    receive.forget(str(path))
    assert [one.name for one in tmp_path.iterdir()] == ["x.raw"]


def test_no_space_for_what_came_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "write_all", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(NoSpaceError, match="writing the copy"):
        receive.LocalFile(0).write(0, b"x")
