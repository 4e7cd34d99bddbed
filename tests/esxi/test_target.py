"""A host as the place that machines go to: sent, read back, compared; what fails leaves nothing."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.esxi import Datastore, Registered, Server, Simulator, esxi
from imgtool.descriptions import description, ovf
from imgtool.endpoints import FarTarget
from imgtool.endpoints import target as open_target
from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import (
    as_target,
    hardware,
    incoming,
    inventory,
    lease,
    leftover,
    login,
    machines,
    readback,
    readers,
    tasks,
)
from imgtool.endpoints.vsphere.as_target import VSphereTarget
from imgtool.errors import DifferError, ImgtoolError, NoSpaceError, RefusedError, StoppedError, UnreachableError, UsageError
from imgtool.formats.disk import Disk, open_disk
from imgtool.model import Allocation
from imgtool.model.devices import Backing, Bus, Controller, DiskSlot, Drive, Network, NetworkKind, Nic
from imgtool.model.endpoint import Credentials, NewDisk, Placing
from imgtool.model.machine import Cpu, Firmware, FirmwareKind, Machine, Memory, Topology
from imgtool.model.translation import World
from imgtool.progress import Control, Stop
from tests.esxi.machines import MIB, flat, machine, state
from tests.oracle import same, tool

SIZES = (6 * MIB, 9 * MIB + 512)
UUID = "564d1234-5678-9abc-def0-123456789abc"
MACS = ("52:54:00:12:34:56", "00:50:56:00:00:02")
NAME = "Büro #1 50%.imgtool"


def described(name: str = "web01", *, bus: Bus = Bus.SCSI) -> Machine:
    """Two disks, not in the order of their slots; two cards; UEFI."""
    lan = Network(kind=NetworkKind.BRIDGE, name="VMNet")
    controller = Controller(bus=bus, number=0, model="pvscsi" if bus == Bus.SCSI else None)
    return Machine(
        name=name, uuid=UUID, hardware_version=13, cpu=Cpu(count=4, topology=Topology(sockets=2, cores=2)),
        memory=Memory(size=512 * MIB), firmware=Firmware(kind=FirmwareKind.UEFI, secure_boot=True), controllers=(controller,),
        disks=tuple(DiskSlot(path=f"{number}", bus=bus, unit=unit, format="vmdk") for number, unit in enumerate((1, 0))),
        drives=(Drive(bus=Bus.IDE, backing=Backing.FILE, path="[ds] iso/install.iso"),),
        nics=tuple(Nic(number=number, model="vmxnet3", mac=mac, mac_kind="static", mac_check=False, network=lan)
                   for number, mac in enumerate(MACS)))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir()
    return place


@pytest.fixture
def server(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    monkeypatch.setattr(login, "FIRST_PAUSE", 0.02)
    with esxi([Datastore(name="ds", directory=store)], server=Server(networks=("VMNet",))) as made:
        yield made


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """A raw disk, and a qcow2 overlay that has changed a base: what a migration sends."""
    raw = flat(tmp_path / "0.raw", SIZES[0], data=((MIB, 2 * MIB),), seed=1)
    base = flat(tmp_path / "base.raw", SIZES[1], data=((0, 2 * MIB), (SIZES[1] - 512, 512)), seed=2)
    overlay = tmp_path / "1.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    tool("qemu-io", "-c", "write -P 7 1M 64k", "-c", "write -z 512k 128k", overlay)
    return [raw, overlay]


@contextmanager
def target(server: Simulator) -> Iterator[VSphereTarget]:
    made = open_target(parse(server.uri()), Credentials(password_file=str(server.password_file)))
    assert isinstance(made, VSphereTarget)
    far: FarTarget = made
    assert (far.world, far.suffix, far.folder) == (World.ESXI, ".ovf", None)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def opened(images: Sequence[Path], allocations: Sequence[Allocation] = (Allocation.THIN,) * 2
           ) -> Iterator[list[tuple[NewDisk, Disk]]]:
    new = [NewDisk(name=f"web01-{number}.vmdk", format="vmdk", allocation=each) for number, each in enumerate(allocations)]
    with open_disk(str(images[0])) as first, open_disk(str(images[1])) as second:
        yield list(zip(new, (first, second), strict=True))


def send(there: VSphereTarget, images: Sequence[Path], tmp_path: Path, *, made: Machine | None = None, name: str = NAME,
         control: Control | None = None, allocations: Sequence[Allocation] = (Allocation.THIN,) * 2) -> str:
    there.look(Placing(networks=("VMNet",)), Control())
    made = made or described()
    with opened(images, allocations) as disks:
        return there.send(name, made, ovf.render(made).text, disks, str(tmp_path / "state"), control or Control())


def flats(store: Path, images: Sequence[Path]) -> None:
    """Each disk is what it was, wherever it stands."""
    files = sorted(store.glob("*/*-flat.vmdk"))
    assert len(files) == 2
    for image, format_ in zip(images, ("raw", "qcow2"), strict=True):
        size = json.loads(tool("qemu-img", "info", "--output=json", image).stdout)["virtual-size"]
        same(image, format_, next(file for file in files if file.stat().st_size == size), "raw")


def test_a_place_is_looked_at(tmp_path: Path) -> None:
    path = machine(tmp_path, "old", [MIB])
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}")],
              Server(networks=("VMNet",), clock_skew=-900)) as made, target(made) as there:
        found = there.look(Placing(storage="ds", networks=("VMNet",)), Control())
        for wrong, words in ((Placing(storage="x"), "'ds'"), (Placing(networks=("x",)), "'VM Network', 'VMNet'"),
                             (Placing(folder="x"), "ha-datacenter/vm"), (Placing(pool="x"), "Resources")):
            with pytest.raises(UsageError, match="there is no") as caught:
                there.look(wrong, Control())
            assert words in str(caught.value.hint)
    assert (found.kind, found.storage, found.storages, found.can_write) == ("esxi", "ds", ("ds",), True)
    assert found.networks == ("VM Network", "VMNet")
    assert [(one.name, one.macs) for one in found.machines] == [("old", ("00:50:56:00:00:01",))]
    assert found.machines[0].uuid
    assert found.hardware_version == 14
    assert found.free is not None
    assert found.free > 0
    assert -910 < found.clock_skew < -890
    assert (found.maintenance, found.can_resume, found.tls) == (False, False, "checked")


@pytest.mark.parametrize("way", ["lease", "files"])
def test_into_a_vcenter(store: Path, images: list[Path], tmp_path: Path, way: str) -> None:
    """Which wants to know the datacenter of each file, and has folders in folders."""
    server = Server(vcenter=True, folder="F", datacenter="DC 1", networks=("VMNet",))
    with esxi([Datastore(name="ds", directory=store)], server=server) as made, target(made) as there:
        if way == "files":
            made.order(refuse_calls=["ImportVApp"])
        identity = send(there, images, tmp_path)
        with opened(images) as disks:
            there.compare(identity, disks, Control())
        flats(store, images)
        if way == "files":
            there.remove(identity)
            made.order(refuse_calls=["ImportVApp", "RegisterVM_Task"])
            with pytest.raises(ImgtoolError, match="as files: "):
                send(there, images, tmp_path)
            assert [*store.iterdir()] == []


@pytest.mark.parametrize("way", ["lease", "files"])
def test_a_machine_is_sent_and_read_back(server: Simulator, store: Path, images: list[Path], tmp_path: Path, way: str) -> None:
    """Its name at first another; with all that an OVF does not carry; the very same bytes, and nothing left here."""
    before = state(tmp_path / "state") if (tmp_path / "state").exists() else {}
    with target(server) as there:
        if way == "files":
            server.order(refuse_calls=["ImportVApp"])
        identity = send(there, images, tmp_path)
        with opened(images) as disks:
            there.compare(identity, disks, Control())
        flats(store, images)
        there.rename(identity, "web01")
        assert [(one.name, one.power) for one in inventory.machines(there.session)] == [("web01", "off")]
        taken = machines.taken(there.session)[0]
    made = description(".vmx").parse(next(store.glob("*/*.vmx")).read_bytes()).machine
    assert (taken.macs, made.uuid) == (MACS, UUID)
    if way == "lease":
        assert taken.uuid == UUID
    assert [nic.mac for nic in made.nics] == list(MACS)
    assert {nic.mac_kind for nic in made.nics} == {"static"}
    assert (made.firmware.kind, made.firmware.secure_boot) == (FirmwareKind.UEFI, True)
    assert (made.cpu.count, made.cpu.topology and made.cpu.topology.cores) == (4, 2)
    assert server.counters()["leases"] == 0
    assert server.counters()["sessions"] == 0
    assert before == {}


@pytest.mark.parametrize("allocations", [(Allocation.THIN, Allocation.THICK), (Allocation.EAGER, Allocation.THIN)])
def test_each_disk_as_it_is_wanted(server: Simulator, images: list[Path], tmp_path: Path,
                                   allocations: tuple[Allocation, Allocation]) -> None:
    with target(server) as there:
        send(there, images, tmp_path, allocations=allocations)
        disks = there._in_order(inventory.find(there.session, NAME))
    assert [disk.capacity for disk in disks] == list(SIZES)
    assert [disk.thin for disk in disks] == [each is Allocation.THIN for each in allocations]


def test_hardware_that_a_lease_does_not_take(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    """The OVF is refused: the files are put there."""
    with target(server) as there:
        identity = send(there, images, tmp_path, made=described(bus=Bus.SATA))
        with opened(images) as disks:
            there.compare(identity, disks, Control())
    flats(store, images)
    assert "ImportVApp" not in server.counters()["calls"]


@pytest.mark.parametrize("way", ["ranges", "lease"])
@pytest.mark.parametrize(("at", "number"), [(MIB + 12_345, 1), (4 * MIB + 1, 0), (SIZES[1] - 1, 1)])
def test_a_byte_that_differs(server: Simulator, store: Path, images: list[Path], tmp_path: Path, at: int, number: int, way: str,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """In data, and where there are zeros here; read by ranges, and through a lease."""
    monkeypatch.setattr(readers, "WORTH_A_LEASE", 1 if way == "lease" else 1 << 60)
    monkeypatch.setattr(readers, "MOSTLY_EMPTY", 1)
    with target(server) as there:
        identity = send(there, images, tmp_path)
        file = next(each for each in store.glob("*/*-flat.vmdk") if each.stat().st_size == SIZES[number])
        with file.open("r+b") as changed:
            changed.seek(at)
            old = changed.read(1)
            changed.seek(at)
            changed.write(bytes([old[0] ^ 1]))
        with opened(images) as disks, pytest.raises(DifferError, match=f"web01-{number}.vmdk differs .* at byte {at}$"):
            there.compare(identity, disks, Control())
        assert server.counters()["leases"] == 0


def nothing_left(server: Simulator, store: Path, tmp_path: Path) -> None:
    assert [*store.iterdir()] == []
    assert server.counters()["leases"] == 0
    assert not (tmp_path / "state" / "vsphere.json").exists()


@pytest.mark.parametrize("way", ["lease", "files"])
def test_a_datastore_that_fills_up(server: Simulator, store: Path, images: list[Path], tmp_path: Path, way: str) -> None:
    with target(server) as there:
        refused = {"refuse_calls": ["ImportVApp"]} if way == "files" else {}
        server.order(full_after=MIB, match="none", **refused)
        with pytest.raises(NoSpaceError) as caught:
            send(there, images, tmp_path)
        assert caught.value.exit_code == 7
        nothing_left(server, store, tmp_path)
        server.reset()
        send(there, images, tmp_path)
    flats(store, images)


@pytest.mark.parametrize("way", ["lease", "files"])
def test_an_upload_that_is_stopped(server: Simulator, store: Path, images: list[Path], tmp_path: Path, way: str) -> None:
    stop = Stop()
    with target(server) as there:
        refused = {"refuse_calls": ["ImportVApp"]} if way == "files" else {}
        server.order(match="vmdk", bytes_per_second=MIB, **refused)
        threading.Timer(1, stop.set).start()
        with pytest.raises(StoppedError):
            send(there, images, tmp_path, control=Control(stop=stop))
        nothing_left(server, store, tmp_path)


def test_a_line_that_is_cut_sends_the_disk_again(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    with target(server) as there:
        server.order(match="nfc", cuts=[100_000, 1_500_000])
        send(there, images, tmp_path)
    assert server.counters()["cuts"] == 2
    flats(store, images)


def test_a_line_that_is_always_cut(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    with target(server) as there:
        server.order(match="nfc", cuts=[100_000] * 100)
        with pytest.raises(UnreachableError, match="broke off"):
            send(there, images, tmp_path)
        nothing_left(server, store, tmp_path)


def test_what_cannot_be_removed_is_named(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    """The host is gone in the middle: the message says what may be left, the next run takes it away first."""
    with target(server) as there:
        server.order(match="nfc", cuts=[100_000] * 100, refuse_calls=["HttpNfcLeaseAbort", "Destroy_Task"])
        with pytest.raises(UnreachableError, match="broke off") as caught:
            send(there, images, tmp_path)
        assert f"the half-made machine {NAME} may still be at {server.host}" in str(caught.value.hint)
        assert "--discard-partial" in str(caught.value.hint)
        assert (tmp_path / "state" / "vsphere.json").exists()
        server.reset()
        send(there, images, tmp_path)
        assert [one.name for one in inventory.machines(there.session)] == [NAME]
    flats(store, images)


def test_what_a_killed_run_left_is_discarded(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    """Its lease is still open: it goes with the session, or after its time."""
    with target(server) as there:
        server.order(refuse_calls=["ImportVApp", "RegisterVM_Task", "DeleteDatastoreFile_Task"])
        with pytest.raises(ImgtoolError, match="as files: "):
            send(there, images, tmp_path)
        assert [*store.iterdir()] == [store / NAME]
        server.reset()
        there.discard([], str(tmp_path / "state"))
        nothing_left(server, store, tmp_path)
        there.discard([], str(tmp_path / "state"))


def test_a_strange_folder_is_never_touched(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    (store / NAME).mkdir()
    (store / NAME / "precious").write_text("x")
    with target(server) as there:
        server.order(refuse_calls=["ImportVApp"])
        with pytest.raises(RefusedError, match="there is a folder"):
            send(there, images, tmp_path)
    assert [path.name for path in (store / NAME).iterdir()] == ["precious"]


def test_a_strange_machine_is_never_touched(store: Path, images: list[Path], tmp_path: Path) -> None:
    path = machine(store, NAME, [MIB])
    before = state(store)
    with esxi([Datastore(name="ds", directory=store)], [Registered(path=f"[ds] {path}")], Server(networks=("VMNet",))) as made, \
            target(made) as there:
        with pytest.raises(RefusedError, match="has a machine"):
            send(there, images, tmp_path)
        there.discard([], str(tmp_path / "state"))
        assert [one.name for one in inventory.machines(there.session)] == [NAME]
    assert state(store) == before


@pytest.mark.parametrize(("name", "identity", "vmx", "ours"), [
    ("x.imgtool-new", "vm-7", "[ds] x.imgtool-new/x.vmx", True), ("x.imgtool-new", "vm-8", "[ds] y/x.vmx", False),
    ("x", "vm-7", "[ds] y/x.vmx", False), ("x.imgtool-new", "vm-9", "[ds] mine/x.vmx", True),
    ("x.imgtool-new", "vm-9", "[ds] mine too/x.vmx", False)])
def test_what_is_ours(name: str, identity: str, vmx: str, ours: bool) -> None:
    left = leftover.Leftover(name="x.imgtool-new", machine="vm-7", folder="[ds] mine")
    assert leftover.made_by(left, name, identity, vmx) == ours
    assert not leftover.made_by(leftover.Leftover(name="x.imgtool-new"), name, identity, vmx)


def test_a_machine_that_another_makes_meanwhile(server: Simulator, store: Path, images: list[Path], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same name, between our look and our lease: it is not taken for ours."""
    with target(server) as there:
        send(there, images, tmp_path)
        monkeypatch.setattr(inventory, "machines", lambda session: [])
        with pytest.raises(RefusedError, match=r"DuplicateName.*there is a folder"):
            send(there, images, tmp_path / "another")
        monkeypatch.undo()
        assert [one.name for one in inventory.machines(there.session)] == [NAME]
    flats(store, images)


def test_a_licence_that_forbids_it(store: Path, images: list[Path], tmp_path: Path) -> None:
    with esxi([Datastore(name="ds", directory=store)], server=Server(networks=("VMNet",), free_licence=True)) as made, \
            target(made) as there:
        assert there.look(Placing(), Control()).can_write is False
        with pytest.raises(RefusedError, match="licence"):
            send(there, images, tmp_path)
    assert [*store.iterdir()] == []


def test_the_session_ends_while_files_are_put(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    with target(server) as there:
        server.order(refuse_calls=["ImportVApp"], expire=8 * MIB)
        with suppress(UnreachableError):
            send(there, images, tmp_path)
        server.reset()
        if not [*store.glob("*/*.vmx")]:
            nothing_left(server, store, tmp_path)
            send(there, images, tmp_path)
    flats(store, images)


def test_it_is_started_and_watched(server: Simulator, images: list[Path], tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_target, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(as_target, "POLL", 0.05)
    with target(server) as there:
        identity = send(there, images, tmp_path)
        assert there.watch(identity, Control()) == "it is not running (poweredOff)"
        there.start(identity)
        assert "the guest's tools, if it has any, have said nothing" in there.watch(identity, Control())


@pytest.mark.parametrize(("seen", "words"), [
    ({"runtime.powerState": "poweredOn", "guest.toolsRunningStatus": "guestToolsRunning", "guest.ipAddress": "10.0.0.7"},
     "the guest's tools answer; its address is 10.0.0.7"),
    ({"runtime.powerState": "poweredOn", "guest.toolsRunningStatus": "guestToolsRunning", "guestHeartbeatStatus": "green"},
     "the guest's tools answer"),
    ({"runtime.powerState": "poweredOn", "guest.toolsRunningStatus": "guestToolsRunning", "guestHeartbeatStatus": "gray"}, None),
    ({"runtime.powerState": "poweredOn", "runtime.question": SimpleNamespace(text="Moved\nor copied?")},
     "the host asks something before it goes on: Moved or copied?"),
])
def test_what_the_tools_say(seen: dict[str, Any], words: str | None) -> None:
    assert as_target._words(seen) == words


def test_a_machine_that_is_not_what_was_sent(server: Simulator, images: list[Path], tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk fewer, a smaller one, no machine any more: never taken for a good copy."""
    with target(server) as there, opened(images) as disks:
        identity = send(there, images, tmp_path)
        found = inventory.find(there.session, NAME)
        order = there._in_order(found)
        for wrong, words in ((order[:1], "has 1 disks, and 2 were sent"),
                             ([order[0], replace(order[1], capacity=SIZES[1] - 512)], f"has {SIZES[1] - 512} bytes there")):
            monkeypatch.setattr(there, "_in_order", lambda _found, wrong=wrong: wrong)
            with pytest.raises(ImgtoolError, match=words):
                there.compare(identity, disks, Control())
        there.remove(identity)
        with pytest.raises(ImgtoolError, match="no longer has the machine"):
            there.compare(identity, disks, Control())


def made_up() -> VSphereTarget:
    """A target without a server."""
    session: Any = SimpleNamespace(account=login.Account(host="h", user="u", password="p"))
    return VSphereTarget(session, parse("esx://h/"))


@pytest.mark.parametrize(("error", "raised"), [(StoppedError(15), StoppedError), (UnreachableError("gone"), UnreachableError)])
def test_what_was_left_is_remembered_until_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ImgtoolError,
                                                      raised: type[ImgtoolError]) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr("imgtool.endpoints.vsphere.properties.all_of", failing)
    leftover.note(str(tmp_path), leftover.Leftover(name=NAME))
    with pytest.raises(ImgtoolError) as caught:
        made_up().discard([], str(tmp_path))
    assert type(caught.value) is raised
    assert (NAME in caught.value.message) == (raised is UnreachableError)
    assert leftover.noted(str(tmp_path)) == leftover.Leftover(name=NAME)


def test_what_cannot_be_noted_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImgtoolError, match="making"):
        leftover.note(str(tmp_path / "file" / "state"), leftover.Leftover(name=NAME))


@pytest.mark.parametrize("reads", ["write", "zero"])
def test_what_comes_back_is_compared_to_its_end(tmp_path: Path, reads: str) -> None:
    """Also behind the end of the disk that was sent, where the host has made it larger; and where it reads nothing but zeros."""
    (tmp_path / "a").write_bytes(b"a" * 1024)
    bar: Any = SimpleNamespace(update=lambda _count: None)
    with open_disk(str(tmp_path / "a"), source_format="raw") as disk:
        sink = readback.Comparing(disk, "a", bar)
        sink.write(0, memoryview(b"a" * 1024 + bytes(512)))
        sink.zero(1024, 512)
        if reads == "write":
            with pytest.raises(DifferError, match="behind the end"):
                sink.write(512, memoryview(b"a" * 512 + bytes(511) + b"x"))
        else:
            with pytest.raises(DifferError, match=r"at byte 512$"):
                sink.zero(512, 1024)


def test_cards_that_were_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their addresses would be given to the wrong ones."""
    there = made_up()
    monkeypatch.setattr("imgtool.endpoints.vsphere.properties.of", lambda *_: {"config.hardware.device": [
        SimpleNamespace(macAddress="x", key=1), SimpleNamespace(key=2)]})
    with pytest.raises(ImgtoolError, match="made 1 network cards of 2"):
        hardware.reconfigure(there.session, "vm-1", described(), Stop())


def test_a_lease_without_an_address_for_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, and the lease is given back."""
    spec = lease.ImportSpec(spec=None, items=(("device-0", "a.vmdk"),))
    ended: list[bool] = []

    @contextmanager
    def importing(*_words: object, **_options: object) -> Iterator[Any]:
        try:
            yield SimpleNamespace(machine="vm-1", disks=())
        except ImgtoolError:
            ended.append(True)
            raise

    monkeypatch.setattr(lease, "import_spec", lambda *_words, **_options: spec)
    monkeypatch.setattr(lease, "importing", importing)
    to: Any = SimpleNamespace(pool="p", store="s", folder="f", host=None, networks={})
    with pytest.raises(ImgtoolError, match="no address for 'device-0'") as caught:
        incoming.create(None, "", "web01", to, {"a.vmdk": lambda: iter(())}, Control())  # type: ignore[arg-type]
    assert (ended, caught.value.exit_code) == ([True], 1)


def test_a_task_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever more seldom, and until somebody stops it."""
    slept: list[float] = []
    states = iter([*["running"] * 5, "success"])
    monkeypatch.setattr(tasks.properties, "of", lambda *_: {"info.state": next(states), "info.result": "done"})
    monkeypatch.setattr(tasks.time, "sleep", slept.append)
    session: Any = SimpleNamespace(call=lambda *_words, **_options: None)
    assert tasks.run(session, "working", lambda _stub: None, Stop()) == "done"
    assert slept == [0.2, 0.4, 0.8, 1.6, 2.0]
    states, stop = iter(["running"]), Stop()
    stop.set()
    with pytest.raises(StoppedError):
        tasks.run(session, "working", lambda _stub: None, stop)


def test_it_is_removed(server: Simulator, store: Path, images: list[Path], tmp_path: Path) -> None:
    with target(server) as there:
        there.remove(send(there, images, tmp_path))
        assert inventory.machines(there.session) == []
    assert [*store.iterdir()] == []


def test_a_lease_is_kept_alive_while_disks_are_slow(store: Path, images: list[Path], tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.2)
    with esxi([Datastore(name="ds", directory=store)], server=Server(networks=("VMNet",), lease_timeout=1)) as made, \
            target(made) as there:
        made.order(match="nfc", bytes_per_second=MIB)
        send(there, images, tmp_path)
    flats(store, images)


def test_the_password_is_nowhere(server: Simulator, images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines: list[bytes] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    lines.append(each.read_bytes())

    with caplog.at_level("DEBUG"), target(server) as there:
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            send(there, images, tmp_path)
        finally:
            over.set()
            watcher.join()
        assert server.password not in repr(vars(there))
    assert lines
    assert not [line for line in lines if server.password.encode() in line]
    assert server.password not in caplog.text
    assert not subprocess.run(["grep", "-rlF", server.password, tmp_path / "state"], capture_output=True, check=False).stdout


