"""What the API says of machines and places; names that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.esxi import Datastore, Registered, Server, Simulator, esxi
from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import connect, inventory, machines
from imgtool.endpoints.vsphere import facts as api
from imgtool.endpoints.vsphere.facts import Facts
from imgtool.endpoints.vsphere.login import content
from imgtool.errors import RefusedError, UsageError
from imgtool.files import sync
from imgtool.model.endpoint import Credentials, Power
from imgtool.model.situation import FreeSpace
from imgtool.progress import Stop
from tests.esxi.machines import MIB, ODD_NAME, add_disk, machine
from tests.esxi.sessions import session, vsphere

RDM = """\
# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="vmfsPassthroughRawDeviceMap"
RW 2048 VMFSRDM "rdm-rdmp.vmdk"
"""
TEN_PROBLEMS = """\
ctkEnabled = "TRUE"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "rdm.vmdk"
scsi0:2.present = "TRUE"
scsi0:2.fileName = "own.vmdk"
scsi0:2.mode = "independent-persistent"
scsi1.present = "TRUE"
scsi1.virtualDev = "lsisas1068"
scsi1.sharedBus = "physical"
scsi1:0.present = "TRUE"
scsi1:0.fileName = "quorum.vmdk"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    place = tmp_path_factory.mktemp("ds")
    plain = machine(place, ODD_NAME, [4 * MIB, 2 * MIB], data=((0, MIB),))
    hard = machine(place, "hard", [MIB], extra=TEN_PROBLEMS)
    for name in ("rdm", "own", "quorum"):
        add_disk(place / "hard", name, MIB)
    (place / "hard" / "rdm.vmdk").write_text(RDM)
    hosts = [Registered(path=f"[ds 1] {plain}", tools=True, hostname="web", volumes=(("/", 100, 7),)),
             Registered(path=f"[ds 1] {hard}", running=True, snapshots=("before", "after"))]
    for path in place.rglob("*-flat.vmdk"):
        sync(str(path))  # what is not written yet takes no space
    with esxi([Datastore(name="ds 1", directory=place)], hosts, Server(networks=("VMNet",))) as made:
        yield made


def facts(server: Simulator, name: str) -> Facts:
    with session(server) as made:
        return api.facts(made, inventory.find(made, name))


def test_machines_are_listed(server: Simulator) -> None:
    with session(server) as made:
        assert [(one.name, one.power, one.folder) for one in inventory.machines(made)] == [
            (ODD_NAME, Power.OFF, "ha-datacenter/vm"), ("hard", Power.RUNNING, "ha-datacenter/vm")]


def test_a_machine_is_found_by_name_path_and_id(server: Simulator) -> None:
    with session(server) as made:
        one = inventory.find(made, ODD_NAME)
        assert inventory.find(made, f"ha-datacenter/vm/{ODD_NAME}") == one
        assert inventory.find(made, one.id) == one


def test_a_wrong_name_lists_those_there_are(server: Simulator) -> None:
    with session(server) as made, pytest.raises(UsageError, match="no machine 'web99'") as caught:
        inventory.find(made, "web99")
    assert ODD_NAME in str(caught.value.hint)
    assert "'hard'" in str(caught.value.hint)


def test_a_plain_machine(server: Simulator) -> None:
    told = facts(server, ODD_NAME)
    assert told.description == f"[ds 1] {ODD_NAME}/{ODD_NAME}.vmx"
    assert [(disk.path, disk.capacity, disk.kind, disk.controller) for disk in told.disks] == [
        (f"[ds 1] {ODD_NAME}/{ODD_NAME}.vmdk", 4 * MIB, "flat", "scsi0:0"),
        (f"[ds 1] {ODD_NAME}/{ODD_NAME}_1.vmdk", 2 * MIB, "flat", "scsi0:1")]
    assert [disk.allocated for disk in told.disks] == [MIB, MIB]
    assert {disk.datastore_kind for disk in told.disks} == {"VMFS"}
    assert (told.state.snapshots, told.state.tools, told.state.guest_free) == ((), "running", (FreeSpace(mount="/", free=7),))
    assert (told.state.change_tracking, told.state.encrypted, told.template) == (False, False, False)
    assert (told.state.running, told.state.suspended, told.state.maintenance, told.state.tls) == (False, False, False, "checked")
    assert (told.state.can_write, told.state.fault_tolerance, told.state.consolidation_needed) == (True, False, False)
    assert [(disk.name, disk.datastore, disk.data) for disk in told.state.disks] == [
        (disk.path, "ds 1", MIB) for disk in told.disks]
    assert abs(told.state.clock_skew) < 60


def test_a_machine_with_problems(server: Simulator) -> None:
    told = facts(server, "hard")
    disks = {disk.controller: disk for disk in told.disks}
    assert told.state.snapshots == ("before", "after")
    assert told.state.change_tracking
    assert told.state.running
    assert disks["scsi0:1"].kind == "rdm-physical"
    assert disks["scsi0:2"].mode == "independent_persistent"
    assert disks["scsi1:0"].shared
    assert not disks["scsi0:0"].shared
    assert told.found.power is Power.RUNNING
    assert [disk.kind for disk in told.state.disks].count("rdm-physical") == 1
    assert [disk.shared for disk in told.state.disks].count(True) == 1


def test_places(server: Simulator) -> None:
    with session(server) as made:
        found = machines.places(made)
    assert [(one.name, one.kind, one.writable) for one in found.stores] == [("ds 1", "VMFS", True)]
    assert 0 < found.stores[0].free < found.stores[0].capacity
    assert [one.name for one in found.networks] == ["VM Network", "VMNet"]
    assert [one.name for one in found.folders] == ["ha-datacenter/vm"]
    assert found.pools
    assert found.hosts
    assert found.writable


def test_two_machines_of_one_name(tmp_path: Path) -> None:
    twins = [machine(tmp_path, "web01", [MIB], folder=folder) for folder in ("a", "b")]
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}") for path in twins]) as made, \
            session(made) as logged_in:
        with pytest.raises(UsageError, match="2 machines are called 'web01'") as caught:
            inventory.find(logged_in, "web01")
        ids = [one.id for one in inventory.machines(logged_in)]
        assert all(each in str(caught.value.hint) for each in ids)


def test_a_machine_is_renamed_started_and_removed(tmp_path: Path) -> None:
    path = machine(tmp_path, "imgtool-tmp", [MIB])
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}")]) as made, vsphere(made) as there:
        one = there.find("imgtool-tmp")
        machines.rename(there.session, one.id, "web01", Stop())
        assert [each.name for each in there.machines()] == ["web01"]
        machines.start(there.session, one.id, Stop())
        assert there.find("web01").power is Power.RUNNING
        with pytest.raises(Exception, match="InvalidPowerState"):
            machines.remove(there.session, one.id, Stop())
        there.session.call("stopping", lambda stub: machines.properties.bound(("VirtualMachine", one.id), stub).PowerOffVM_Task())
        machines.remove(there.session, one.id, Stop())
        assert there.machines() == []
    assert not (tmp_path / "imgtool-tmp").exists()


def test_a_free_licence_is_seen_and_refuses(tmp_path: Path) -> None:
    path = machine(tmp_path, "web01", [MIB])
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}")], Server(free_licence=True)) as made, \
            session(made) as logged_in:
        one = inventory.find(logged_in, "web01")
        assert not machines.writable(logged_in)
        with pytest.raises(RefusedError, match="licence"):
            machines.rename(logged_in, one.id, "web02", Stop())
        assert api.facts(logged_in, one).disks[0].capacity == MIB


def test_custom_attributes_are_tags(tmp_path: Path) -> None:
    """Of a vCenter: a runbook chooses machines by them."""
    store = Datastore(name="ds", directory=tmp_path)
    there = [Registered(path=f"[ds] {machine(tmp_path, name, [MIB])}") for name in ("a", "b")]
    with esxi([store], there, Server(vcenter=True, datacenter="DC")) as server, session(server) as made:
        def mark(stub: Any) -> None:
            from pyVmomi import vim

            manager = content(stub).customFieldsManager
            wave = manager.AddCustomFieldDef("wave", vim.VirtualMachine)
            manager.AddCustomFieldDef("owner", vim.VirtualMachine)
            manager.SetField(vim.VirtualMachine(inventory.find(made, "b").id, stub), wave.key, "pilot 1")

        made.call("marking a machine", mark)
        assert {one.name: one.tags for one in inventory.machines(made)} == {"a": (), "b": ("pilot 1", "wave=pilot 1")}


def test_names_are_looked_up_in_the_datacenter_of_the_address(tmp_path: Path) -> None:
    """Of several, which may have machines and datastores of the same names."""
    there = [Registered(path=f"[ds] {machine(tmp_path, 'web01', [MIB])}")]
    center = Server(vcenter=True, folder="F", datacenter="DC 1", networks=("VMNet",))
    with esxi([Datastore(name="ds", directory=tmp_path)], there, center) as server:
        given = Credentials(password_file=str(server.password_file))
        with session(server) as made:
            made.call("making another", lambda stub: content(stub).rootFolder.CreateDatacenter("other"))
        for path, found in (("", True), ("F/DC%201", True), ("F/DC%201/", True), ("other", False)):
            one = connect(parse(server.uri("vpx", path)), given)
            try:
                places = machines.places(one)
                assert [each.name for each in inventory.machines(one)] == ["web01"] * found
                assert [each.name for each in machines.taken(one)] == ["web01"] * found
                assert [each.name for each in places.stores] == ["ds"] * found
                assert bool(places.pools and places.hosts and "VMNet" in [each.name for each in places.networks]) == found
                assert {each.name for each in places.folders} >= {"F/DC 1/vm" if found else "other/vm"}
                if found:
                    assert inventory.find(one, "F/DC 1/vm/web01").folder == "F/DC 1/vm"
                else:
                    with pytest.raises(UsageError, match="no machine 'web01'"):
                        inventory.find(one, "web01")
            finally:
                one.close()
        for path in ("wrong", "DC%201", "F", "F/DC%201/vm"):
            with pytest.raises(UsageError, match="there is no datacenter") as caught:
                connect(parse(server.uri("vpx", path)), given)
            assert caught.value.hint == "there are: 'F/DC 1', 'other'"
        assert server.counters()["sessions"] == 0
