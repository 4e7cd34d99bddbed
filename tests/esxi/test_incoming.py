"""A new machine: its place by name, its disks sent at once, nothing left of what failed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Server, Simulator, esxi
from imgtool.endpoints.vsphere import incoming, inventory, machines
from imgtool.endpoints.vsphere.facts import facts
from imgtool.endpoints.vsphere.incoming import Destination, Wanted
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import DamagedError, UsageError
from imgtool.model.endpoint import Place, Places, Store
from imgtool.progress import Control
from tests.esxi.machines import MIB, flat
from tests.esxi.ovf import OVF
from tests.esxi.sessions import session
from tests.oracle import same, tool

SIZE = 6 * MIB
PLACES = Places(stores=(Store(name="fast", id="ds-1", capacity=9, free=9), Store(name="slow", id="ds-2", capacity=9, free=9),
                        Store(name="off", id="ds-3", capacity=9, free=9, writable=False)),
                networks=(Place(name="lan", id="net-1"), Place(name="twin", id="net-2"), Place(name="twin", id="net-3")),
                pools=(Place(name="Resources", id="pool-1"),), folders=(Place(name="DC/vm", id="folder-1"),),
                hosts=(Place(name="esxi1", id="host-1"),))


TWO_CLUSTERS = replace(PLACES, pools=(
    Place(name="a/Resources", id="pool-1", owner="c-1"), Place(name="a/Resources/web", id="pool-2", owner="c-1", top=False),
    Place(name="b/Resources", id="pool-3", owner="c-2")), hosts=(
    Place(name="esxi1", id="host-1", owner="c-1"), Place(name="esxi2", id="host-2", owner="c-2")),
    folders=(Place(name="DC/vm", id="folder-1"), Place(name="DC/vm/web", id="folder-2", top=False)))


@pytest.mark.parametrize(("wanted", "pool", "folder"), [
    (Wanted(store="fast", host="esxi2"), "pool-3", "folder-1"), (Wanted(store="fast", host="esxi1"), "pool-1", "folder-1"),
    (Wanted(store="fast", pool="web", folder="web"), "pool-2", "folder-2"),
    (Wanted(store="fast", pool="b/Resources", folder="DC/vm"), "pool-3", "folder-1")])
def test_where_a_machine_goes_unless_said(wanted: Wanted, pool: str, folder: str) -> None:
    found = incoming.destination(TWO_CLUSTERS, wanted, [])
    assert (found.pool, found.folder) == (pool, folder)


@pytest.mark.parametrize("wanted", [Wanted(store="fast"), Wanted(store="fast", host="esxi2", pool="web")])
def test_which_cluster_must_be_said(wanted: Wanted) -> None:
    with pytest.raises(UsageError, match="resource pool") as caught:
        incoming.destination(TWO_CLUSTERS, wanted, [])
    assert "'b/Resources'" in str(caught.value.hint)


def test_names_become_ids() -> None:
    found = incoming.destination(PLACES, Wanted(store="slow", host="esxi1", networks={"br0": "net-3"}), ["lan", "br0"])
    assert found == Destination(store="ds-2", pool="pool-1", folder="folder-1", host="host-1",
                                networks={"lan": "net-1", "br0": "net-3"})


@pytest.mark.parametrize(("wanted", "networks", "message", "hint"), [
    (Wanted(), [], "which datastore?", "'fast', 'slow'"),
    (Wanted(store="quick"), [], "no datastore 'quick'", "'fast', 'slow'"),
    (Wanted(store="off"), [], "no datastore 'off'", "'fast', 'slow'"),
    (Wanted(store="fast", pool="x"), [], "no resource pool 'x'", "'Resources'"),
    (Wanted(store="fast", folder="x"), [], "no folder 'x'", "'DC/vm'"),
    (Wanted(store="fast", host="x"), [], "no host 'x'", "'esxi1'"),
    (Wanted(store="fast"), ["br0"], "no network 'br0'", "'lan', 'twin', 'twin'"),
    (Wanted(store="fast"), ["twin"], "2 of network are called 'twin'", "net-2, net-3"),
])
def test_wrong_names_list_what_there_is(wanted: Wanted, networks: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        incoming.destination(PLACES, wanted, networks)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    place.mkdir()
    return place


@pytest.fixture
def server(store: Path) -> Iterator[Simulator]:
    with esxi([Datastore(name="ds", directory=store)], server=Server(networks=("VMNet",))) as made:
        yield made


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, tuple[Path, bytes]]:
    """Raw, and as a stream, by the OVF's file names."""
    made = {}
    for seed, href in enumerate(("a.vmdk", "b.vmdk")):
        raw, packed = flat(tmp_path / f"{href}.raw", SIZE, data=((MIB, 3 * MIB),), seed=seed), tmp_path / href
        tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed)
        made[href] = raw, packed.read_bytes()
    return made


def create(made: Session, streams: dict[str, incoming.Stream]) -> str:
    to = incoming.destination(machines.places(made), Wanted(networks={"lan": "VMNet"}), ["lan"])
    return incoming.create(made, OVF, "web01.imgtool", to, streams, Control()).machine


def pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 65_536):
        yield data[at:at + 65_536]


def test_disks_are_sent_at_once(server: Simulator, store: Path, disks: dict[str, tuple[Path, bytes]]) -> None:
    both = threading.Barrier(2, timeout=30)  # passes only if both disks are under way

    def stream(data: bytes) -> incoming.Stream:
        def begin() -> Iterable[bytes]:
            both.wait()
            return pieces(data)
        return begin

    with session(server) as made:
        one = create(made, {href: stream(data) for href, (_, data) in disks.items()})
        told = facts(made, inventory.find(made, one))
    assert [disk.capacity for disk in told.disks] == [SIZE, SIZE]
    for (raw, _), file in zip(disks.values(), sorted((store / "web01.imgtool").glob("*-flat.vmdk")), strict=True):
        same(raw, "raw", file, "raw")


def test_one_failure_ends_all(server: Simulator, store: Path, disks: dict[str, tuple[Path, bytes]]) -> None:
    """The other stream would never end by itself."""
    def damaged() -> Iterator[bytes]:
        yield disks["a.vmdk"][1][:1000]
        raise DamagedError("the overlay is damaged")

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65_536)

    with session(server) as made:
        with pytest.raises(DamagedError, match="overlay"):
            create(made, {"a.vmdk": damaged, "b.vmdk": endless})
        assert inventory.machines(made) == []
    assert [*store.iterdir()] == []
    assert server.counters()["leases"] == 0


def test_a_disk_that_nobody_sends(server: Simulator, store: Path) -> None:
    with session(server) as made, pytest.raises(UsageError, match=r"'b\.vmdk'"):
        create(made, {"a.vmdk": list})
    assert [*store.iterdir()] == []
