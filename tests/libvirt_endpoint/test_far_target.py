"""Machines sent to a libvirt host behind ssh: cuts, kills, a full disk there, a host without Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from fixtures.libvirtd import Libvirtd
from fixtures.run import run
from fixtures.sshd import Sshd, sshd
from imgtool import endpoints
from imgtool.descriptions import description
from imgtool.endpoints import FarTarget, uri
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.libvirt import send as far_send
from imgtool.errors import DifferError, ImgtoolError, NoSpaceError, RefusedError, UsageError
from imgtool.formats.disk import Disk, open_disk
from imgtool.model import Allocation
from imgtool.model.endpoint import Credentials, NewDisk, Placing
from imgtool.progress import Control, Rate
from tests.libvirt_endpoint.domains import disk, domain
from tests.libvirt_endpoint.sinks import MIB, expected, noise, qcow2
from tests.program import ENVIRONMENT, ROOT

NEW = ".imgtool-new"


@pytest.fixture
def address(daemon: Libvirtd, pool: Path, ssh: Sshd) -> str:
    return ssh.uri("qemu+ssh", "/system", socket=daemon.socket)


def reached(address: str) -> FarTarget:
    return cast("FarTarget", endpoints.target(uri.parse(address), Credentials()))


@pytest.fixture
def target(address: str) -> Iterator[FarTarget]:
    found = reached(address)
    yield found
    found.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def new(name: str, form: str = "qcow2", allocation: Allocation = Allocation.THIN, *, version: int = 1) -> NewDisk:
    return NewDisk(name=name, format=form, allocation=allocation, state={"version": version})


def send(target: FarTarget, disks: Sequence[tuple[NewDisk, Disk]], state: Path, *, name: str = "web",
         control: Control | None = None) -> str:
    devices = [disk(f"/nowhere/{one.name}", device=device) for (one, _), device in zip(disks, ("vda", "vdb"), strict=False)]
    text = domain(name + NEW, *devices)
    machine = description(".xml").parse(text.encode()).machine
    return target.send(name + NEW, machine, text.encode(), disks, str(state), control or Control())


@pytest.mark.parametrize("name", ["web", " -rf 'it's' \"q\" <&>; ünï 🚀"])
def test_sends_two_disks(daemon: Libvirtd, target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack, name: str) -> None:
    first, second = noise(tmp_path / "a.qcow2", 21), qcow2(tmp_path / "b.qcow2", size=300 * MIB + 512)
    state = target.look(Placing(), Control())
    assert target.folder is None
    assert (state.storage, state.can_resume, state.missing_tools) == ("default", True, ())
    assert state.free is not None
    disks = [(new(f"{name}-0.qcow2"), stack.enter_context(open_disk(str(first)))),
             (new(f"{name}-1.raw", "raw"), stack.enter_context(open_disk(str(second))))]
    machine = send(target, disks, tmp_path / "state", name=name)
    target.compare(machine, disks, Control())
    assert sorted(os.listdir(pool)) == sorted([f"{name}-0.qcow2", f"{name}-1.raw"])
    for number, form in ((0, "qcow2"), (1, "raw")):
        path = pool / f"{name}-{number}.{form}"
        assert expected(path, form, tmp_path) == expected((first, second)[number], "qcow2", tmp_path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_blocks * 512 < 22 * MIB
    run(["qemu-img", "check", "-q", pool / f"{name}-0.qcow2"])
    target.rename(machine, name)
    assert os.listdir(tmp_path / "state") == []
    text = daemon.virsh("dumpxml", machine)
    assert "<source file='/nowhere" not in text
    source = endpoints.source(uri.parse(daemon.address), Credentials())
    seen = source.look(source.find(name), Control())
    source.close()
    assert [one.path for one in seen.disks] == [str(pool / f"{name}-0.qcow2"), str(pool / f"{name}-1.raw")]
    target.remove(machine)
    assert os.listdir(pool) == []


def test_over_a_slow_line_it_is_packed(target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Text shrinks, noise does not and is sent as it is."""
    monkeypatch.setattr(far_send, "FAST", 1 << 60)
    image = noise(tmp_path / "a.qcow2", 8)
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 65 5M 1M", image])
    sent = []
    ask = Wire.ask
    monkeypatch.setattr(Wire, "ask", lambda self, op, payload=b"", **more: sent.append((op, more.get("codec"), len(payload)))
                        or ask(self, op, payload, **more))
    target.look(Placing(), Control())
    disks = [(new("web-0.qcow2"), stack.enter_context(open_disk(str(image))))]
    target.compare(send(target, disks, tmp_path / "state"), disks, Control())
    assert expected(pool / "web-0.qcow2", "qcow2", tmp_path) == expected(image, "qcow2", tmp_path)
    writes = [(codec, length) for op, codec, length in sent if op == "write" and length]
    assert {codec for codec, _ in writes} == {None, "zlib"}
    assert sum(length for _, length in writes) < 6 * MIB


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("allocation", [Allocation.THICK, Allocation.EAGER])
def test_allocations(target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack, form: str, allocation: Allocation) -> None:
    image = qcow2(tmp_path / "a.qcow2")
    target.look(Placing(), Control())
    disks = [(new("web-0", form, allocation), stack.enter_context(open_disk(str(image))))]
    machine = send(target, disks, tmp_path / "state")
    target.compare(machine, disks, Control())
    assert (pool / "web-0").stat().st_blocks * 512 >= 16 * MIB
    assert expected(pool / "web-0", form, tmp_path) == expected(image, "qcow2", tmp_path)
    if form == "qcow2":
        run(["qemu-img", "check", "-q", "-f", "qcow2", pool / "web-0"])


def test_goes_on_after_cuts(target: FarTarget, ssh: Sshd, pool: Path, tmp_path: Path, stack: ExitStack) -> None:
    image = noise(tmp_path / "a.qcow2", 64)
    target.look(Placing(), Control())
    disks = [(new("web-0.qcow2"), stack.enter_context(open_disk(str(image))))]
    over, cuts = threading.Event(), []

    def cut() -> None:
        while not over.wait(0.8) and len(cuts) < 4:
            cuts.append(ssh.cut())

    cutter = threading.Thread(target=cut)
    cutter.start()
    machine = send(target, disks, tmp_path / "state", control=Control(rate=Rate(14 * MIB)))
    over.set()
    cutter.join()
    assert any(cuts)
    target.compare(machine, disks, Control())
    assert expected(pool / "web-0.qcow2", "qcow2", tmp_path) == expected(image, "qcow2", tmp_path)


SENDER = """
import sys
from imgtool import endpoints
from imgtool.copying import receive
from imgtool.descriptions import description
from imgtool.endpoints import uri
from imgtool.formats.disk import open_disk
from imgtool.model.endpoint import Credentials, NewDisk, Placing
from imgtool.progress import Control, Rate
receive.SAVE_BYTES = 8 << 20
address, image, state, rate, text = sys.argv[1:]
target = endpoints.target(uri.parse(address), Credentials())
target.look(Placing(), Control())
machine = description(".xml").parse(text.encode()).machine
with open_disk(image) as disk:
    new = NewDisk(name="web-0.qcow2", format="qcow2", state={"version": 1})
    target.send("web.imgtool-new", machine, text.encode(), [(new, disk)], state, Control(rate=Rate(int(rate) or None)))
"""


def test_goes_on_after_kills(address: str, target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack) -> None:
    image = noise(tmp_path / "a.qcow2", 64)
    text = domain("web" + NEW, disk("/nowhere/web-0.qcow2"))
    argv = [sys.executable, "-c", SENDER, address, image, tmp_path / "state", str(20 * MIB), text]
    saved, record = tmp_path / "state" / "web-0.qcow2.map", 32
    for chunks in (3, 7):
        with subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT) as process:
            while process.poll() is None and not (saved.exists() and saved.stat().st_size > chunks * record + 300):
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert os.listdir(pool) == ["web-0.qcow2.imgtool-partial"]
    target.look(Placing(), Control())
    disks = [(new("web-0.qcow2"), stack.enter_context(open_disk(str(image))))]
    counted = Counted()
    machine = send(target, disks, tmp_path / "state", control=Control(rate=counted))
    target.compare(machine, disks, Control())
    assert 0 < counted.bytes <= (64 - 7 * 4) * MIB
    assert expected(pool / "web-0.qcow2", "qcow2", tmp_path) == expected(image, "qcow2", tmp_path)


class Counted(Rate):
    """Counts what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self._count_lock = 0, threading.Lock()

    def take(self, count: int, stop: object) -> None:
        with self._count_lock:
            self.bytes += count


def test_a_partial_copy_of_another_source(target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack) -> None:
    image = qcow2(tmp_path / "a.qcow2")
    target.look(Placing(), Control())
    opened = stack.enter_context(open_disk(str(image)))
    (tmp_path / "state").mkdir()
    (pool / "web-0.qcow2.imgtool-partial").write_bytes(b"somebody's")
    with pytest.raises(RefusedError, match="nothing here tells"):
        send(target, [(new("web-0.qcow2"), opened)], tmp_path / "state")
    target.discard([new("web-0.qcow2")], str(tmp_path / "state"))
    assert os.listdir(pool) == []
    with pytest.raises(ImgtoolError):
        send(target, [(new("web-0.qcow2"), opened), (new("a/b"), opened)], tmp_path / "state")
    assert os.listdir(pool) == []


def test_a_file_that_is_there_stays(target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack) -> None:
    target.look(Placing(), Control())
    opened = stack.enter_context(open_disk(str(qcow2(tmp_path / "a.qcow2"))))
    (pool / "web-0.qcow2").write_bytes(b"precious")
    with pytest.raises(RefusedError, match="exists"):
        send(target, [(new("web-0.qcow2"), opened)], tmp_path / "state")
    target.discard([new("web-0.qcow2")], str(tmp_path / "state"))
    assert (pool / "web-0.qcow2").read_bytes() == b"precious"


def test_sent_and_not_defined(daemon: Libvirtd, target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack) -> None:
    """What is whole is not sent again; who gives up gets rid of it."""
    target.look(Placing(), Control())
    disks = [(new("web-0.qcow2"), stack.enter_context(open_disk(str(noise(tmp_path / "a.qcow2", 8)))))]
    text = domain("web" + NEW, disk("/nowhere/web-0.qcow2"), "<nonsense/>")
    machine = description(".xml").parse(text.encode()).machine
    with pytest.raises(ImgtoolError):
        target.send("web" + NEW, machine, text.encode(), disks, str(tmp_path / "state"), Control())
    assert os.listdir(pool) == ["web-0.qcow2"]
    counted = Counted()
    target.compare(send(target, disks, tmp_path / "state", control=Control(rate=counted)), disks, Control())
    assert counted.bytes == 0
    target.discard([disks[0][0]], str(tmp_path / "state"))
    assert (os.listdir(pool), os.listdir(tmp_path / "state")) == ([], [])
    assert daemon.virsh("list", "--all", "--name").strip() == ""


def test_a_finished_machine_is_not_discarded(target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack) -> None:
    target.look(Placing(), Control())
    disks = [(new("web-0.qcow2"), stack.enter_context(open_disk(str(qcow2(tmp_path / "a.qcow2")))))]
    target.rename(send(target, disks, tmp_path / "state"), "web")
    target.discard([disks[0][0]], str(tmp_path / "state"))
    assert os.listdir(pool) == ["web-0.qcow2"]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_differences_are_found(target: FarTarget, pool: Path, tmp_path: Path, stack: ExitStack, form: str) -> None:
    target.look(Placing(), Control())
    disks = [(new("web-0", form), stack.enter_context(open_disk(str(noise(tmp_path / "a.qcow2", 16)))))]
    machine = send(target, disks, tmp_path / "state")
    target.compare(machine, disks, Control())
    whole = (pool / "web-0").read_bytes()
    places = [5, 9 * MIB + 3] if form == "raw" else [24, 1 << 16, whole.index(bytes([0x80]), 2 << 16), len(whole) - 5]
    for place in [*places, 3 * MIB + 7 if form == "raw" else len(whole) // 2]:
        with (pool / "web-0").open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ 0x41]))
        with pytest.raises(DifferError):
            target.compare(machine, disks, Control())
        (pool / "web-0").write_bytes(whole)
    with (pool / "web-0").open("r+b") as file:
        file.truncate(len(whole) - MIB)
    with pytest.raises(DifferError):
        target.compare(machine, disks, Control())


def test_no_space_there(target: FarTarget, tmp_path: Path, stack: ExitStack) -> None:
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small])
    stack.callback(run, ["umount", "--lazy", small])
    image = noise(tmp_path / "a.qcow2", 64)
    state = target.look(Placing(storage=str(small)), Control())
    assert (state.storage, state.storages) == (str(small), ("default", str(small)))
    assert state.free is not None
    assert state.free <= 24 * MIB
    disks = [(new("web-0.qcow2"), stack.enter_context(open_disk(str(image))))]
    with pytest.raises(NoSpaceError, match=r"[Nn]o space"):
        send(target, disks, tmp_path / "state")
    assert os.listdir(small) == ["web-0.qcow2.imgtool-partial"]
    run(["mount", "-o", "remount,size=200m", small])
    target.compare(send(target, disks, tmp_path / "state"), disks, Control())
    assert expected(small / "web-0.qcow2", "qcow2", tmp_path) == expected(image, "qcow2", tmp_path)


def test_without_python(daemon: Libvirtd, pool: Path, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "here"))
    image = noise(tmp_path / "a.qcow2", 16)
    bare = stack.enter_context(sshd(tmp_path / "bare", tools=("qemu-img",)))
    target = reached(bare.uri("qemu+ssh", "/system", socket=daemon.socket))
    stack.callback(target.close)
    assert not target.look(Placing(), Control()).can_resume
    disks = [(new("web -0.qcow2"), stack.enter_context(open_disk(str(image))))]
    machine = send(target, disks, tmp_path / "state")
    target.compare(machine, disks, Control())
    path = pool / "web -0.qcow2"
    assert expected(path, "qcow2", tmp_path) == expected(image, "qcow2", tmp_path)
    assert path.stat().st_blocks * 512 < 14 * MIB
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 5M 512", path])
    with pytest.raises(DifferError):
        target.compare(machine, disks, Control())
    target.remove(machine)
    assert os.listdir(pool) == []
    assert [one for one in (tmp_path / "here").rglob("*") if one.is_file()] == []


def test_without_python_nothing_is_left(daemon: Libvirtd, pool: Path, tmp_path: Path, stack: ExitStack,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two disks is removed where the second fails: the same command can begin anew."""
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "here"))
    bare = stack.enter_context(sshd(tmp_path / "bare", tools=("qemu-img",)))
    target = reached(bare.uri("qemu+ssh", "/system", socket=daemon.socket))
    stack.callback(target.close)
    target.look(Placing(), Control())
    opened = stack.enter_context(open_disk(str(qcow2(tmp_path / "a.qcow2"))))
    disks = [(new("web-0.qcow2"), opened), (new("web-1.qcow2"), opened)]
    (pool / "web-1.qcow2").write_bytes(b"precious")
    daemon.virsh("pool-refresh", "default")
    with pytest.raises(RefusedError, match="exists already") as caught:
        send(target, disks, tmp_path / "state")
    assert "vol-delete" in str(caught.value.hint)
    assert [(path.name, path.read_bytes()) for path in pool.iterdir()] == [("web-1.qcow2", b"precious")]
    (pool / "web-1.qcow2").unlink()
    daemon.virsh("pool-refresh", "default")
    target.remove(send(target, disks, tmp_path / "state"))
    assert os.listdir(pool) == []


def test_wrong_places(target: FarTarget, pool: Path) -> None:
    for storage in ("nowhere", "/nonexistent/folder", str(pool / "file")):
        with pytest.raises(UsageError):
            target.look(Placing(storage=storage), Control())
