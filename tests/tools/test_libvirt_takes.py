"""libvirt itself takes what we write: by its schema, by its QEMU driver, and as a command line of QEMU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imgtool.descriptions.domain_xml import render
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
from imgtool.model.machine import (
    Clock,
    Cpu,
    CpuFeature,
    Firmware,
    FirmwareKind,
    GuestOs,
    Machine,
    Memory,
    Resources,
    Timer,
    Tools,
    Topology,
    Tpm,
)
from tests.libvirt import DEFINE, refusals

IMAGES = "/var/lib/libvirt/images"
BRIDGE = Network(kind=NetworkKind.BRIDGE, name="br0")
UEFI = Firmware(kind=FirmwareKind.UEFI)
PLAIN = Machine(name="plain", accelerator="qemu", chipset="q35", memory=Memory(size=1 << 30), cpu=Cpu(mode="maximum"))
SMALL = replace(PLAIN, name="i440fx", chipset="i440fx")


def disk(number: int, bus: Bus, controller: int = 0, **said: object) -> DiskSlot:
    return DiskSlot(
        **{
            "path": f"{IMAGES}/{bus}-{controller}-{number}.qcow2",
            "format": "qcow2",
            "bus": bus,
            "controller": controller,
            "unit": number,
            **said,
        }
    )


def scsi(model: str) -> Machine:
    """Nine disks of which the last is beyond unit 7, which is a controller's own on old hardware."""
    return replace(
        PLAIN,
        name=f"on {model}",
        controllers=(Controller(bus=Bus.SCSI, model=model),),
        disks=tuple(disk(unit, Bus.SCSI, wwn=f"5000c50015ea71{unit:02x}") for unit in (0, 1, 6)),
    )


WINDOWS = replace(
    PLAIN,
    name="Windows Server 2022 \"<&>' ' é",
    guest_os=GuestOs(id="windows2022"),
    uuid="825fcb99-1ebc-4d06-9ba5-3c5c28dd4bd4",
    genid="825fcb99-1ebc-4d06-9ba5-3c5c28dd4bd5",
    description="two\nlines\tof \"<&>'",
    firmware=Firmware(kind=FirmwareKind.UEFI, secure_boot=True),
    disks=(disk(0, Bus.SATA, boot_order=1),),
    drives=(Drive(bus=Bus.SATA, unit=1, boot_order=2),),
    nics=(Nic(model="e1000e", network=BRIDGE, mac="00:50:56:95:72:98"),),
    cpu=Cpu(count=4, mode="maximum", topology=Topology(sockets=1, cores=2, threads=2)),
    videos=(Video(model="qxl", memory=64 << 20, heads=1),),
    graphics=(Graphics(kind="spice", listen="127.0.0.1"),),
    inputs=("tablet",),
    usb=("xhci",),
    sounds=("hda",),
    balloon="none",
    tools=Tools(agent=True),
    clock=Clock(
        offset="localtime",
        timers=(
            Timer(name="rtc", policy="catchup"),
            Timer(name="pit", policy="delay"),
            Timer(name="hpet", present=False),
            Timer(name="hypervclock", present=True),
        ),
    ),
)
EVERYTHING = replace(
    PLAIN,
    name="everything",
    cpu=Cpu(
        count=4,
        maximum=16,
        mode="custom",
        model="Westmere",
        features=(CpuFeature(name="aes"), CpuFeature(name="vmx", policy="disable")),
        topology=Topology(sockets=16, cores=1),
    ),
    memory=Memory(size=8 << 30, current=6 << 30, maximum=32 << 30, slots=16),
    resources=Resources(cpu_shares=2000, cpu_affinity=(0, 1, 3), memory_limit=16 << 30),
    boot=("disk", "cdrom", "network"),
    boot_menu=True,
    controllers=(
        Controller(bus=Bus.SCSI, model="virtio-scsi"),
        Controller(bus=Bus.SCSI, number=1, model="pvscsi"),
        Controller(bus=Bus.SATA),
    ),
    disks=(
        disk(0, Bus.VIRTIO, cache="none", discard="unmap", serial="WD-1", io_limit=500),
        disk(1, Bus.VIRTIO, mode=DiskMode.INDEPENDENT),
        disk(0, Bus.SCSI, path="/dev/sdz", backing=Backing.BLOCK, format="raw", rdm="physical"),
        disk(1, Bus.SCSI, shared=True, format="raw"),
        disk(2, Bus.SCSI, path="rbd://ceph:6789/pool/image", backing=Backing.NETWORK, format="raw"),
        disk(3, Bus.SCSI, path="iscsi://[2001:db8::1]:3260/iqn.2024-01.test:x/1", backing=Backing.NETWORK, format="raw"),
        disk(30, Bus.SCSI, read_only=True),
        disk(2, Bus.SCSI, 1),
        disk(0, Bus.SATA, mode=DiskMode.NONPERSISTENT),
        disk(0, Bus.USB),
    ),
    drives=(
        Drive(bus=Bus.SATA, unit=1, backing=Backing.FILE, path=f"{IMAGES}/x.iso"),
        Drive(bus=Bus.SATA, unit=2, backing=Backing.BLOCK, path="/dev/sr0"),
        Drive(bus=Bus.FLOPPY, floppy=True, backing=Backing.FILE, path=f"{IMAGES}/x.img"),
    ),
    nics=(
        Nic(model="virtio", network=replace(BRIDGE, vlan=7, virtual_port="openvswitch"), mtu=9000, limit=80_000_000),
        Nic(number=1, model="vmxnet3", network=Network(kind=NetworkKind.NETWORK, name="prod", port_group="web"), connected=False),
        Nic(number=2, model="pcnet", network=Network(kind=NetworkKind.DIRECT, name="eno1"), connected=True),
        Nic(number=3, model="rtl8139", network=Network(kind=NetworkKind.NAT)),
        Nic(number=4, model="e1000", network=Network(kind=NetworkKind.CUSTOM, device="tap7")),
    ),
    serials=(
        Port(kind="pty"),
        Port(number=1, kind="tcp", path="127.0.0.1:4555", server=True),
        Port(number=2, kind="file", path="/tmp/a"),
        Port(number=3, kind="unix", path="/tmp/s", server=True),
    ),
    parallels=(Port(kind="device", path="/dev/parport0"),),
    videos=(Video(model="vga", memory=16 << 20), Video(model="virtio", heads=2)),
    graphics=(Graphics(kind="vnc", listen="127.0.0.1", port=5907, keymap="de"),),
    usb=("ehci",),
    inputs=("tablet", "keyboard"),
    sounds=("ac97", "es1371", "sb16", "hda", "usb"),
    watchdog=Watchdog(action="poweroff"),
    rng="/dev/urandom",
    balloon="virtio",
    shared_folders=(SharedFolder(path="/srv/share", tag="share", read_only=True),),
)
DRIVES = tuple(Drive(bus=Bus.IDE, controller=channel, unit=unit) for channel in (0, 1) for unit in (0, 1))
MACHINES = (
    PLAIN,
    SMALL,
    WINDOWS,
    EVERYTHING,
    *map(scsi, ("pvscsi", "lsilogic", "lsisas1068", "lsisas1078", "virtio-scsi")),
    replace(
        SMALL,
        name="ide",
        disks=(disk(0, Bus.IDE), disk(1, Bus.IDE, 1)),
        drives=DRIVES[1:3],
        guest_os=GuestOs(id="windowsxp", arch="i686"),
        usb=("uhci",),
        sounds=("hda",),
    ),
    replace(PLAIN, name="uefi", firmware=UEFI, nics=(Nic(network=BRIDGE, boot_order=1),)),
    replace(PLAIN, name="no secure boot", firmware=replace(UEFI, secure_boot=False), guest_os=GuestOs(id="debian12")),
    replace(PLAIN, name="random", rng="builtin", tools=Tools(agent=True), guest_os=GuestOs(id="rhel8", release="8.6")),
    replace(
        PLAIN,
        name="sata",
        disks=tuple(disk(unit, Bus.SATA, number) for number in (0, 1) for unit in range(6)),
        controllers=(Controller(bus=Bus.SATA), Controller(bus=Bus.SATA, number=1)),
    ),
    replace(PLAIN, name="thirty", disks=tuple(disk(unit, Bus.VIRTIO) for unit in range(28))),
    replace(PLAIN, name="no devices", cpu=Cpu(), chipset=None, usb=(), balloon=None),
    replace(
        PLAIN,
        name="port",
        serials=(
            Port(kind="telnet", path="0.0.0.0:23", server=True),
            Port(number=1, kind="udp", path="::1:514", server=False),
            Port(number=2, kind="null"),
        ),
    ),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libvirt asks QEMU once what it can do, and keeps the answer there."""
    return tmp_path_factory.mktemp("libvirt")


def test_libvirt_takes_them(place: Path) -> None:
    rendered = {f"{number}.xml": render(machine) for number, machine in enumerate(MACHINES)}
    assert [one.problems for one in rendered.values()] == [()] * len(MACHINES)
    assert refusals({name: one.text for name, one in rendered.items()}, place) == {}


def test_what_needs_more_of_a_host_can_be_defined(place: Path) -> None:
    """The command line would ask for the host's storage driver, devices and huge pages; a TPM for swtpm, KVM for /dev/kvm."""
    passed = (
        Passthrough(kind="pci", address="0000:03:00.0"),
        Passthrough(kind="usb", address="046d:c52b"),
        Passthrough(kind="scsi", address="scsi_host2:0:1:3"),
        Passthrough(kind="mdev", address="825fcb99-1ebc-4d06-9ba5-3c5c28dd4bd4"),
    )
    more = replace(
        PLAIN,
        name="more",
        disks=(disk(0, Bus.VIRTIO, path="pool/volume", backing=Backing.VOLUME, format="raw"),),
        memory=Memory(size=1 << 30, huge_pages=True),
        passthrough=passed,
    )
    assert refusals({"more.xml": render(more).text}, place, commands=[DEFINE]) == {}
    kvm = replace(more, accelerator="kvm", tpm=Tpm(version="2.0", model="tpm-crb"), cpu=Cpu(mode="host-model"))
    assert refusals({"kvm.xml": render(kvm).text}, place, commands=[]) == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (replace(PLAIN, name="a", chipset="pc-0.1"), "machine type"),
        (replace(PLAIN, name="b", disks=(disk(0, Bus.IDE),)), "IDE"),
        (replace(PLAIN, name="c", cpu=Cpu(mode="host-passthrough")), "host-passthrough"),
        (replace(PLAIN, name="d", sounds=("kazoo",)), "fails to validate"),
    ],
)
def test_what_it_does_not_take_is_said(wrong: Machine, words: str, place: Path) -> None:
    """The check can fail: at the schema, at define, and at the command line."""
    assert words in refusals({"x.xml": render(wrong).text}, place)["x.xml"]
