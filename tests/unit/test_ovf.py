"""OVF: what is written is read again, for every machine that an OVF can hold; what it cannot hold is said."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.descriptions import ovf
from imgtool.descriptions.guest_os import from_vmware, to_vmware_api
from imgtool.model.devices import (
    Backing,
    Bus,
    Controller,
    DiskSlot,
    Drive,
    Network,
    NetworkKind,
    Nic,
    Port,
    Video,
)
from imgtool.model.machine import (
    Cpu,
    Firmware,
    FirmwareKind,
    Machine,
    Memory,
    Resources,
    Tools,
    Topology,
    Tpm,
)

MIB = 1 << 20
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF), min_size=1, max_size=12).filter(str.strip)
PLAIN = st.text("abcXYZ0189 ._-äß'\"<&>", min_size=1, max_size=12).map(str.strip).filter(lambda text: text and "://" not in text)
FLAG = st.none() | st.booleans()
COUNT = st.none() | st.integers(0, 1 << 40)
HARDWARE = [None, 4, 7, 13, 21]
SYSTEMS = {hardware: [os for word in ("debian12-64", "rhel8-64", "windows2019srv-64", "windows9", "other-64", "ubuntu", "rhel4")
                      if (os := from_vmware(word)) == from_vmware(to_vmware_api(os, hardware))] for hardware in HARDWARE}
"""What a host of a hardware version has a word for."""


def unique(items: st.SearchStrategy, key: object, most: int = 4) -> st.SearchStrategy:
    return st.lists(items, unique_by=key, max_size=most).map(tuple)  # type: ignore[arg-type]


CONTROLLERS = unique(st.one_of(
    st.builds(Controller, bus=st.just(Bus.SCSI), number=st.integers(0, 3),
              model=st.sampled_from([None, "pvscsi", "lsilogic", "lsisas1068", "buslogic", "virtio-scsi"])),
    st.builds(Controller, bus=st.just(Bus.SATA), number=st.integers(0, 3), model=st.sampled_from([None, "ahci"])),
    st.builds(Controller, bus=st.just(Bus.IDE), number=st.integers(0, 1), model=st.sampled_from([None, "piix4"])),
    st.builds(Controller, bus=st.sampled_from([Bus.NVME, Bus.USB, Bus.VIRTIO]), number=st.integers(0, 3))),
    lambda one: (one.bus, one.number))


@st.composite
def storages(draw: st.DrawFn) -> dict[str, object]:
    """Controllers, and what is plugged into them: each place once."""
    controllers = draw(CONTROLLERS)
    free = st.tuples(st.sampled_from(controllers), st.integers(0, 14)) if controllers else st.nothing()
    places = draw(st.lists(free, unique=True, max_size=5 if controllers else 0))
    disks, drives = [], []
    for controller, unit in places:
        at = {"bus": controller.bus, "controller": controller.number, "unit": unit}
        if draw(st.booleans()):
            disks.append(draw(st.builds(
                DiskSlot, path=PLAIN, format=st.sampled_from([None, "vmdk", "qcow2", "vpc"]), capacity=COUNT, populated=COUNT,
                **{key: st.just(value) for key, value in at.items()})))  # type: ignore[arg-type]
        else:
            drives.append(Drive(**at, **draw(BACKED), connected=draw(FLAG)))  # type: ignore[arg-type]
    if draw(st.booleans()):
        backing = draw(st.sampled_from([{}, {"backing": Backing.FILE, "path": "boot.flp"}, {"backing": Backing.CLIENT}]))
        drives.append(Drive(floppy=True, bus=Bus.FLOPPY, **backing))  # type: ignore[arg-type]
    return {"controllers": controllers, "disks": tuple(disks), "drives": tuple(drives)}


BACKED = st.one_of(
    st.just({}), st.fixed_dictionaries({"backing": st.just(Backing.FILE), "path": PLAIN}),
    st.fixed_dictionaries({"backing": st.just(Backing.BLOCK), "path": st.none() | st.just("/dev/cdrom"),
                           "passthrough": st.sampled_from([None, True])}),
    st.fixed_dictionaries({"backing": st.just(Backing.CLIENT), "passthrough": st.sampled_from([None, True])}))
NETWORKS = st.one_of(
    st.just(Network()), st.just(Network(kind=NetworkKind.NAT)), st.just(Network(kind=NetworkKind.HOST_ONLY)),
    st.builds(Network, kind=st.just(NetworkKind.BRIDGE), name=PLAIN.filter(lambda name: "nat" not in name.lower())))
CARDS = st.sampled_from([None, "pcnet", "e1000", "e1000e", "vmxnet", "vmxnet2", "vmxnet3", "virtio", "rtl8139"])
MACS = st.none() | st.integers(0, (1 << 48) - 1).map(lambda value: ":".join(re.findall("..", f"{value:012x}")))
NICS = unique(st.builds(Nic, number=st.integers(0, 9), model=CARDS, mac=MACS, network=NETWORKS, connected=FLAG, wake_on_lan=FLAG),
              lambda nic: nic.number).map(lambda nics: tuple(sorted(nics, key=lambda nic: nic.number)))
PORT = st.builds(Port, kind=st.sampled_from(["device", "file", "pipe"]), path=st.none() | PLAIN, connected=FLAG)
PORTS = st.lists(PORT, max_size=2).map(lambda ports: tuple(replace(port, number=at) for at, port in enumerate(ports)))
VIDEO_MEMORY = st.none() | st.integers(1, 4096).map(lambda count: count * 1024)
VIDEOS = st.lists(st.builds(Video, model=st.sampled_from(["vmvga", "vga"]), heads=st.none() | st.integers(1, 8), accelerated=FLAG,
                            memory=VIDEO_MEMORY), max_size=2).map(tuple)
SCRIPTS = ("afterPowerOn", "afterResume", "beforeSuspend", "beforePowerOff")
MEBIBYTES = st.integers(0, 1 << 20).map(lambda count: count * MIB)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Any machine that uses only fields that an OVF holds, as it holds them: memory in MiB."""
    sockets, cores = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    hardware = draw(st.sampled_from(HARDWARE))
    scripts = draw(st.sets(st.sampled_from(SCRIPTS)))
    maybe = st.none() | st.integers(0, 1 << 20).map(lambda count: count * MIB)
    return Machine(
        name=draw(TEXT), description=draw(st.none() | TEXT), **draw(storages()),  # type: ignore[arg-type]
        guest_os=replace(draw(st.sampled_from(SYSTEMS[hardware])), release=draw(st.sampled_from([None, "8.6"]))),
        cpu=Cpu(count=sockets * cores, topology=draw(st.sampled_from([None, Topology(sockets=sockets, cores=cores)])),
                hot_add=draw(FLAG), hot_remove=draw(FLAG), nested=draw(FLAG)),
        memory=Memory(size=draw(MEBIBYTES), hot_add=draw(FLAG)), nics=draw(NICS),
        firmware=Firmware(kind=draw(st.sampled_from(FirmwareKind)), secure_boot=draw(FLAG)),
        tpm=draw(st.sampled_from([None, Tpm(version="2.0")])), hardware_version=hardware,
        serials=draw(PORTS), parallels=draw(PORTS),
        videos=draw(VIDEOS),
        sounds=tuple(draw(st.lists(st.sampled_from(["hda", "es1371", "sb16", "ac97"]), max_size=2))),
        usb=tuple(draw(st.lists(st.sampled_from(["uhci", "ehci", "xhci"]), max_size=2))),
        tools=Tools(sync_time=draw(FLAG), upgrade=draw(st.sampled_from([None, "manual"])),
                    scripts=tuple(one for one in SCRIPTS if one in scripts)),
        boot=tuple(draw(st.lists(st.sampled_from(["disk", "cdrom", "network", "floppy"]), unique=True))),
        resources=Resources(cpu_shares=draw(COUNT), cpu_reservation=draw(COUNT), cpu_limit=draw(COUNT), memory_shares=draw(COUNT),
                            memory_reservation=draw(maybe), memory_limit=draw(maybe)))


@given(machines())
@settings(deadline=None, max_examples=80)
def test_what_is_written_is_read(machine: Machine) -> None:
    rendered = ovf.render(machine)
    parsed = ovf.parse(rendered.text)
    assert parsed.machine == machine
    assert [one for one in rendered.problems if "how large it is" not in one.what] == []


@given(machines(), machines())
@settings(deadline=None, max_examples=80)
def test_a_machine_is_written_into_another(before: Machine, after: Machine) -> None:
    kept = ovf.render(after, onto=ovf.render(before).text)
    assert in_order(ovf.parse(kept.text).machine) == in_order(after)


def in_order(machine: Machine) -> Machine:
    """By their places: what is there keeps its own order."""
    return replace(machine, controllers=tuple(sorted(machine.controllers, key=lambda one: (one.bus, one.number))),
                   **{kind: tuple(sorted(getattr(machine, kind), key=lambda one: (one.bus, one.controller, one.unit)))
                      for kind in ("disks", "drives")})
