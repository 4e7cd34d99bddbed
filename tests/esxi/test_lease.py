"""Leases: disks out of a machine and into a new one, kept alive, ended whatever happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.esxi import Datastore, Registered, Server, Simulator, esxi
from imgtool.endpoints.vsphere import exports, inventory, lease, login, machines
from imgtool.endpoints.vsphere.facts import facts
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError, StoppedError, UnreachableError
from imgtool.model import Allocation
from imgtool.model.endpoint import RemoteDisk
from imgtool.progress import Control, Stop
from tests.esxi.machines import MIB, ODD_NAME, flat, machine, state
from tests.esxi.ovf import OVF
from tests.esxi.sessions import FileSink, session
from tests.oracle import same, tool

SIZE = 6 * MIB


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir()
    machine(place, ODD_NAME, [SIZE, SIZE], data=((MIB, 2 * MIB),))
    return place


@pytest.fixture
def server(store: Path) -> Iterator[Simulator]:
    hosts = [Registered(path=f"[ds] {ODD_NAME}/{ODD_NAME}.vmx")]
    with esxi([Datastore(name="ds", directory=store, kind="vsan")], hosts, Server(networks=("VMNet",), lease_timeout=3)) as made:
        yield made


def streams(tmp_path: Path) -> list[tuple[Path, bytes]]:
    """Two disks, raw and streamOptimized."""
    made = []
    for number in (1, 2):
        raw = flat(tmp_path / f"{number}.raw", SIZE, data=((0, MIB), (5 * MIB, MIB)), seed=number)
        packed = tmp_path / f"{number}.vmdk"
        tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed)
        made.append((raw, packed.read_bytes()))
    return made


def specification(made: Session, allocation: Allocation = Allocation.THIN) -> tuple[lease.ImportSpec, str, str]:
    """(specification, pool, folder)."""
    found = machines.places(made)
    network = next(one.id for one in found.networks if one.name == "VMNet")
    spec = lease.import_spec(made, OVF, name="web01.imgtool", pool=found.pools[0].id, store=found.stores[0].id,
                             networks={"lan": network}, allocations=[allocation] * 2)
    return spec, found.pools[0].id, found.folders[0].id


def read(held: lease.Lease, path: Path, key: int = 2000) -> None:
    with FileSink(path, SIZE) as sink:
        exports.read(held, RemoteDisk(path="[ds] x.vmdk", capacity=SIZE, key=key), sink, Control())
        assert sink.whole(0, SIZE)


def pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at:at + 100_000]


def test_disks_are_exported(server: Simulator, store: Path, tmp_path: Path) -> None:
    """Also where /folder gives out no flat file; byte by byte, and the source stays as it is."""
    before = state(store)
    with session(server) as made:
        found = inventory.find(made, ODD_NAME)
        told = facts(made, found)
        with lease.exporting(made, found.id, Control()) as open_lease:
            assert [disk.key.rsplit(":", 1)[1] for disk in open_lease.disks] == [str(disk.key) for disk in told.disks]
            for number, disk in enumerate(open_lease.disks):
                read(open_lease, tmp_path / f"{number}.raw", int(disk.key.rsplit(":", 1)[1]))
        assert server.counters()["leases"] == 0
    for number, name in enumerate((ODD_NAME, f"{ODD_NAME}_1")):
        same(tmp_path / f"{number}.raw", "raw", store / ODD_NAME / f"{name}-flat.vmdk", "raw")
    assert state(store) == before
    assert server.counters()["calls"]["HttpNfcLeaseComplete"] == 1


def test_a_cut_export_begins_again(server: Simulator, store: Path, tmp_path: Path) -> None:
    """The sink gets no byte twice."""
    with session(server) as made:
        found = inventory.find(made, ODD_NAME)
        with lease.exporting(made, found.id, Control()) as open_lease:
            server.order(cuts=[1_000_000, 1_500_000])
            read(open_lease, tmp_path / "0.raw")
    assert server.counters()["cuts"] == 2
    same(tmp_path / "0.raw", "raw", store / ODD_NAME / f"{ODD_NAME}-flat.vmdk", "raw")


def test_an_export_that_is_always_cut(server: Simulator, tmp_path: Path) -> None:
    with session(server) as made:
        found = inventory.find(made, ODD_NAME)
        server.order(cuts=[1000] * 100)
        with pytest.raises(UnreachableError, match="broke off 3 times"), lease.exporting(made, found.id, Control()) as open_lease:
            read(open_lease, tmp_path / "0.raw")
        assert server.counters()["leases"] == 0
        assert server.counters()["calls"]["HttpNfcLeaseAbort"] == 1


@pytest.fixture
def impatient(store: Path) -> Iterator[Simulator]:
    hosts = [Registered(path=f"[ds] {ODD_NAME}/{ODD_NAME}.vmx")]
    with esxi([Datastore(name="ds", directory=store)], hosts, Server(lease_timeout=1)) as made:
        yield made


def test_a_lease_is_kept_alive(impatient: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through work that takes longer than its time-out, whatever the thread that copies does."""
    monkeypatch.setattr(lease, "HEARTBEAT", 0.2)
    with session(impatient) as made:
        found = inventory.find(made, ODD_NAME)
        with lease.exporting(made, found.id, Control()) as open_lease:
            time.sleep(2)
            read(open_lease, tmp_path / "0.raw")


def test_the_session_of_a_lease_is_not_renewed(server: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease ends with the session that it was made in."""
    monkeypatch.setattr(login, "RENEW_AFTER", 0.0)
    with session(server) as made:
        found = inventory.find(made, ODD_NAME)
        with lease.exporting(made, found.id, Control()) as open_lease:
            made.cookie()
            read(open_lease, tmp_path / "0.raw")
        old = made.cookie()
        assert made.cookie() != old


def test_a_lease_that_is_lost(impatient: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 1.5)
    with session(impatient) as made:
        found = inventory.find(made, ODD_NAME)
        with pytest.raises(UnreachableError, match="ended the lease"), lease.exporting(made, found.id, Control()):
            time.sleep(2)
        assert impatient.counters()["leases"] == 0


def test_a_running_machine_is_not_exported(tmp_path: Path) -> None:
    path = machine(tmp_path, "web01", [MIB])
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}", running=True)]) as made, \
            session(made) as logged_in:
        found = inventory.find(logged_in, "web01")
        with pytest.raises(ImgtoolError, match="InvalidPowerState"), lease.exporting(logged_in, found.id, Control()):
            pass


@pytest.mark.parametrize("allocation", list(Allocation))
def test_a_machine_is_imported(server: Simulator, store: Path, tmp_path: Path, allocation: Allocation) -> None:
    sources = streams(tmp_path)
    with session(server) as made:
        spec, pool, folder = specification(made, allocation)
        assert spec.warnings == ()
        with lease.importing(made, spec, Control(), pool=pool, folder=folder) as open_lease:
            urls = {disk.key: disk for disk in open_lease.disks}
            for (device, href), (_, packed) in zip(spec.items, sources, strict=True):
                assert href in ("a.vmdk", "b.vmdk")
                lease.upload(open_lease, urls[device], pieces(packed), Control())
        told = facts(made, inventory.find(made, "web01.imgtool"))
        assert told.found.id == open_lease.machine
        assert [disk.capacity for disk in told.disks] == [SIZE, SIZE]
        assert {disk.thin for disk in told.disks} == {allocation is Allocation.THIN}
        machines.rename(made, open_lease.machine, "web01", Stop())
    files = sorted((store / "web01.imgtool").glob("*-flat.vmdk"))
    for (raw, _), file in zip(sources, files, strict=True):
        same(raw, "raw", file, "raw")
    assert server.counters()["leases"] == 0


def test_a_length_that_is_known_is_said(server: Simulator, tmp_path: Path) -> None:
    packed = streams(tmp_path)[0][1]
    with session(server) as made:
        spec, pool, folder = specification(made)
        with lease.importing(made, spec, Control(), pool=pool, folder=folder) as open_lease:
            for disk in open_lease.disks:
                lease.upload(open_lease, disk, pieces(packed), Control(), length=len(packed))


@pytest.mark.parametrize("what", ["cut", "stopped", "damaged", "our own error"])
def test_a_failed_import_leaves_nothing(server: Simulator, store: Path, tmp_path: Path, what: str) -> None:
    before = state(store)
    packed = streams(tmp_path)[0][1]
    stop = Stop()

    def broken() -> Iterator[bytes]:
        yield packed[:1_000_000]
        if what == "stopped":
            stop.set()
        if what == "our own error":
            raise ImgtoolError("the overlay is gone")
        if what != "damaged":
            yield packed[1_000_000:]

    errors = {"cut": UnreachableError, "stopped": StoppedError, "damaged": UnreachableError, "our own error": ImgtoolError}
    with session(server) as made:
        spec, pool, folder = specification(made)
        if what == "cut":
            server.order(cuts=[500_000])
        control = Control(stop=stop)
        with pytest.raises(errors[what]), lease.importing(made, spec, control, pool=pool, folder=folder) as open_lease:
            lease.upload(open_lease, open_lease.disks[0], broken(), control)
        assert [one.name for one in inventory.machines(made)] == [ODD_NAME]
    assert state(store) == before
    assert server.counters()["leases"] == 0


def test_stopped_while_the_lease_is_made(server: Simulator, store: Path) -> None:
    before = state(store)
    stop = Stop()
    stop.set()
    with session(server) as made:
        spec, pool, folder = specification(made)
        opened = lease.importing(made, spec, Control(stop=stop), pool=pool, folder=folder)
        with pytest.raises(StoppedError), opened:
            pass
        assert [one.name for one in inventory.machines(made)] == [ODD_NAME]
    assert state(store) == before
    assert server.counters()["leases"] == 0


def test_a_name_that_is_taken(server: Simulator) -> None:
    with session(server) as made:
        found = machines.places(made)
        spec = lease.import_spec(made, OVF, name=ODD_NAME, pool=found.pools[0].id, store=found.stores[0].id, networks={})
        with pytest.raises(ImgtoolError, match="DuplicateName"), \
                lease.importing(made, spec, Control(), pool=found.pools[0].id, folder=found.folders[0].id):
            pass


def test_an_ovf_that_is_none(server: Simulator) -> None:
    with session(server) as made:
        found = machines.places(made)
        with pytest.raises(ImgtoolError, match="ovfDescriptor"):
            lease.import_spec(made, "no XML", name="x", pool=found.pools[0].id, store=found.stores[0].id, networks={})


def test_hardware_that_the_server_does_not_know(server: Simulator) -> None:
    with session(server) as made:
        found = machines.places(made)
        odd = OVF.replace("VirtualSCSI", "QuantumSCSI")
        with pytest.raises(ImgtoolError, match="does not take this machine: OvfUnsupportedType"):
            lease.import_spec(made, odd, name="x", pool=found.pools[0].id, store=found.stores[0].id, networks={})


@pytest.mark.parametrize("way", ["export", "import"])
def test_a_free_licence_forbids_leases(store: Path, way: str) -> None:
    hosts = [Registered(path=f"[ds] {ODD_NAME}/{ODD_NAME}.vmx")]
    server = Server(networks=("VMNet",), free_licence=True)
    with esxi([Datastore(name="ds", directory=store)], hosts, server) as made, session(made) as logged_in:
        spec, pool, folder = specification(logged_in)
        found = inventory.find(logged_in, ODD_NAME)
        opened = lease.exporting(logged_in, found.id, Control()) if way == "export" else \
            lease.importing(logged_in, spec, Control(), pool=pool, folder=folder)
        with pytest.raises(RefusedError, match="licence") as caught, opened:
            pass
        assert caught.value.exit_code == 4


@pytest.mark.parametrize("url", ["http://*/nfc/1/disk-0.vmdk", "file:///etc/passwd"])
def test_an_address_that_is_no_https(server: Simulator, tmp_path: Path, url: str) -> None:
    with session(server) as made:
        found = inventory.find(made, ODD_NAME)
        with lease.exporting(made, found.id, Control()) as open_lease:
            open_lease.disks = (replace(open_lease.disks[0], url=url),)
            with pytest.raises(RefusedError, match="no HTTPS"):
                read(open_lease, tmp_path / "0.raw")


def test_another_host_proves_itself_by_its_thumbprint(server: Simulator, tmp_path: Path) -> None:
    """``localhost`` stands for the ESXi host behind a vCenter."""
    with session(server) as made:
        found = inventory.find(made, ODD_NAME)
        with lease.exporting(made, found.id, Control()) as open_lease:
            disk = open_lease.disks[0]
            url = disk.url.replace("https://*/", f"https://localhost:{server.port}/")
            open_lease.disks = (replace(disk, url=url, thumbprint=server.thumbprint),)
            read(open_lease, tmp_path / "0.raw")
            open_lease.disks = (replace(disk, url=url, thumbprint="11" * 20),)
            with pytest.raises(UnreachableError, match="thumbprint"):
                read(open_lease, tmp_path / "0.raw")


@pytest.mark.parametrize(("devices", "expected"), [
    (("/vm-7/VirtualDisk:2000", "/vm-7/VirtualDisk:2001"), 1),
    (("/vm-7/VirtualLsiLogicController0:0", "/vm-7/ParaVirtualSCSIController0:1"), 1),
    (("/vm-7/VirtualIDEController0:1", "/vm-7/VirtualLsiLogicController0:1"), 1),
    (("/vm-7/VirtualAHCIController0:1", "/vm-7/VirtualNVMEController0:1"), None),
    (("whatever",), 0), (("disk-0", "disk-1"), None), ((), None)])
def test_which_export_is_which_disk(devices: tuple[str, ...], expected: int | None) -> None:
    disk = RemoteDisk(path="[ds] x.vmdk", capacity=SIZE, key=2001, controller="scsi0:1")
    assert lease.of(devices, disk) == (None if expected is None else devices[expected])


class Odd(lease.Lease):
    """A lease of which a server says what a test wants."""

    def __init__(self, **said: object) -> None:
        session: Any = SimpleNamespace(account=login.Account(host="h", user="u", password="p"), cookie=lambda: "a=b")
        super().__init__(session, "lease-1", importing=True)
        self.said = said

    def _properties(self, *paths: str) -> dict[str, Any]:
        if "error" in paths and isinstance(self.said.get("raises"), Exception):
            raise self.said["raises"]
        return {path: self.said.get(path) for path in paths}


def test_a_lease_that_is_not_given() -> None:
    """In the server's words; where its disks have no room, that is what is said."""
    from pyVmomi import vim

    for error, raised, words in ((None, lease.LeaseRefusedError, "the server does not say why"),
                                 (vim.fault.FileFault(file="[ds] a.vmdk"), lease.LeaseRefusedError, r"FileFault: \[ds\] a.vmdk"),
                                 (vim.fault.NoDiskSpace(file="[ds] a.vmdk"), NoSpaceError, "NoDiskSpace")):
        with pytest.raises(ImgtoolError, match=words) as caught:
            Odd(state="error", error=error).wait(Control())
        assert type(caught.value) is raised


def test_a_lease_that_is_never_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "READY_SECONDS", 0.01)
    with pytest.raises(UnreachableError, match="the lease was not ready"):
        Odd(state="initializing").wait(Control())


@pytest.mark.parametrize(("status", "raised", "words"), [
    (503, HTTPException, "HTTP 503"), (403, UnreachableError, "HTTP 403"), (404, ImgtoolError, "of the export")])
def test_an_export_that_is_refused(status: int, raised: type[Exception], words: str) -> None:
    """A busy server is asked again (an HTTPException)."""
    made: Any = SimpleNamespace(request=lambda *_words, **_options: None, getresponse=lambda: SimpleNamespace(status=status))
    disk = lease.LeasedDisk(key="a", device="a", url="https://*/nfc/a", thumbprint="")
    with pytest.raises(raised, match=words):
        lease.ask(made, Odd(), disk)


@pytest.mark.parametrize(("status", "raised"), [(507, NoSpaceError), (500, UnreachableError), (201, None)])
def test_a_disk_that_the_host_does_not_take(monkeypatch: pytest.MonkeyPatch, status: int,
                                            raised: type[ImgtoolError] | None) -> None:
    monkeypatch.setattr(lease, "send", lambda *_: status)
    monkeypatch.setattr(lease, "connection", lambda *_: SimpleNamespace(close=lambda: None))
    held = Odd()
    held.session.slots = nullcontext()  # type: ignore[assignment]
    disk = lease.LeasedDisk(key="a", device="a", url="https://*/nfc/a", thumbprint="")
    if raised is None:
        lease.upload(held, disk, [], Control())
        return
    with pytest.raises(ImgtoolError) as caught:
        lease.upload(held, disk, [], Control())
    assert type(caught.value) is raised


def test_an_export_that_is_not_named(tmp_path: Path) -> None:
    held = Odd()
    held.disks = tuple(lease.LeasedDisk(key=name, device=name, url="", thumbprint="") for name in ("a", "b"))
    with pytest.raises(ImgtoolError, match="does not say which of its exports") as caught:
        read(held, tmp_path / "0.raw")
    assert "transport=https" in (caught.value.hint or "")


def test_written_zeros_of_an_export() -> None:
    """They become holes; no byte is given twice, none is left out."""
    given: list[tuple[str, int, int]] = []
    sink: Any = SimpleNamespace(write=lambda at, data: given.append(("data", at, len(data))),
                                zero=lambda at, length: given.append(("zeros", at, length)))
    held = Odd()
    disk = lease.LeasedDisk(key="a", device="a", url="", thumbprint="")
    job = exports._Job(held, disk, 5 * MIB, sink, Control())
    for start, data in ((0, b"x"), (0, b"x"), (2 * MIB, b"x"), (3 * MIB, b"\0")):
        job._hand_on(start, memoryview(data * MIB))
    job._zeros(5 * MIB)
    assert given == [("data", 0, MIB), ("zeros", MIB, MIB), ("data", 2 * MIB, MIB), ("zeros", 3 * MIB, MIB),
                     ("zeros", 4 * MIB, MIB)]
    assert held.percent == 80
