"""Disks of a libvirt host behind ssh, read through qemu-nbd there; cuts, kills, and a host without qemu-nbd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.libvirtd import Libvirtd
from fixtures.run import run
from fixtures.sshd import Sshd, sshd
from imgtool import endpoints
from imgtool.endpoints import Source, uri
from imgtool.endpoints.far import nbd
from imgtool.errors import ImgtoolError, RefusedError, UnreachableError
from imgtool.model.endpoint import Credentials
from imgtool.progress import Control, Rate
from tests.libvirt_endpoint.domains import disk, domain
from tests.libvirt_endpoint.sinks import MIB, Bytes, expected, noise, qcow2
from tests.program import ENVIRONMENT, ROOT
from tests.shells import unheard


@pytest.fixture
def address(daemon: Libvirtd, pool: Path, ssh: Sshd) -> str:
    return ssh.uri("qemu+ssh", "/system", socket=daemon.socket)


@pytest.fixture
def source(address: str) -> Iterator[Source]:
    found = endpoints.source(uri.parse(address), Credentials())
    yield found
    found.close()


def servers(folder: Path) -> list[int]:
    """qemu-nbd processes that serve something in the folder."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = status.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"qemu-nbd") and any(bytes(folder) in word for word in words):
            found.append(int(status.parent.name))
    return found


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_reads(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path, form: str) -> None:
    image = noise(pool / "a 'b' ünï,json:{}.qcow2", 16)
    want = expected(image, form, tmp_path)
    daemon.define(domain("web's", disk(image, form=form)), tmp_path)
    found = source.find("web's")
    states = []
    for _ in range(2):
        with source.reader(source.look(found, Control()), 0, Control()) as reader:
            assert (reader.size, reader.disk, reader.resumes) == (len(want), None, True)
            sink = Bytes(reader.size)
            half = reader.size // 2 + 3
            reader.read([(0, half), (half, reader.size)], sink, Control())
            states.append(dict(reader.state))
            assert servers(pool)
            holes = list(reader.holes())
        assert bytes(sink.data) == want
        assert sink.seen == reader.size
        assert all(not any(want[start:end]) for start, end in holes)
        assert holes or form == "raw"
    assert states[0] == states[1]
    run(["qemu-io", "-f", form, "-c", "write -P 9 1M 4k", image])
    with source.reader(source.look(found, Control()), 0, Control()) as reader:
        assert reader.state != states[0]
    eventually(lambda: not servers(pool))


def test_chain(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    templates = daemon.pool("templates", tmp_path / "templates")
    qcow2(templates / "base.qcow2")
    qcow2(tmp_path / "outside.qcow2")
    want = {}
    for name, below in (("good", templates / "base.qcow2"), ("bad", tmp_path / "outside.qcow2")):
        image = pool / f"{name}.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", image])
        want[name] = expected(image, "qcow2", tmp_path)
        daemon.define(domain(name, disk(image)), tmp_path)
    with source.reader(source.look(source.find("good"), Control()), 0, Control()) as reader:
        sink = Bytes(reader.size)
        reader.read([(0, reader.size)], sink, Control())
    assert bytes(sink.data) == want["good"]
    bad = source.look(source.find("bad"), Control())
    with pytest.raises(RefusedError, match="in no storage pool"), source.reader(bad, 0, Control()):
        pass


def test_goes_on_after_cuts(daemon: Libvirtd, source: Source, ssh: Sshd, pool: Path, tmp_path: Path) -> None:
    image = noise(pool / "x.qcow2", 48)
    want = expected(image, "qcow2", tmp_path)
    daemon.define(domain("web", disk(image)), tmp_path)
    with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
        sink = Bytes(reader.size)
        cuts: list[int] = []
        over = threading.Event()

        def cut() -> None:
            while not over.wait(0.7) and len(cuts) < 3:
                cuts.append(ssh.cut())

        cutter = threading.Thread(target=cut)
        cutter.start()
        reader.read([(0, reader.size)], sink, Control(rate=Rate(12 * MIB)))
        over.set()
        cutter.join()
    assert bytes(sink.data) == want
    assert sink.seen == len(want)  # nothing came twice
    assert any(cuts)
    eventually(lambda: not servers(pool))


def test_a_cut_while_it_begins(tmp_path: Path) -> None:
    """Nobody hears any more that the server is ready."""
    image, there = tmp_path / "x.raw", tmp_path / "there"
    image.write_bytes(bytes(MIB))
    assert unheard(nbd.SERVE, there, nbd.graph([(str(image), "raw")], block=False))
    assert servers(there) == []
    assert not there.exists()


def test_a_disk_that_changes_meanwhile(daemon: Libvirtd, source: Source, ssh: Sshd, pool: Path, tmp_path: Path) -> None:
    image = noise(pool / "x.qcow2", 8)
    daemon.define(domain("web", disk(image)), tmp_path)
    with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
        ssh.cut()
        eventually(lambda: not servers(pool))
        run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 4k", image])
        with pytest.raises(ImgtoolError, match="has changed while it was read"):
            reader.read([(0, reader.size)], Bytes(reader.size), Control())


READER = """
import sys, time
from imgtool import endpoints
from imgtool.endpoints import uri
from imgtool.model.endpoint import Credentials
from imgtool.progress import Control
source = endpoints.source(uri.parse(sys.argv[1]), Credentials())
with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
    print("reading", flush=True)
    time.sleep(600)
"""


def test_killed_it_leaves_nothing_there(daemon: Libvirtd, address: str, pool: Path, tmp_path: Path) -> None:
    daemon.define(domain("web", disk(qcow2(pool / "x.qcow2"))), tmp_path)
    with subprocess.Popen([sys.executable, "-c", READER, address], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        (server,) = servers(pool)
        sockets = [word for word in Path(f"/proc/{server}/cmdline").read_text().split("\0") if word.startswith("--socket=")]
        process.send_signal(signal.SIGKILL)
        process.wait()
    eventually(lambda: not servers(pool))
    eventually(lambda: not os.path.exists(os.path.dirname(sockets[0].removeprefix("--socket="))))


def test_in_use(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    daemon.define(domain("web", disk(qcow2(pool / "x.qcow2"))), tmp_path)
    daemon.virsh("start", "web")
    seen = source.look(source.find("web"), Control())
    assert seen.state.running
    with pytest.raises(RefusedError, match="in use"), source.reader(seen, 0, Control()):
        pass


def test_without_qemu_nbd(daemon: Libvirtd, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    image = noise(pool / "x.qcow2", 8)
    want = expected(image, "qcow2", tmp_path)
    daemon.define(domain("web", disk(image)), tmp_path)
    with sshd(tmp_path / "bare", tools=()) as bare:
        source = endpoints.source(uri.parse(bare.uri("qemu+ssh", "/system", socket=daemon.socket)), Credentials())
        states = []
        for _ in range(2):
            with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
                assert reader.disk is not None
                sink = Bytes(reader.size)
                reader.read([(0, reader.size)], sink, Control())
                states.append(dict(reader.state))
        source.close()
    assert bytes(sink.data) == want
    assert states[0] == states[1]
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file()] == []


def test_who_is_not_let_in(daemon: Libvirtd, pool: Path, ssh: Sshd, tmp_path: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"])
    (tmp_path / "known").write_text("")
    wrong = [{"keyfile": str(tmp_path / "stranger")}, {"known_hosts": str(tmp_path / "known")}, {"socket": "/nonexistent/sock"}]
    for query in wrong:
        with pytest.raises(UnreachableError):
            endpoints.source(uri.parse(ssh.uri("qemu+ssh", "/system", **{"socket": daemon.socket, **query})), Credentials())
    address = ssh.uri("qemu+ssh", "/system", socket=daemon.socket, known_hosts=str(tmp_path / "known"), no_verify="1")
    found = endpoints.source(uri.parse(address), Credentials())
    assert found.machines() == []
    found.close()
