"""Each rule by which a machine of one world becomes one of the other."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from imgtool.model.devices import (
    Backing,
    Bus,
    Controller,
    DiskMode,
    DiskSlot,
    Drive,
    Graphics,
    Network,
    NetworkKind,
    Nic,
    Passthrough,
    Port,
    SharedFolder,
    Video,
    Watchdog,
)
from imgtool.model.guest import Capabilities
from imgtool.model.machine import (
    Clock,
    Cpu,
    CpuFeature,
    Firmware,
    FirmwareKind,
    GuestOs,
    Machine,
    MachineSnapshot,
    Memory,
    Resources,
    Timer,
    Tools,
    Topology,
    Tpm,
)
from imgtool.model.translation import PlacedFile, Retargeted, Wishes, World
from imgtool.retarget import retarget, slots

GIB = 1 << 30
UEFI = Firmware(kind=FirmwareKind.UEFI)
BR0 = Network(kind=NetworkKind.BRIDGE, name="br0")
DISK = DiskSlot(path="/srv/x.qcow2", format="qcow2")


def vmware(**said: Any) -> Machine:
    """A machine of ESXi."""
    said.setdefault("guest_os", GuestOs(id="debian12"))
    return Machine(**{"name": "m", "hardware_version": 19, "memory": Memory(size=GIB), **said})


def kvm(**said: Any) -> Machine:
    """A machine of KVM."""
    said.setdefault("guest_os", GuestOs(id="debian12"))
    return Machine(**{"name": "m", "accelerator": "kvm", "chipset": "q35", "memory": Memory(size=GIB), **said})


def to_kvm(machine: Machine, **wishes: Any) -> Retargeted:
    return retarget(machine, Wishes(to=World.KVM, **wishes))


def to_esxi(machine: Machine, **wishes: Any) -> Retargeted:
    return retarget(machine, Wishes(to=World.ESXI, **wishes))


def told(done: Retargeted) -> str:
    return "\n".join(f"{one.what} | {one.hint}" for one in done.problems)


def scsi(model: str | None, count: int = 1, **said: Any) -> dict[str, Any]:
    """Disks behind one SCSI controller."""
    return {"controllers": (Controller(bus=Bus.SCSI, model=model),),
            "disks": tuple(DiskSlot(path=f"/srv/{unit}.vmdk", unit=unit, **said) for unit in range(count))}


# -- the platform


@pytest.mark.parametrize(("said", "able", "chipset"), [
    ({}, {}, "q35"),
    ({"firmware": UEFI, "guest_os": GuestOs(id="windows2003")}, {}, "q35"),
    ({"guest_os": GuestOs(id="rhel5")}, {}, "i440fx"),
    ({"guest_os": GuestOs(id="windowsxp")}, {}, "i440fx"),
    ({"guest_os": GuestOs()}, {}, "i440fx"),
    ({"guest_os": GuestOs(id="debian12", arch="aarch64")}, {}, "virt"),
    ({"disks": (DiskSlot(path="/x.vmdk", bus=Bus.IDE),)}, {}, "i440fx"),
    ({"disks": (DiskSlot(path="/x.vmdk", bus=Bus.IDE),)}, {"disk_buses": ("virtio",)}, "q35"),
    ({}, {"machine": "i440fx"}, "i440fx"),
])
def test_chipset(said: dict[str, Any], able: dict[str, Any], chipset: str) -> None:
    assert to_kvm(vmware(**said), capabilities=Capabilities(**able)).machine.chipset == chipset


@pytest.mark.parametrize(("accelerator", "mode"), [("kvm", "host-model"), ("qemu", "maximum")])
def test_accelerator_and_cpu(accelerator: str, mode: str) -> None:
    machine = to_kvm(vmware(cpu=Cpu(count=4, topology=Topology(sockets=2, cores=2))), accelerator=accelerator).machine
    assert (machine.accelerator, machine.cpu.mode) == (accelerator, mode)
    assert machine.cpu.topology == Topology(sockets=2, cores=2)
    assert machine.hardware_version is None


def test_a_topology_that_does_not_fit_is_dropped() -> None:
    done = to_kvm(vmware(cpu=Cpu(count=3, topology=Topology(sockets=2, cores=2))))
    assert done.machine.cpu.topology is None
    assert "the product is not 3" in told(done)


def test_cores_a_socket_on_esxi() -> None:
    cpu = Cpu(count=4, maximum=16, topology=Topology(sockets=4, cores=2, threads=2), mode="custom", model="Westmere",
              features=(CpuFeature(name="vmx", policy="disable"),))
    done = to_esxi(kvm(cpu=cpu))
    assert done.machine.cpu == Cpu(count=4, topology=Topology(sockets=1, cores=4), hot_add=True)
    assert "cpu.features = vmx (disable)" in told(done)
    odd = to_esxi(kvm(cpu=Cpu(count=3, topology=Topology(sockets=1, cores=2, threads=2))))
    assert odd.machine.cpu.topology is None
    assert "do not divide 3" in told(odd)


def test_hot_plug_needs_a_maximum_on_kvm() -> None:
    done = to_kvm(vmware(cpu=Cpu(count=2, hot_add=True, hot_remove=True), memory=Memory(size=GIB, hot_add=True)))
    assert (done.machine.cpu.hot_add, done.machine.cpu.hot_remove, done.machine.memory.hot_add) == (None, None, None)
    assert all(word in told(done) for word in ("cpu.hot_add", "cpu.hot_remove", "memory.hot_add"))
    quiet = to_kvm(vmware(cpu=Cpu(count=2, hot_add=False), memory=Memory(size=GIB, hot_add=False)))
    assert "hot_" not in told(quiet)


def test_huge_pages_are_the_hosts() -> None:
    done = to_kvm(vmware(memory=Memory(size=GIB, huge_pages=True)))
    assert done.machine.memory == Memory(size=GIB)
    assert "hugepages" in told(done)


def test_memory_on_esxi() -> None:
    done = to_esxi(kvm(memory=Memory(size=GIB + 1, current=GIB >> 1, maximum=4 * GIB, slots=16)))
    assert done.machine.memory == Memory(size=GIB + (4 << 20), hot_add=True)
    assert "memory.current" in told(done)


def test_firmware_variables_never_travel() -> None:
    done = to_kvm(vmware(firmware=Firmware(kind=FirmwareKind.UEFI, secure_boot=True, nvram="m.nvram")))
    assert done.machine.firmware == Firmware(kind=FirmwareKind.UEFI, secure_boot=True)
    assert "m.nvram" in told(done)
    bios = to_kvm(vmware(firmware=Firmware(nvram="m.nvram")))
    assert bios.machine.firmware == Firmware()
    assert "nvram" not in told(bios)
    assert any(note.field == "firmware.nvram" for note in bios.notes)


def test_a_tpm_is_a_new_one() -> None:
    done = to_kvm(vmware(tpm=Tpm(version="2.0")))
    assert done.machine.tpm == Tpm(version="2.0", model="tpm-crb")
    assert "BitLocker" in told(done)
    there = to_esxi(kvm(tpm=Tpm(version="2.0", model="tpm-tis")))
    assert there.machine.tpm is None
    assert "key provider" in told(there)


@pytest.mark.parametrize(("os", "offset", "last"), [("debian12", "utc", "hpet"), ("windows2019", "localtime", "hypervclock")])
def test_clock_on_kvm(os: str, offset: str, last: str) -> None:
    clock = to_kvm(vmware(guest_os=GuestOs(id=os))).machine.clock
    assert clock.offset == offset
    assert [timer.name for timer in clock.timers][-1] == last
    assert Timer(name="hpet", present=False) in clock.timers


@pytest.mark.parametrize(("os", "offset", "lost"), [
    ("debian12", "utc", False), ("debian12", "localtime", True), ("windows10", "localtime", False), ("windows10", "utc", True),
    ("debian12", "variable", True), ("debian12", None, False)])
def test_clock_on_esxi(os: str, offset: str | None, lost: bool) -> None:
    done = to_esxi(kvm(guest_os=GuestOs(id=os), clock=Clock(offset=offset)))
    assert done.machine.clock == Clock()
    assert ("clock.offset" in told(done)) is lost


@pytest.mark.parametrize(("said", "version"), [
    ({}, 10), ({"cpu": Cpu(count=96)}, 11), ({"firmware": Firmware(kind=FirmwareKind.UEFI, secure_boot=True)}, 13),
    ({"tpm": Tpm()}, 14), ({"disks": (replace(DISK, bus=Bus.NVME),)}, 13), ({"memory": Memory(size=2000 * GIB)}, 11),
    ({"guest_os": GuestOs(id="windows11"), "disks": (replace(DISK, bus=Bus.VIRTIO),)}, 13)])
def test_hardware_version_is_the_lowest_that_does(said: dict[str, Any], version: int) -> None:
    assert to_esxi(kvm(**said)).machine.hardware_version == version


def test_hardware_version_asked_for() -> None:
    assert to_esxi(kvm(), hardware_version=21).machine.hardware_version == 21
    done = to_esxi(kvm(tpm=Tpm()), hardware_version=10)
    assert [one.fatal for one in done.problems if "hardware version 10" in one.what] == [True]


def test_hardware_version_has_the_controllers_that_were_chosen() -> None:
    """SATA, on which CD-ROMs go, came with version 10, NVMe with 13."""
    done = to_esxi(kvm(drives=(Drive(),)), hardware_version=8)
    assert [one.what for one in done.problems if one.fatal] == ["hardware version 8: the machine needs 10"]
    assert not any(one.fatal for one in to_esxi(kvm(), hardware_version=8).problems)
    chosen = to_esxi(kvm(disks=(DISK,)), capabilities=Capabilities(disk_buses=("nvme",))).machine
    assert (chosen.disks[0].bus, chosen.hardware_version) == (Bus.NVME, 13)


def test_arm_does_not_run_on_esxi() -> None:
    assert any(one.fatal for one in to_esxi(kvm(guest_os=GuestOs(id="debian12", arch="aarch64"))).problems)


def test_shares_are_scaled() -> None:
    assert to_kvm(vmware(cpu=Cpu(count=4), resources=Resources(cpu_shares=4000))).machine.resources == Resources()
    assert to_kvm(vmware(cpu=Cpu(count=4), resources=Resources(cpu_shares=8000))).machine.resources.cpu_shares == 2048
    assert to_kvm(vmware(resources=Resources(cpu_shares=1_000_000))).machine.resources.cpu_shares == 10_000
    assert to_esxi(kvm(cpu=Cpu(count=4), resources=Resources(cpu_shares=2048))).machine.resources.cpu_shares == 8000


def test_what_the_other_host_gave_is_lost() -> None:
    given = Resources(cpu_reservation=500, cpu_limit=900, cpu_affinity=(1, 2), memory_shares=7, memory_reservation=GIB,
                      memory_limit=GIB)
    done = to_kvm(vmware(resources=given))
    assert done.machine.resources == Resources()
    assert all(f"resources.{name}" in told(done) for name in ("cpu_reservation", "cpu_limit", "cpu_affinity", "memory_shares",
                                                              "memory_reservation", "memory_limit"))
    there = to_esxi(kvm(resources=Resources(cpu_affinity=(3,), memory_limit=GIB)))
    assert there.machine.resources == Resources()
    assert "cpu_affinity" in told(there)


# -- disks


@pytest.mark.parametrize("model", ["pvscsi", "lsisas1068", "lsilogic", "ncr53c90"])
def test_an_unadapted_guest_keeps_its_controller(model: str) -> None:
    machine = to_kvm(vmware(**scsi(model, 2))).machine
    assert machine.controllers == (Controller(bus=Bus.SCSI, model=model),)
    assert [(disk.bus, disk.unit) for disk in machine.disks] == [(Bus.SCSI, 0), (Bus.SCSI, 1)]
    wwns = {disk.wwn for disk in machine.disks}
    assert all(re.fullmatch("5525400[0-9a-f]{9}", str(wwn)) for wwn in wwns) if model == "lsisas1068" else wwns == {None}
    assert len(wwns) == (2 if model == "lsisas1068" else 1)


@pytest.mark.parametrize(("able", "bus", "model"), [
    (("virtio", "pvscsi"), Bus.VIRTIO, None), (("virtio-scsi",), Bus.SCSI, "virtio-scsi"), (("sata", "ide"), Bus.SATA, None),
    (("buslogic", "pvscsi"), Bus.SCSI, "pvscsi")])
def test_the_best_that_the_guest_drives(able: tuple[str, ...], bus: Bus, model: str | None) -> None:
    machine = to_kvm(vmware(**scsi("pvscsi")), capabilities=Capabilities(disk_buses=able)).machine
    assert machine.disks[0].bus is bus
    assert [one.model for one in machine.controllers] == ([model] if bus in (Bus.SCSI, Bus.SATA) else [])


@pytest.mark.parametrize(("os", "bus"), [("windows2000", Bus.IDE), ("debian12", Bus.SATA)])
def test_buslogic_is_not_there(os: str, bus: Bus) -> None:
    done = to_kvm(vmware(guest_os=GuestOs(id=os), **scsi("buslogic")))
    assert done.machine.disks[0].bus is bus
    assert "buslogic" in told(done)


@pytest.mark.parametrize(("os", "model"), [("rhel5", "lsilogic"), ("windows2012", "lsisas1068"), ("debian12", "pvscsi")])
def test_a_controller_that_nobody_named(os: str, model: str) -> None:
    assert to_kvm(vmware(guest_os=GuestOs(id=os), **scsi(None))).machine.controllers[0].model == model


def test_ide_is_sata_on_q35() -> None:
    machine = to_kvm(vmware(firmware=UEFI, disks=(DiskSlot(path="/x.vmdk", bus=Bus.IDE, controller=1),))).machine
    assert (machine.disks[0].bus, machine.disks[0].controller, machine.disks[0].unit) == (Bus.SATA, 0, 0)


def test_nvme_and_xen_are_told() -> None:
    disks = (DiskSlot(path="/a.vmdk", bus=Bus.NVME), DiskSlot(path="/b.raw", bus=Bus.XEN))
    done = to_kvm(Machine(name="m", guest_os=GuestOs(id="debian12"), disks=disks))
    assert [disk.bus for disk in done.machine.disks] == [Bus.SATA, Bus.SATA]
    assert "NVMe" in told(done)
    assert "Xen" in told(done)


def test_order_and_units_are_made_anew() -> None:
    controllers = (Controller(bus=Bus.SCSI, number=2, model="pvscsi"), Controller(bus=Bus.SATA, number=1))
    disks = (DiskSlot(path="/ide.vmdk", bus=Bus.IDE), DiskSlot(path="/sata.vmdk", bus=Bus.SATA, controller=1, unit=9),
             DiskSlot(path="/late.vmdk", controller=2, unit=9), DiskSlot(path="/early.vmdk", controller=2, unit=3))
    done = to_kvm(vmware(firmware=UEFI, controllers=controllers, disks=disks))
    assert [(disk.path, disk.bus, disk.controller, disk.unit) for disk in done.machine.disks] == [
        ("/early.vmdk", Bus.SCSI, 0, 0), ("/late.vmdk", Bus.SCSI, 0, 1), ("/sata.vmdk", Bus.SATA, 0, 0),
        ("/ide.vmdk", Bus.SATA, 0, 1)]
    assert dict(done.moved) == {"disks[0]": "disks[3]", "disks[1]": "disks[2]", "disks[2]": "disks[1]", "disks[3]": "disks[0]"}


def test_the_disk_that_boots_is_first() -> None:
    disks = (DiskSlot(path="/a.vmdk"), DiskSlot(path="/b.vmdk", unit=1, boot_order=1))
    machine = to_kvm(vmware(disks=disks, controllers=(Controller(bus=Bus.SCSI, model="pvscsi"),), boot=("cdrom", "disk"))).machine
    assert [disk.path for disk in machine.disks] == ["/b.vmdk", "/a.vmdk"]
    assert [disk.boot_order for disk in machine.disks] == [1, None]
    assert machine.boot == ()
    assert to_kvm(vmware(**scsi("pvscsi"), boot=("cdrom", "disk"))).machine.boot == ("cdrom", "disk")
    assert to_kvm(vmware(**scsi("pvscsi"))).machine.disks[0].boot_order == 1


def test_each_place_in_the_boot_order_once() -> None:
    said = scsi("pvscsi", 2)
    disks = (replace(said["disks"][0], boot_order=2), replace(said["disks"][1], boot_order=1))
    done = to_kvm(vmware(controllers=said["controllers"], disks=disks, nics=(Nic(mac="00:0c:29:01:02:03", boot_order=1),)))
    assert [disk.boot_order for disk in done.machine.disks] == [1, 3]
    assert [nic.boot_order for nic in done.machine.nics] == [2]


@pytest.mark.parametrize(("bus", "each"), [(Bus.SCSI, 15), (Bus.SATA, 30)])
def test_full_controllers_on_esxi(bus: Bus, each: int) -> None:
    disks = tuple(DiskSlot(path=f"/srv/{unit}.vmdk", bus=bus, unit=unit, format="vmdk") for unit in range(each + 2))
    machine = to_esxi(kvm(disks=disks, controllers=(Controller(bus=bus, model="pvscsi" if bus is Bus.SCSI else None),))).machine
    assert [one.number for one in machine.controllers if one.bus is bus] == [0, 1]
    assert [disk.unit for disk in machine.disks if disk.controller == 1] == [0, 1]
    assert bus is Bus.SATA or 7 not in [disk.unit for disk in machine.disks]
    assert len({(disk.controller, disk.unit) for disk in machine.disks}) == each + 2


def test_more_disks_than_a_machine_has_places_for() -> None:
    done = to_esxi(kvm(disks=tuple(DiskSlot(path=f"/srv/{n}.vmdk", bus=Bus.IDE, unit=n, format="vmdk") for n in range(5))))
    assert [one.fatal for one in done.problems if "no place" in one.what] == [True]


@pytest.mark.parametrize(("os", "model"), [("debian12", "pvscsi"), ("windows2016", "lsisas1068"), ("rhel5", "lsilogic")])
@pytest.mark.parametrize("disk", [replace(DISK, bus=Bus.VIRTIO), replace(DISK, bus=Bus.SCSI)])
def test_from_virtio_to_what_the_guest_surely_knows(os: str, model: str, disk: DiskSlot) -> None:
    done = to_esxi(kvm(guest_os=GuestOs(id=os), disks=(disk,), controllers=(Controller(bus=Bus.SCSI, model="virtio-scsi"),)))
    assert done.machine.controllers[0].model == model
    assert "imgtool adapt" in told(done)
    able = to_esxi(kvm(guest_os=GuestOs(id=os), disks=(disk,)), capabilities=Capabilities(disk_buses=("pvscsi",)))
    assert able.machine.controllers[0].model == "pvscsi"
    assert "VirtIO" not in told(able)


def test_what_a_copy_leaves_behind_is_said() -> None:
    disks = (DiskSlot(path="/a.vmdk", rdm="physical"), DiskSlot(path="/b.vmdk", unit=1, mode=DiskMode.INDEPENDENT),
             DiskSlot(path="/c.vmdk", unit=2, shared=True))
    done = to_kvm(vmware(disks=disks, controllers=(Controller(bus=Bus.SCSI, model="pvscsi", shared="physical"),),
                         snapshots=(MachineSnapshot(name="before the update"),)))
    assert done.machine.snapshots == ()
    assert [disk.rdm for disk in done.machine.disks] == [None] * 3
    assert [disk.shared for disk in done.machine.disks] == [None] * 3
    for words in ("before the update", "disks[0].rdm = physical", "disks[1].mode = independent-persistent", "disks[2].shared",
                  "controllers[0].shared"):
        assert words in told(done)


# -- names of files


@pytest.mark.parametrize(("path", "rule", "new"), [
    ("[datastore1] m/x.vmdk", ("[datastore1]", "/srv/images"), "/srv/images/m/x.vmdk"),
    ("/vmfs/volumes/datastore1/m/x.vmdk", ("[datastore1]", "/srv/images"), "/srv/images/m/x.vmdk"),
    ("[datastore1] m/x.vmdk", ("[datastore1] m", "/srv/images"), "/srv/images/x.vmdk"),
    ("/vmfs/volumes/a/m/x.vmdk", ("/vmfs/volumes/a", "/srv"), "/srv/m/x.vmdk"),
    ("/old/x.vmdk", ("/old/", "/new"), "/new/x.vmdk"),
])
def test_map_storage(path: str, rule: tuple[str, str], new: str) -> None:
    done = to_kvm(vmware(disks=(DiskSlot(path=path),)), storage=(("/other", "/no"), rule))
    assert done.machine.disks[0].path == new
    assert "not found" not in told(done)


def test_map_storage_takes_whole_folders_only() -> None:
    done = to_kvm(vmware(disks=(DiskSlot(path="/older/x.vmdk"),)), storage=(("/old", "/new"),))
    assert done.machine.disks[0].path == "/older/x.vmdk"


@pytest.mark.parametrize("path", ["[iso] ../../etc/shadow", "[iso] a/../../x", "/vmfs/volumes/iso/../../../etc/shadow", "[iso] "])
def test_map_storage_leads_into_its_folder_only(path: str) -> None:
    done = to_kvm(vmware(drives=(Drive(backing=Backing.FILE, path=path),)), storage=(("[iso]", "/srv/iso"),))
    assert (done.machine.drives[0].backing, done.machine.drives[0].path) == (Backing.EMPTY, None)
    below = to_kvm(vmware(drives=(Drive(backing=Backing.FILE, path="[iso] /etc/shadow"),)), storage=(("[iso]", "/srv/iso"),))
    assert below.machine.drives[0].path == "/srv/iso/etc/shadow"


def test_two_disks_never_get_one_file() -> None:
    disks = (DiskSlot(path="[a] m/x.vmdk", format="vmdk"), DiskSlot(path="[b] m/x.vmdk", format="vmdk", unit=1))
    rules = (("[a]", "/srv"), ("[b]", "/srv"))
    twice = (replace(disks[0], path="x.vmdk"), replace(disks[1], path="x.vmdk"))
    files = (PlacedFile("x.vmdk", "/new/x.vmdk", "vmdk"),)
    for done in (to_kvm(vmware(disks=disks), storage=rules), to_kvm(vmware(disks=twice), files=files),
                 to_esxi(kvm(disks=twice), files=files), to_kvm(kvm(disks=disks), storage=rules)):
        assert ["is the file of another disk" in one.what for one in done.problems if one.fatal] == [True]
    assert not any(one.fatal for one in to_kvm(kvm(disks=twice)).problems)
    assert not any(one.fatal for one in to_kvm(vmware(disks=disks), storage=(("[a]", "/srv/a"), ("[b]", "/srv/b"))).problems)


def test_a_datastore_in_a_vmx_is_a_path() -> None:
    done = to_esxi(kvm(disks=(replace(DISK, path="/var/lib/libvirt/images/x.vmdk", format="vmdk"),)),
                   storage=(("/var/lib/libvirt/images", "[ds2]"),))
    assert done.machine.disks[0].path == "/vmfs/volumes/ds2/x.vmdk"


def test_converted_files_are_named() -> None:
    placed = (PlacedFile("[ds] m/x.vmdk", "/kvm/x.qcow2", "qcow2"),)
    disk = to_kvm(vmware(disks=(DiskSlot(path="[ds] m/x.vmdk"),)), files=placed).machine.disks[0]
    assert (disk.path, disk.format, disk.backing) == ("/kvm/x.qcow2", "qcow2", Backing.FILE)
    placed = (PlacedFile("/srv/x.qcow2", "/esxi/m/x.vmdk", "vmdk"),)
    done = to_esxi(kvm(disks=(DISK,)), files=placed, home="/esxi/m")
    assert done.machine.disks[0].path == "x.vmdk"
    assert "ESXi opens" not in told(done)


def test_libvirt_gets_whole_paths_and_formats() -> None:
    done = to_kvm(vmware(disks=(DiskSlot(path="x.vmdk"), DiskSlot(path="../y.vmdk", unit=1))), origin="/m")
    assert [disk.path for disk in done.machine.disks] == ["/m/x.vmdk", "/y.vmdk"]
    assert {disk.format for disk in done.machine.disks} == {"vmdk"}
    assert "../y.vmdk: not found" in told(done)


def test_equal_names_stay_apart_on_esxi() -> None:
    disks = (replace(DISK, path="/a/x.qcow2"), replace(DISK, path="/b/x.qcow2", unit=1))
    done = to_esxi(kvm(disks=disks))
    assert [disk.path for disk in done.machine.disks] == ["x.vmdk", "x_1.vmdk"]
    assert told(done).count("must be converted to") == 2


# -- drives


@pytest.mark.parametrize(("said", "bus"), [({"firmware": UEFI}, Bus.SATA), ({"guest_os": GuestOs(id="rhel5")}, Bus.IDE)])
def test_cdroms_on_kvm(said: dict[str, Any], bus: Bus) -> None:
    drives = (Drive(bus=Bus.SCSI, unit=4, backing=Backing.FILE, path="[ds] iso/a.iso", connected=True),
              Drive(backing=Backing.BLOCK, path="/dev/cdrom", passthrough=True, connected=True),
              Drive(backing=Backing.CLIENT, connected=False))
    done = to_kvm(vmware(drives=drives, **said), files=(PlacedFile("[ds] iso/a.iso", "/iso/a.iso"),))
    assert [(drive.bus, drive.backing, drive.path) for drive in done.machine.drives] == [
        (bus, Backing.FILE, "/iso/a.iso"), (bus, Backing.EMPTY, None), (bus, Backing.EMPTY, None)]
    assert "/dev/cdrom" in told(done)
    assert "client" not in told(done)
    gone = to_kvm(vmware(drives=drives[:1], **said))
    assert gone.machine.drives[0].backing is Backing.EMPTY
    assert "a.iso" in told(gone)


def test_floppies() -> None:
    drives = (Drive(floppy=True, bus=Bus.FLOPPY, backing=Backing.FILE, path="/f.img"), Drive(floppy=True, bus=Bus.FLOPPY),
              Drive(floppy=True, bus=Bus.FLOPPY, backing=Backing.BLOCK))
    done = to_kvm(vmware(drives=drives), files=(PlacedFile("/f.img", "/f.img"),))
    assert [drive.path for drive in done.machine.drives] == ["/f.img"]
    assert "drives" not in told(done)


def test_cdroms_on_esxi() -> None:
    done = to_esxi(kvm(drives=(Drive(bus=Bus.SATA, backing=Backing.FILE, path="/iso/a.iso"),)), storage=(("/iso", "[ds]"),))
    assert (done.machine.drives[0].bus, done.machine.drives[0].path) == (Bus.SATA, "/vmfs/volumes/ds/a.iso")
    old = to_esxi(kvm(guest_os=GuestOs(id="rhel5"), drives=(Drive(bus=Bus.SATA),)))
    assert old.machine.drives[0].bus is Bus.IDE


# -- network cards


@pytest.mark.parametrize(("model", "able", "new", "said"), [
    ("vmxnet3", (), "vmxnet3", False), ("e1000", (), "e1000", False), ("pcnet", (), "pcnet", False),
    ("vmxnet2", (), "pcnet", True), (None, (), "vmxnet3", False), ("vmxnet3", ("virtio", "vmxnet3"), "virtio", False),
    ("netfront", (), "vmxnet3", True)])
def test_cards_on_kvm(model: str | None, able: tuple[str, ...], new: str, said: bool) -> None:
    done = to_kvm(vmware(nics=(Nic(model=model, mac="00:0c:29:01:02:03", network=BR0),)),
                  capabilities=Capabilities(nic_models=able))
    assert done.machine.nics[0].model == new
    assert ("which QEMU does not have" in told(done)) is said


@pytest.mark.parametrize(("os", "model", "new", "said"), [
    ("debian12", "virtio", "vmxnet3", True), ("windows10", "virtio", "e1000e", True), ("debian12", "e1000", "e1000", False),
    ("rhel5", "rtl8139", "e1000", True)])
def test_cards_on_esxi(os: str, model: str, new: str, said: bool) -> None:
    done = to_esxi(kvm(guest_os=GuestOs(id=os), nics=(Nic(model=model, mac="52:54:00:01:02:03", network=BR0),)))
    assert done.machine.nics[0].model == new
    assert ("imgtool adapt" in told(done)) is said


def test_an_eleventh_card_is_said_to_be_lost_on_esxi() -> None:
    done = to_esxi(kvm(nics=tuple(Nic(number=number, model="e1000", mac=f"52:54:00:00:00:{number:02}") for number in range(11))))
    assert [nic.number for nic in done.machine.nics] == list(range(10))
    assert "nics[10] = 52:54:00:00:00:10: a machine of VMware has 10 network cards at most" in told(done)


def test_cards_in_the_order_of_their_numbers() -> None:
    nics = (Nic(number=10, mac="00:0c:29:00:00:0a"), Nic(number=9, mac="00:0c:29:00:00:09"))
    assert [nic.number for nic in to_kvm(vmware(nics=nics)).machine.nics] == [9, 10]


@pytest.mark.parametrize(("network", "new"), [
    (Network(kind=NetworkKind.BRIDGE, name="VM Network"), Network(kind=NetworkKind.NETWORK, name="default")),
    (Network(kind=NetworkKind.BRIDGE, name="a-name-too-long-for-linux"), Network(kind=NetworkKind.NETWORK, name="default")),
    (Network(kind=NetworkKind.BRIDGE, name="br-lan"), Network(kind=NetworkKind.BRIDGE, name="br-lan")),
    (Network(kind=NetworkKind.NAT), Network(kind=NetworkKind.NAT)),
    (Network(kind=NetworkKind.DISTRIBUTED, port_group="dvportgroup-7"), Network(kind=NetworkKind.NETWORK, name="default")),
    (Network(kind=NetworkKind.HOST_ONLY), Network(kind=NetworkKind.NETWORK, name="default")),
])
def test_networks_that_nobody_mapped(network: Network, new: Network) -> None:
    done = to_kvm(vmware(nics=(Nic(mac="00:0c:29:01:02:03", network=network),)))
    assert done.machine.nics[0].network == new
    assert ("nics[0]" in told(done)) is (network.kind is not NetworkKind.NAT)


def test_a_card_on_no_network_has_its_cable_out() -> None:
    nic = to_kvm(vmware(nics=(Nic(mac="00:0c:29:01:02:03"),))).machine.nics[0]
    assert (nic.network.name, nic.connected) == (None, False)


def test_map_network() -> None:
    rules = (("VM Network", BR0), ("vlan20", Network(kind=NetworkKind.NETWORK, name="prod")), ("off", Network()), ("typo", BR0))
    names = ("VM Network", "vlan20", "off")
    nics = tuple(Nic(number=n, mac=f"00:0c:29:00:00:0{n}", network=Network(kind=NetworkKind.BRIDGE, name=name))
                 for n, name in enumerate(names))
    done = to_kvm(vmware(nics=nics), networks=rules)
    assert [nic.network.name for nic in done.machine.nics] == ["br0", "prod", None]
    assert [nic.connected for nic in done.machine.nics] == [None, None, False]
    assert "no card of the machine is on typo" in told(done)
    assert "becomes" not in told(done)


def test_a_network_without_a_name_is_mapped_by_its_kind() -> None:
    nics = (Nic(mac="52:54:00:00:00:01", network=Network(kind=NetworkKind.NAT)), Nic(number=1, mac="52:54:00:00:00:02"))
    rules = (("nat", Network(kind=NetworkKind.BRIDGE, name="prod")), ("none", Network(kind=NetworkKind.BRIDGE, name="lab")))
    done = to_esxi(kvm(nics=nics), networks=rules)
    assert [nic.network.name for nic in done.machine.nics] == ["prod", "lab"]
    assert "no card" not in told(done)


def test_port_groups_on_esxi() -> None:
    done = to_esxi(kvm(nics=(Nic(mac="52:54:00:00:00:01", model="e1000", network=BR0),)))
    assert done.machine.nics[0].network == Network(kind=NetworkKind.BRIDGE, name="VM Network")
    assert "'br0'" in told(done)
    mapped = to_esxi(kvm(nics=(Nic(mac="52:54:00:00:00:01", model="e1000", network=BR0),)),
                     networks=(("br0", Network(kind=NetworkKind.BRIDGE, name="Production")),))
    assert mapped.machine.nics[0].network.name == "Production"
    assert not mapped.problems


@pytest.mark.parametrize(("mac", "kind", "check"), [
    ("52:54:00:01:02:03", "static", False), ("00:0c:29:01:02:03", "generated", None), ("00:50:56:3f:ff:ff", "static", None),
    ("00:50:56:40:00:00", "static", False), ("00:50:56:95:72:98", "vpx", None), ("00:50:56:c0:00:01", "static", False),
    (None, "generated", None)])
def test_how_vmware_calls_an_address(mac: str | None, kind: str, check: bool | None) -> None:
    nic = to_esxi(kvm(nics=(Nic(mac=mac, model="e1000", network=BR0),))).machine.nics[0]
    assert (nic.mac, nic.mac_kind, nic.mac_check) == (mac, kind, check)


# -- identity


def test_identity_is_kept() -> None:
    nics = (Nic(mac="00:50:56:95:72:98", mac_kind="vpx", network=BR0),)
    machine = to_kvm(vmware(uuid="u", genid="g", vc_uuid="v", nics=nics)).machine
    assert (machine.uuid, machine.genid, machine.vc_uuid) == ("u", "g", None)
    assert (machine.nics[0].mac, machine.nics[0].mac_kind) == ("00:50:56:95:72:98", None)


@pytest.mark.parametrize(("to", "pattern"), [(World.KVM, "52:54:00(:[0-9a-f]{2}){3}"),
                                             (World.ESXI, "00:50:56:[0-3][0-9a-f](:[0-9a-f]{2}){2}")])
@pytest.mark.parametrize("make", [kvm, vmware])
def test_new_identity(to: World, pattern: str, make: Any) -> None:
    nics = (Nic(mac="52:54:00:00:00:01", network=BR0), Nic(number=1, mac="00:50:56:80:00:01", mac_kind="vpx", network=BR0))
    machine = make(uuid="u", genid="g", nics=nics)
    done, again = (retarget(machine, Wishes(to=to, new_identity=True)) for _ in range(2))
    assert len({"u", done.machine.uuid, again.machine.uuid}) == 3
    assert len({"g", done.machine.genid, again.machine.genid}) == 3
    macs = [nic.mac for nic in (*done.machine.nics, *again.machine.nics)]
    assert all(re.fullmatch(pattern, str(mac)) for mac in macs)
    assert len(set(macs)) == 4
    assert "nobody asked your network" in told(done)


@pytest.mark.parametrize(("name", "new"), [
    ("a/b", "a_b"), ("..", "_"), ("  ", "machine"), ("a\nb", "a_b"), ('a"; rm -rf', 'a"; rm -rf')])
def test_names_that_libvirt_takes(name: str, new: str) -> None:
    assert to_kvm(vmware(name=name)).machine.name == new
    assert to_esxi(kvm(name=name)).machine.name == name
    assert to_kvm(vmware(name=name), name="x").machine.name == "x"


# -- the rest


def test_ports_on_kvm() -> None:
    ports = (Port(kind="file", path="/vmfs/volumes/a/b.txt"), Port(number=1, kind="tcp", path="h:1", server=True, connected=True),
             Port(number=2, kind="thinprint"), Port(number=3, kind="proxy", path="vspc"))
    done = to_kvm(vmware(serials=ports, parallels=(Port(kind="device", path="/dev/parport0"),)))
    assert done.machine.serials == (Port(kind="pty"), Port(number=1, kind="tcp", path="h:1", server=True))
    assert done.machine.parallels == ()
    assert all(word in told(done) for word in ("b.txt", "thinprint", "vspc", "/dev/parport0"))
    assert to_kvm(vmware()).machine.serials == (Port(kind="pty"),)


def test_ports_on_esxi() -> None:
    ports = (Port(kind="pty"), Port(number=1, kind="tcp", path="h:1"), Port(number=2, kind="unix", path="/run/x"))
    done = to_esxi(kvm(serials=ports))
    assert [port.kind for port in done.machine.serials] == ["tcp"]
    assert "/run/x" in told(done)
    assert "pty" not in told(done)


def test_screens() -> None:
    machine = to_kvm(vmware(videos=(Video(model="vmvga", memory=8 << 20),),
                            graphics=(Graphics(listen="0.0.0.0", port=5901, keymap="de", password=True),))).machine
    assert machine.videos == (Video(model="vga"),)
    assert machine.graphics == (Graphics(kind="vnc", listen="127.0.0.1", keymap="de"),)
    there = to_esxi(kvm(videos=(Video(model="qxl"),), graphics=(Graphics(kind="spice", password=True),))).machine
    assert (there.videos, there.graphics) == ((Video(model="vmvga"),), ())


def test_what_stays_with_the_old_host() -> None:
    said = {"passthrough": (Passthrough(kind="pci", address="0000:03:00.0"),),
            "shared_folders": (SharedFolder(path="/s", tag="s"),)}
    for done in (to_kvm(vmware(**said)), to_esxi(kvm(**said))):
        assert (done.machine.passthrough, done.machine.shared_folders) == ((), ())
        assert "0000:03:00.0" in told(done)
        assert "shared_folders[0] = /s" in told(done)


@pytest.mark.parametrize(("os", "able", "agent", "rng", "balloon"), [
    ("debian12", {}, True, "/dev/urandom", "virtio"), ("windows10", {}, None, None, "none"),
    ("windows10", {"agent": True, "rng": True, "balloon": True}, True, "/dev/urandom", "virtio")])
def test_what_a_kvm_host_adds(os: str, able: dict[str, bool], agent: bool | None, rng: str | None, balloon: str) -> None:
    tools = Tools(sync_time=True, upgrade="manual", scripts=("afterPowerOn",))
    done = to_kvm(vmware(guest_os=GuestOs(id=os), tools=tools), capabilities=Capabilities(**able))
    assert done.machine.tools == Tools(agent=agent)
    assert (done.machine.rng, done.machine.balloon, done.machine.inputs) == (rng, balloon, ("tablet",))
    assert "tools.sync_time" in told(done)


def test_what_esxi_has_not() -> None:
    done = to_esxi(kvm(watchdog=Watchdog(), rng="/dev/urandom", balloon="virtio", sounds=("ich9",), inputs=("tablet",),
                       tools=Tools(agent=True)))
    machine = done.machine
    assert (machine.watchdog, machine.rng, machine.balloon, machine.sounds, machine.inputs) == (None, None, None, (), ())
    assert machine.tools == Tools(sync_time=False, upgrade="manual",
                                  scripts=("afterPowerOn", "afterResume", "beforeSuspend", "beforePowerOff"))
    assert all(word in told(done) for word in ("watchdog = i6300esb (reset)", "rng", "sounds", "open-vm-tools"))
    assert "balloon" not in told(done)


@pytest.mark.parametrize(("sound", "new"), [("es1371", "ac97"), ("hda", "ich9"), ("sb16", "sb16")])
def test_sound_on_kvm(sound: str, new: str) -> None:
    assert to_kvm(vmware(sounds=(sound,))).machine.sounds == (new,)


# -- a machine that stays in its world


def test_a_machine_of_the_same_world_keeps_its_hardware() -> None:
    machine = kvm(cpu=Cpu(count=2, mode="host-passthrough"), disks=(replace(DISK, bus=Bus.VIRTIO),),
                  nics=(Nic(model="virtio", network=BR0),),
                  controllers=(Controller(bus=Bus.SCSI, number=3, model="virtio-scsi"),))
    assert to_kvm(machine).machine == machine
    assert not to_kvm(machine).problems
    changed = to_kvm(machine, networks=(("br0", Network(kind=NetworkKind.BRIDGE, name="br7")),), storage=(("/srv", "/new"),))
    assert changed.machine == replace(machine, disks=(replace(machine.disks[0], path="/new/x.qcow2"),),
                                      nics=(replace(machine.nics[0], network=Network(kind=NetworkKind.BRIDGE, name="br7")),))


def test_a_hardware_version_asked_for_holds_for_a_machine_that_stays() -> None:
    machine = vmware(tpm=Tpm(version="2.0"))
    assert to_esxi(machine).machine == machine
    assert to_esxi(machine, hardware_version=17).machine == replace(machine, hardware_version=17)
    assert [one.fatal for one in to_esxi(machine, hardware_version=10).problems] == [True]
    assert to_kvm(kvm(), hardware_version=17).machine == kvm()


def test_a_dump_of_libvirts_esx_driver_becomes_a_vmx() -> None:
    machine = Machine(name="m", accelerator="vmware", disks=(DiskSlot(path="[ds] m/x.vmdk"),))
    assert to_esxi(machine).machine.disks[0].path == "/vmfs/volumes/ds/m/x.vmdk"


def test_a_template_becomes_a_machine_that_starts() -> None:
    for done in (to_kvm(vmware(template=True)), to_esxi(kvm(template=True))):
        assert done.machine.template is None
        assert "--new-identity" in told(done)


def test_a_cpu_that_somebody_chose_is_kept() -> None:
    chosen = to_kvm(vmware(cpu=Cpu(mode="custom", model="Skylake-Server")))
    assert (chosen.machine.cpu.mode, chosen.machine.cpu.model) == ("custom", "Skylake-Server")
    assert to_kvm(vmware(cpu=Cpu(mode="custom")), accelerator="kvm").machine.cpu.mode == "host-model"


@pytest.mark.parametrize(("world", "most"), [(World.KVM, 48), (World.ESXI, 120)])
def test_more_drives_than_a_machine_has_places_for(world: World, most: int) -> None:
    drives = tuple(Drive(path=f"/iso/{number}.iso", bus=Bus.SATA, unit=number) for number in range(most + 2))
    done = retarget((vmware if world is World.KVM else kvm)(drives=drives), Wishes(to=world))
    assert len(done.machine.drives) == most
    assert len({(one.bus, one.controller, one.unit) for one in done.machine.drives}) == most
    assert len([one for one in done.problems if "SATA is full" in one.what and one.hint == "add a drive by hand"]) == 2


@pytest.mark.parametrize("kind", [NetworkKind.DISTRIBUTED, NetworkKind.OPAQUE, NetworkKind.NETWORK])
def test_networks_of_vmware_keep_their_name_on_esxi(kind: NetworkKind) -> None:
    """As a dump of libvirt's esx driver names them."""
    network = Network(kind=kind, name="x", switch="50 2a")
    done = to_esxi(kvm(nics=(Nic(model="e1000", network=network),))).machine.nics[0].network
    assert (done == network) == (kind is not NetworkKind.NETWORK)


@pytest.mark.parametrize(("rooms", "bus"), [(slots.ESXI, Bus.VIRTIO), (slots.ESXI, Bus.XEN), (slots.KVM, Bus.XEN)])
def test_a_bus_that_the_world_has_not_has_no_places(rooms: Any, bus: Bus) -> None:
    assert slots.Slots(rooms).take(bus) is None
