"""A host as the place that machines come from: what it says of a machine, and each way in which disks come."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.esxi import Datastore, Registered, Server, Simulator, esxi
from imgtool.copying.receive import Chunks, receiving
from imgtool.descriptions import description
from imgtool.endpoints import source as open_source
from imgtool.endpoints.in_place import InPlace
from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import as_source, machines, mounted, readers
from imgtool.endpoints.vsphere.readers import HttpsReader, LeaseReader
from imgtool.errors import ImgtoolError, RefusedError, UsageError
from imgtool.model import ImageSpec
from imgtool.model.endpoint import Credentials, Power, RemoteDisk
from imgtool.progress import Control, Silent
from tests.esxi.machines import MIB, ODD_NAME, add_disk, describe, machine, state
from tests.esxi.sessions import FileSink, vsphere
from tests.oracle import same

SIZE = 6 * MIB


def one(store: Path, name: str = "web01", *, running: bool = False, tools: bool = False, kind: str = "VMFS",
        server: Server | None = None, snapshots: tuple[str, ...] = ()) -> Simulator:
    """A server with one machine, for a ``with``."""
    path = f"[ds] {name}/{name}.vmx"
    hosts = [Registered(path=path, running=running, tools=tools, snapshots=snapshots)]
    return esxi([Datastore(name="ds", directory=store, kind=kind)], hosts, server)  # type: ignore[return-value]


def test_a_machine_is_seen_whole(tmp_path: Path) -> None:
    """Its disks in the order of the description, whatever the order at the host."""
    machine(tmp_path, ODD_NAME, [4 * MIB, 2 * MIB], data=((0, MIB),), extra='sata0.present = "TRUE"\n'
            'sata0:3.present = "TRUE"\nsata0:3.fileName = "third.vmdk"\n')
    add_disk(tmp_path / ODD_NAME, "third", MIB)
    before = state(tmp_path)
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {ODD_NAME}/{ODD_NAME}.vmx")],
              Server(clock_skew=3600)) as made:
        there = open_source(parse(made.uri()), Credentials(password_file=str(made.password_file)))
        seen = there.look(there.find(ODD_NAME), Control())
        there.close()
        assert made.counters()["sessions"] == 0
    assert (seen.suffix, seen.text) == (".vmx", (tmp_path / ODD_NAME / f"{ODD_NAME}.vmx").read_bytes())
    assert [disk.path.rsplit("/", 1)[1] for disk in seen.disks] == [slot.path for slot in seen.parsed.machine.disks]
    assert [disk.capacity for disk in seen.state.disks] == [disk.capacity for disk in seen.disks]
    assert sorted(disk.capacity for disk in seen.disks) == [MIB, 2 * MIB, 4 * MIB]
    assert seen.found.power is Power.OFF
    assert seen.state.can_resume
    assert 3590 < seen.state.clock_skew < 3610
    assert state(tmp_path) == before


@pytest.mark.parametrize(("extra", "message"), [
    ('scsi0:5.present = "TRUE"\nscsi0:5.fileName = "gone.vmdk"\n', "the host shows no disk gone.vmdk"),
    ('scsi0:0.present = "FALSE"\n', "does not name the disk"),
])
def test_a_description_that_does_not_fit_the_host(tmp_path: Path, extra: str, message: str) -> None:
    """No disk is forgotten silently: the .vmx was written after the host read it."""
    machine(tmp_path, "web01", [MIB])
    with one(tmp_path) as made, vsphere(made) as there:
        vmx = tmp_path / "web01" / "web01.vmx"
        text = vmx.read_text(encoding="utf-8")
        text = text.replace('scsi0:0.present = "TRUE"\n', "") if "FALSE" in extra else text
        vmx.write_text(text + extra, encoding="utf-8")
        with pytest.raises(RefusedError, match=message):
            there.look(there.find("web01"), Control())


@pytest.mark.parametrize(("kind", "query", "expected"), [
    ("VMFS", {}, HttpsReader), ("vsan", {}, LeaseReader), ("VMFS", {"transport": "lease"}, LeaseReader)])
def test_both_disks_at_once(tmp_path: Path, kind: str, query: dict[str, str], expected: type) -> None:
    store = tmp_path / "store"
    store.mkdir()
    machine(store, "web01", [SIZE, SIZE + 512], data=((MIB, MIB), (4 * MIB, MIB + 512)))
    before = state(store)
    with one(store, kind=kind) as made, vsphere(made, cacert=made.ca_file, **query) as there:
        seen = there.look(there.find("web01"), Control())
        assert seen.state.can_resume == (expected is HttpsReader)
        inside = threading.Barrier(2, timeout=60)

        def read(number: int) -> None:
            with there.reader(seen, number, Control()) as reader, FileSink(tmp_path / f"{number}.raw", reader.size) as sink:
                inside.wait()
                assert type(reader) is expected
                assert reader.resumes == (expected is HttpsReader)
                assert list(reader.holes()) == []
                reader.read([(0, reader.size)], sink, Control())
                assert sink.whole(0, reader.size)
                done.append(number)

        done: list[int] = []
        threads = [threading.Thread(target=read, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == [0, 1]
        if expected is LeaseReader:
            assert made.counters()["calls"]["ExportVm"] == 1, "one lease for both"
        assert made.counters()["leases"] == 0
    for number, name in enumerate(("web01", "web01_1")):
        same(tmp_path / f"{number}.raw", "raw", store / "web01" / f"{name}-flat.vmdk", "raw")
    assert state(store) == before


def test_a_source_that_changed_is_noticed(tmp_path: Path) -> None:
    """By its time and size, or by its CID where the server tells no time."""
    machine(tmp_path, "web01", [MIB])
    with one(tmp_path) as made, vsphere(made) as there:
        seen = there.look(there.find("web01"), Control())

        def told() -> object:
            with there.reader(seen, 0, Control()) as reader:
                return dict(reader.state)

        first = told()
        assert told() == first
        flat = tmp_path / "web01" / "web01-flat.vmdk"
        time.sleep(1.1)  # HTTP tells seconds
        with flat.open("r+b") as file:
            file.write(b"x")
        second = told()
        assert second != first
        descriptor = tmp_path / "web01" / "web01.vmdk"
        descriptor.write_text(re.sub(r"(?m)^CID=.*$", "CID=00c0ffee", descriptor.read_text()))
        assert told() != second


def test_a_mostly_empty_disk_goes_through_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "WORTH_A_LEASE", 32 * MIB)
    machine(tmp_path, "web01", [64 * MIB, 64 * MIB], data=((5 * MIB, MIB),))
    (tmp_path / "web01" / "web01_1-flat.vmdk").write_bytes(bytes(64 * MIB))
    with one(tmp_path) as made, vsphere(made) as there:
        seen = there.look(there.find("web01"), Control())
        with there.reader(seen, 0, Control()) as reader, FileSink(tmp_path / "0.raw", reader.size) as sink:
            assert type(reader) is LeaseReader
            reader.read([(0, reader.size)], sink, Control())
            assert sink.zeros >= 63 * MIB
        with there.reader(seen, 1, Control()) as reader:
            assert type(reader) is HttpsReader
        assert sum(count for path, count in made.counters()["bytes"].items() if "disk-0" in path) < 2 * MIB
    same(tmp_path / "0.raw", "raw", tmp_path / "web01" / "web01-flat.vmdk", "raw")


def test_a_running_machine_is_looked_at_but_not_read(tmp_path: Path) -> None:
    machine(tmp_path, "web01", [MIB])
    with one(tmp_path, running=True, snapshots=("before",)) as made, vsphere(made) as there:
        seen = there.look(there.find("web01"), Control())
        assert (seen.state.running, seen.state.snapshots) == (True, ("before",))
        with pytest.raises(RefusedError, match="not powered off") as caught, there.reader(seen, 0, Control()):
            pass
        assert "--shutdown-source" in str(caught.value.hint)


def test_the_guest_shuts_itself_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_source, "POLL", 0.05)
    machine(tmp_path, "web01", [MIB])
    with one(tmp_path, running=True, tools=True) as made, vsphere(made) as there:
        found = there.find("web01")
        there.shut_down(found, Control())
        assert there.find("web01").power is Power.OFF
        there.shut_down(found, Control())
        assert made.counters()["calls"]["ShutdownGuest"] == 1
        assert "PowerOffVM_Task" not in made.counters()["calls"], "never by force"


def test_a_guest_that_does_not_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_source, "SHUTDOWN_SECONDS", 0.3)
    monkeypatch.setattr(as_source, "POLL", 0.05)
    machine(tmp_path, "web01", [MIB])
    with one(tmp_path, running=True) as made, vsphere(made) as there:
        made.order(ignore_calls=["ShutdownGuest"])
        with pytest.raises(ImgtoolError, match="has not shut down within"):
            there.shut_down(there.find("web01"), Control())
        made.order(refuse_calls=["ShutdownGuest"])
        with pytest.raises(ImgtoolError, match="shutting down web01"):
            there.shut_down(there.find("web01"), Control())
        assert machines.power(there.session, there.find("web01").id) == "poweredOn"


def test_an_nfs_datastore_that_is_mounted_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent."""
    machine(tmp_path, "web01", [SIZE], data=((MIB, MIB),))
    with one(tmp_path, kind="NFS") as made, vsphere(made) as there:
        monkeypatch.setattr(mounted, "_share", lambda session, disk: ("filer", "/exports/ds"))
        (tmp_path / "mountinfo").write_text(f"36 35 0:40 / {tmp_path} rw,relatime shared:1 - nfs4 filer:/exports/ds rw\n")
        monkeypatch.setattr(mounted, "MOUNTS", tmp_path / "mountinfo")
        seen = there.look(there.find("web01"), Control())
        assert seen.state.can_resume
        made.reset()
        with there.reader(seen, 0, Control()) as reader, FileSink(tmp_path / "0.raw", SIZE) as sink:
            assert type(reader) is InPlace
            assert reader.disk is not None
            assert list(reader.holes()) == [(0, MIB), (2 * MIB, SIZE)]
            reader.read([(0, SIZE)], sink, Control())
            assert sink.whole(0, SIZE)
        assert not any("flat" in path and count for path, count in made.counters()["bytes"].items())
        (tmp_path / "mountinfo").write_text("")
        with there.reader(seen, 0, Control()) as reader:
            assert type(reader) is HttpsReader
    same(tmp_path / "0.raw", "raw", tmp_path / "web01" / "web01-flat.vmdk", "raw")


NAS = SimpleNamespace(nas=SimpleNamespace(remoteHost="filer", remotePath="/exports/ds"))


@pytest.mark.parametrize(("kind", "store", "text", "found"), [
    ("NFS41", "ds", "descriptor", True), ("NFS", "ds", "another", False), ("NFS", "ds", None, False),
    ("NFS", "other", "descriptor", False), ("VMFS", "ds", "descriptor", False)])
def test_which_share_a_datastore_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, store: str, text: str | None,
                                    found: bool) -> None:
    """Only where the very same descriptor lies there the disk is read in place."""
    monkeypatch.setattr(mounted.properties, "all_of", lambda *_: {
        "a": {"summary.name": "local", "info": SimpleNamespace()}, "b": {"summary.name": store, "info": NAS}})
    (tmp_path / "mountinfo").write_text(f"36 35 0:40 / {tmp_path} rw - nfs4 filer:/exports/ds rw\n")
    monkeypatch.setattr(mounted, "MOUNTS", tmp_path / "mountinfo")
    if text is not None:
        (tmp_path / "a.vmdk").write_text(text)
    disk = RemoteDisk(path="[ds] a.vmdk", capacity=MIB, key=1, datastore="ds", datastore_kind=kind)
    assert mounted.local(None, disk, b"descriptor") == (str(tmp_path / "a.vmdk") if found else None)  # type: ignore[arg-type]


def test_a_disk_by_its_path() -> None:
    """Where the slots do not tell; but another one is never taken for it."""
    lines = [f'scsi0:{number}.present = "TRUE"\nscsi0:{number}.fileName = "{name}"\n'
             for number, name in enumerate(("web01.vmdk", "[ds 2] b/b.vmdk"))]
    parsed = description(".vmx").parse("".join(lines).encode())
    disks = [RemoteDisk(path=path, capacity=MIB, key=1, controller="nvme0:0")
             for path in ("[ds 2] b/b.vmdk", "[ds] web01/web01.vmdk")]
    told: Any = SimpleNamespace(disks=disks, description="[ds] web01/web01.vmx")
    assert as_source.matched(parsed, told) == (disks[1], disks[0])
    told.description = "[ds] other/web01.vmx"
    with pytest.raises(RefusedError, match="the host shows no disk"):
        as_source.matched(parsed, told)


def test_a_licence_that_forbids_to_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is that of the licence, not of the guest's tools."""
    def refused(*_words: object, **_options: object) -> None:
        raise RefusedError("the licence", "use SSH")

    there: Any = SimpleNamespace(session=SimpleNamespace(call=refused), _power=lambda _found: "poweredOn")
    found: Any = SimpleNamespace(name="web01", id="vm-1")
    with pytest.raises(RefusedError) as caught:
        as_source.VSphereSource.shut_down(there, found, Control())
    assert caught.value.hint == "use SSH"


@pytest.mark.parametrize(("line", "expected"), [
    ("36 35 0:40 / /mnt rw - nfs4 filer:/exports/ds rw", ["/mnt"]),
    ("36 35 0:40 / /mnt/all rw shared:1 - nfs filer:/exports rw", ["/mnt/all/ds"]),
    ("36 35 0:40 /ds /srv rw - nfs4 filer:/exports rw", ["/srv"]),
    (r"36 35 0:40 / /mnt/a\040b rw - nfs4 filer:/exports/ds rw", ["/mnt/a b"]),
    ("36 35 0:40 / /mnt rw - nfs4 filer:/ rw", ["/mnt/exports/ds"]),
    ("36 35 0:40 / /mnt rw - nfs4 other.invalid:/exports/ds rw", []),
    ("36 35 0:40 / /mnt rw - nfs4 filer:/exports/ds2 rw", []),
    ("36 35 0:40 / /mnt rw - ext4 /dev/sda1 rw", []),
])
def test_where_a_share_is_mounted(line: str, expected: list[str]) -> None:
    assert mounted.roots("filer", "/exports/ds", line + "\n") == expected


def test_a_transport_that_is_none(tmp_path: Path) -> None:
    machine(tmp_path, "web01", [MIB])
    with one(tmp_path) as made, pytest.raises(UsageError, match="transport is one of"), vsphere(made, transport="pigeon"):
        pass


def test_into_a_copy_that_goes_on(tmp_path: Path) -> None:
    """As the pipeline does it: a receiver with a block map, stopped and begun again; the cuts cost a piece each."""
    machine(tmp_path, "web01", [24 * MIB], data=((0, 20 * MIB),))
    target = str(tmp_path / "copy.raw")
    with one(tmp_path) as made, vsphere(made) as there:
        seen = there.look(there.find("web01"), Control())
        made.order(match="-flat.vmdk", cuts=[300_000, 1_700_000, 900_000])
        for goal in (8 * MIB, 24 * MIB):
            with there.reader(seen, 0, Control()) as reader, \
                    receiving(target, size=reader.size, spec=ImageSpec(format="raw"), source=reader.state) as receiver, \
                    Silent().bar(reader.size, "copy") as bar:
                wanted = [(start, start + length) for _, start, length in receiver.missing() if start < goal]
                reader.read(wanted, Chunks(receiver, bar), Control())
                receiver.save()
        cuts, sent = made.counters()["cuts"], made.counters()["bytes"]["web01/web01-flat.vmdk"]
    assert cuts == 3
    assert sent <= 24 * MIB + cuts * MIB
    same(Path(target + ".imgtool-partial"), "raw", tmp_path / "web01" / "web01-flat.vmdk", "raw")


def test_a_snapshot_is_read_as_it_is_now(tmp_path: Path) -> None:
    """The chain is no flat file: the host lays it together, for a lease."""
    machine(tmp_path, "web01", [MIB])
    text = (tmp_path / "web01" / "web01.vmdk").read_text().replace('VMFS "web01-flat.vmdk"', 'VMFSSPARSE "web01-delta.vmdk"')
    with one(tmp_path) as made, vsphere(made) as there:
        (tmp_path / "web01" / "web01.vmdk").write_text(text)
        seen = there.look(there.find("web01"), Control())
        assert not seen.state.can_resume
        with there.reader(seen, 0, Control()) as reader, FileSink(tmp_path / "0.raw", MIB) as sink:
            reader.read([(0, MIB)], sink, Control())
    same(tmp_path / "0.raw", "raw", tmp_path / "web01" / "web01-flat.vmdk", "raw")


def test_a_machine_without_disks(tmp_path: Path) -> None:
    (tmp_path / "web01").mkdir()
    describe(tmp_path, "web01", [])
    with one(tmp_path) as made, vsphere(made) as there:
        seen = there.look(there.find("web01"), Control())
        assert (seen.disks, seen.state.disks) == ((), ())
