"""Disks over ssh: for hosts that refuse them over HTTPS, or when asked for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Registered, Simulator, esxi
from fixtures.ssh_server import SshServer, ssh_server
from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import VSphereSource, shell
from imgtool.endpoints.vsphere.readers import HttpsReader, ShellReader
from imgtool.errors import DamagedError, RefusedError, StoppedError, UnreachableError, UsageError
from imgtool.progress import Control, Stop
from tests.esxi.machines import MIB, ODD_NAME, machine, state
from tests.esxi.sessions import FileSink, vsphere
from tests.oracle import same

SIZE = 24 * MIB + 3 * 512
STORE = "ds 'a' $(b)"
"""A name that a shell would take apart."""


@pytest.fixture(scope="module")
def sshd() -> Iterator[SshServer]:
    with ssh_server() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datastore below what stands for /vmfs/volumes."""
    monkeypatch.setattr(shell, "ROOT", str(tmp_path / "volumes"))
    monkeypatch.setattr(shell, "PAUSE", 0.05)
    place = tmp_path / "volumes" / STORE
    place.mkdir(parents=True)
    machine(place, ODD_NAME, [SIZE], data=((0, 3 * MIB + 700), (20 * MIB, 4 * MIB + 3 * 512)))
    return place


@contextmanager
def there(store: Path, sshd: SshServer, **query: str) -> Iterator[tuple[Simulator, VSphereSource]]:
    with esxi([Datastore(name=STORE, directory=store)], [Registered(path=f"[{STORE}] {ODD_NAME}/{ODD_NAME}.vmx")]) as server, \
            vsphere(server, cacert=server.ca_file, sshport=sshd.port, **sshd.query, **query) as made:
        yield server, made


@pytest.mark.parametrize("how", ["asked for", "HTTP 403", "HTTP 500"])
def test_a_disk(store: Path, sshd: SshServer, tmp_path: Path, how: str) -> None:
    before = state(store)
    with there(store, sshd, **({"transport": "ssh"} if how == "asked for" else {})) as (server, host):
        server.order(refuse_get=0 if how == "asked for" else int(how.split()[1]))
        seen = host.look(host.find(ODD_NAME), Control())
        assert seen.state.can_resume
        with host.reader(seen, 0, Control()) as reader, FileSink(tmp_path / "0.raw", SIZE) as sink:
            assert type(reader) is ShellReader
            first = dict(reader.state)
            reader.read([(MIB + 512, 5 * MIB), (7 * MIB, SIZE)], sink, Control())
            assert min(sink.given)[0] == MIB + 512
            reader.read([(0, MIB + 512), (5 * MIB, 7 * MIB)], sink, Control())
            assert sink.whole(0, SIZE)
            assert sink.zeros >= 15 * MIB
        flat = store / ODD_NAME / f"{ODD_NAME}-flat.vmdk"
        same(tmp_path / "0.raw", "raw", flat, "raw")
        assert state(store) == before
        assert not server.counters()["bytes"].get(f"{ODD_NAME}/{flat.name}")
        os.utime(flat, (1, 1))
        with host.reader(seen, 0, Control()) as reader:
            assert dict(reader.state) != first


def test_without_ssh_the_first_error_stands(store: Path, sshd: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with there(store, sshd) as (server, host):
        monkeypatch.setattr(shell, "ROOT", "/nowhere")
        server.order(refuse_get=403)
        seen = host.look(host.find(ODD_NAME), Control())
        with pytest.raises(UnreachableError, match="HTTP 403"), host.reader(seen, 0, Control()):
            pass
        server.order()
        with host.reader(seen, 0, Control()) as reader:
            assert type(reader) is HttpsReader


def test_lines_that_are_cut(store: Path, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of running connections are killed, again and again; no byte comes twice."""
    monkeypatch.setattr(shell, "REQUEST", 8 * MIB)
    over, killed = threading.Event(), []

    class Slow(FileSink):
        def write(self, offset: int, data: memoryview) -> None:
            super().write(offset, data)
            time.sleep(0.05)

    def kill() -> None:
        while not over.wait(0.3) and len(killed) < 6:
            for one in sshd.connections()[:1]:
                os.kill(one, signal.SIGTERM)
                killed.append(one)

    with there(store, sshd, transport="ssh") as (_, host):
        seen = host.look(host.find(ODD_NAME), Control())
        with host.reader(seen, 0, Control()) as reader, Slow(tmp_path / "0.raw", SIZE) as sink:
            thread = threading.Thread(target=kill)
            thread.start()
            reader.read([(0, SIZE)], sink, Control())
            over.set()
            thread.join()
            assert sink.whole(0, SIZE)
    assert killed
    same(tmp_path / "0.raw", "raw", store / ODD_NAME / f"{ODD_NAME}-flat.vmdk", "raw")


def test_a_stop(store: Path, sshd: SshServer, tmp_path: Path) -> None:
    stop = Stop()
    with there(store, sshd, transport="ssh") as (_, host):
        seen = host.look(host.find(ODD_NAME), Control())

        class Stopping(FileSink):
            def write(self, offset: int, data: memoryview) -> None:
                stop.set()
                super().write(offset, data)

        with host.reader(seen, 0, Control()) as reader, Stopping(tmp_path / "0.raw", SIZE) as sink, pytest.raises(StoppedError):
            reader.read([(0, SIZE)], sink, Control(stop=stop))


def test_a_file_that_is_gone(store: Path, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "ATTEMPTS", 2)
    with there(store, sshd, transport="ssh") as (_, host):
        seen = host.look(host.find(ODD_NAME), Control())
        with host.reader(seen, 0, Control()) as reader, FileSink(tmp_path / "0.raw", SIZE) as sink:
            (store / ODD_NAME / f"{ODD_NAME}-flat.vmdk").unlink()
            with pytest.raises(UnreachableError, match="No such file"):
                reader.read([(0, SIZE)], sink, Control())


def test_a_host_that_lets_nobody_in(store: Path, sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes((sshd.folder / "host").read_bytes())
    (tmp_path / "other").chmod(0o600)
    with esxi([Datastore(name=STORE, directory=store)], [Registered(path=f"[{STORE}] {ODD_NAME}/{ODD_NAME}.vmx")]) as server, \
            vsphere(server, cacert=server.ca_file, sshport=sshd.port, keyfile=tmp_path / "other",
                    known_hosts=sshd.folder / "known_hosts", transport="ssh") as host:
        seen = host.look(host.find(ODD_NAME), Control())
        with pytest.raises(UnreachableError) as caught, host.reader(seen, 0, Control()):
            pass
        assert "put a key there" in str(caught.value.hint)


@pytest.mark.parametrize("path", ["[..] x.vmdk", "[ds] ../x.vmdk", "[ds/x] y.vmdk", "x.vmdk"])
def test_a_path_that_leads_elsewhere(path: str) -> None:
    with pytest.raises(DamagedError):
        shell.place(path)


def test_a_port_that_is_none(store: Path, sshd: SshServer) -> None:
    with esxi([Datastore(name=STORE, directory=store)]) as server, pytest.raises(UsageError, match="sshport"), \
            vsphere(server, cacert=server.ca_file, sshport="x"):
        pass


def test_a_running_machine_is_not_read(store: Path, sshd: SshServer) -> None:
    """Over ssh nothing else would notice."""
    with esxi([Datastore(name=STORE, directory=store)],
              [Registered(path=f"[{STORE}] {ODD_NAME}/{ODD_NAME}.vmx", running=True)]) as server, \
            vsphere(server, cacert=server.ca_file, sshport=sshd.port, **sshd.query, transport="ssh") as host:
        seen = host.look(host.find(ODD_NAME), Control())
        with pytest.raises(RefusedError, match="not powered off"), host.reader(seen, 0, Control()):
            pass


def test_a_host_that_says_too_much_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(shell, "LOOK", 0.05)
    host = shell.Shell(parse("esx://root@h/"))
    for words, error, said in ((["cat", "/dev/zero"], DamagedError, "says more than it may"),
                               (["sleep", "60"], UnreachableError, "ssh has been silent")):
        monkeypatch.setattr(shell.ssh, "argv", lambda _uri, words: words)
        with pytest.raises(error, match=said):
            host.run(words, Stop())
