"""Machines that a ``.vmx`` can hold, for hypothesis. What the format forces is said here: a step of memory, an order of disks."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from imgtool.descriptions.guest_os import from_vmware, to_vmware
from imgtool.descriptions.guest_os_table import SYSTEMS
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
)
from imgtool.model.machine import Cpu, Firmware, FirmwareKind, Machine, Memory, Resources, Tools, Topology, Tpm

MIB = 1 << 20
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
    st.sampled_from(
        [
            'a"; rm -rf /',
            '"\nethernet9.present = "TRUE',
            "../../x",
            "|22|0A",
            "|",
            "café",
            "50%25",
            "a/b\\c",
            " x ",
            "#",
            ";",
            "=",
            '"\r\nscsi0:0.fileName = "/etc/shadow',
            "\x1b[2J",
            "\u2028",
            "\x85",
            "'",
            "''",
            "\t",
            "百度",
            "|C3|A9",
        ]
    ),
)
MAYBE = st.none() | st.booleans()
HEX = "0123456789abcdef"
UUIDS = st.uuids().map(str)


def _place(bus: Bus) -> st.SearchStrategy[tuple[Bus, int, int]]:
    controllers, units = {Bus.SCSI: (4, 64), Bus.SATA: (4, 30), Bus.NVME: (4, 64), Bus.IDE: (2, 2)}[bus]
    numbers = st.integers(0, units - 1).filter(lambda unit: bus is not Bus.SCSI or unit != 7)
    return st.tuples(st.just(bus), st.integers(0, controllers - 1), numbers)


PLACES = st.lists(st.sampled_from([Bus.SCSI, Bus.SATA, Bus.NVME, Bus.IDE]).flatmap(_place), unique=True, max_size=6)
ORDER = [Bus.SCSI, Bus.SATA, Bus.NVME, Bus.IDE]


@st.composite
def disk(draw: st.DrawFn, place: tuple[Bus, int, int], rank: int | None) -> DiskSlot:
    bus, controller, unit = place
    rdm = draw(st.sampled_from([None, "device", "virtual", "physical"]))
    end = {"virtual": "-rdm.vmdk", "physical": "-rdmp.vmdk"}.get(rdm or "", ".vmdk")
    return DiskSlot(
        bus=bus,
        controller=controller,
        unit=unit,
        path=draw(TEXT) + end,
        format="vmdk",
        rdm=rdm,
        boot_order=rank,
        shared=draw(MAYBE),
        mode=draw(st.none() | st.sampled_from(DiskMode)),
        cache=draw(st.none() | st.just("writethrough")),
        change_tracking=draw(MAYBE),
        io_limit=draw(st.none() | st.integers(0, 9999)),
        shares=draw(st.none() | st.integers(0, 4000)),
    )


@st.composite
def cdrom(draw: st.DrawFn, place: tuple[Bus, int, int]) -> Drive:
    bus, controller, unit = place
    backing = draw(st.sampled_from([Backing.FILE, Backing.BLOCK, Backing.CLIENT, Backing.EMPTY]))
    path = draw(TEXT) if backing is Backing.FILE else draw(st.none() | TEXT) if backing is Backing.BLOCK else None
    through = None if backing is Backing.FILE else draw(st.sampled_from([None, True]))
    return Drive(
        bus=bus, controller=controller, unit=unit, backing=backing, path=path, passthrough=through, connected=draw(MAYBE)
    )


@st.composite
def floppy(draw: st.DrawFn, unit: int) -> Drive:
    backing = draw(st.sampled_from([Backing.FILE, Backing.BLOCK, Backing.CLIENT, Backing.EMPTY]))
    path = draw(TEXT) if backing is Backing.FILE else draw(st.none() | TEXT) if backing is Backing.BLOCK else None
    return Drive(floppy=True, bus=Bus.FLOPPY, unit=unit, backing=backing, path=path, connected=draw(MAYBE))


@st.composite
def network(draw: st.DrawFn) -> Network:
    kind = draw(
        st.sampled_from(
            [
                NetworkKind.BRIDGE,
                NetworkKind.NAT,
                NetworkKind.HOST_ONLY,
                NetworkKind.DISTRIBUTED,
                NetworkKind.OPAQUE,
                NetworkKind.CUSTOM,
                NetworkKind.NONE,
            ]
        )
    )
    name = draw(st.none() | TEXT)
    if kind is NetworkKind.DISTRIBUTED:
        return Network(
            kind=kind,
            name=name,
            switch=draw(TEXT),
            port=draw(st.none() | TEXT),
            port_group=draw(st.none() | TEXT),
            connection=draw(st.none() | TEXT),
        )
    if kind is NetworkKind.OPAQUE:
        return Network(kind=kind, name=name, switch=draw(TEXT), port=draw(st.none() | TEXT))
    device = draw(st.none() | TEXT | TEXT.map(lambda text: f"pvn:{text}")) if kind is NetworkKind.CUSTOM else None
    return Network(kind=kind, name=name, device=device)


@st.composite
def nic(draw: st.DrawFn, number: int, rank: int | None) -> Nic:
    mac = draw(
        st.none() | st.text(HEX, min_size=12, max_size=12).map(lambda text: ":".join(text[at : at + 2] for at in range(0, 12, 2)))
    )
    kind = draw(st.sampled_from(["static", "generated", "vpx"])) if mac else "generated"
    check = draw(st.booleans()) if kind == "static" else draw(MAYBE)
    return Nic(
        number=number,
        mac=mac,
        mac_kind=kind,
        mac_check=check,
        network=draw(network()),
        connected=draw(MAYBE),
        boot_order=rank,
        wake_on_lan=draw(MAYBE),
        model=draw(st.sampled_from([None, "vmxnet3", "vmxnet2", "vmxnet", "pcnet", "e1000", "e1000e"])),
    )


@st.composite
def serial(draw: st.DrawFn, number: int) -> Port:
    kind = draw(st.sampled_from(["device", "file", "pipe", "tcp", "telnet", "tls", "thinprint", "proxy"]))
    path = draw(TEXT if kind in {"file", "pipe", "tcp", "telnet", "tls"} else st.none() | TEXT)
    server = draw(st.booleans()) if kind in {"tcp", "telnet", "tls"} else draw(MAYBE) if kind in {"pipe", "proxy"} else None
    return Port(number=number, kind=kind, path=path, server=server, connected=draw(MAYBE))


@st.composite
def parallel(draw: st.DrawFn, number: int) -> Port:
    kind = draw(st.sampled_from(["device", "file"]))
    return Port(number=number, kind=kind, path=draw(TEXT if kind == "file" else st.none() | TEXT), connected=draw(MAYBE))


@st.composite
def storage(draw: st.DrawFn) -> dict[str, tuple[Any, ...]]:
    places = sorted(draw(PLACES), key=lambda place: (ORDER.index(place[0]), *place[1:]))
    hard = [draw(st.booleans()) for _ in places]
    order = draw(st.permutations(range(1, sum(hard) + 1)) | st.just([None] * sum(hard)))
    ranks = iter(order)
    disks = tuple(draw(disk(place, next(ranks))) for place, is_disk in zip(places, hard, strict=True) if is_disk)
    drives = tuple(draw(cdrom(place)) for place, is_disk in zip(places, hard, strict=True) if not is_disk)
    numbers = sorted({place[:2] for place in places if place[0] is not Bus.IDE}, key=lambda pair: (ORDER.index(pair[0]), pair[1]))
    models = {Bus.SCSI: [None, "pvscsi", "lsilogic", "lsisas1068", "buslogic"], Bus.SATA: [None, "ahci"], Bus.NVME: [None]}
    controllers = tuple(
        Controller(
            bus=bus,
            number=number,
            model=draw(st.sampled_from(models[bus])),
            shared=draw(st.sampled_from([None, "virtual", "physical"])),
        )
        for bus, number in numbers
    )
    floppies = tuple(draw(floppy(unit)) for unit in range(draw(st.integers(0, 2))))
    return {"controllers": controllers, "disks": disks, "drives": drives + floppies}


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A machine that uses only what a ``.vmx`` holds, in the order in which it is read."""
    count, each = draw(st.integers(1, 8)), draw(st.none() | st.integers(1, 4))
    version = draw(st.integers(4, 21))
    numbers = sorted(draw(st.sets(st.integers(0, 12), max_size=3)))
    kinds = tuple(draw(st.permutations(["disk", "cdrom", "floppy", "network"])))[: draw(st.integers(0, 4))]
    hung = draw(storage())
    if any(disk.boot_order for disk in hung["disks"]) and not kinds:
        kinds = ("disk",)
    order = list(draw(st.permutations(range(1, len(numbers) + 1)))) if "network" in kinds else [None] * len(numbers)
    ports = range(draw(st.integers(0, 3)))
    return Machine(
        name=draw(TEXT),
        uuid=draw(st.none() | UUIDS),
        vc_uuid=draw(st.none() | UUIDS),
        genid=draw(st.none() | UUIDS),
        description=draw(st.none() | TEXT),
        hardware_version=version,
        guest_os=draw(systems(version)),
        boot=kinds,
        cpu=Cpu(
            count=count * (each or 1),
            topology=Topology(sockets=count, cores=each) if each else None,
            hot_add=draw(MAYBE),
            hot_remove=draw(MAYBE),
            nested=draw(MAYBE),
        ),
        memory=Memory(size=draw(st.integers(1, 1 << 16)) * 4 * MIB, hot_add=draw(MAYBE), huge_pages=draw(MAYBE)),
        firmware=Firmware(kind=draw(st.sampled_from(FirmwareKind)), secure_boot=draw(MAYBE), nvram=draw(st.none() | TEXT)),
        tpm=draw(st.none() | st.just(Tpm(version="2.0"))),
        **hung,
        nics=tuple(draw(nic(number, rank)) for number, rank in zip(numbers, order, strict=True)),
        serials=tuple(draw(serial(number)) for number in ports),
        parallels=tuple(draw(parallel(number)) for number in ports),
        **draw(peripherals()),
        resources=draw(resources()),
        tools=Tools(sync_time=draw(MAYBE), upgrade=draw(st.none() | TEXT), scripts=draw(scripts())),
    )


@st.composite
def systems(draw: st.DrawFn, version: int):
    os = from_vmware(
        draw(st.sampled_from([api for row in SYSTEMS.values() for api in row.api if api] + ["vmkernel7", "asianux8-64"]))
    )
    return from_vmware(to_vmware(os, version))


def scripts() -> st.SearchStrategy[tuple[str, ...]]:
    names = ("afterPowerOn", "afterResume", "beforeSuspend", "beforePowerOff")
    return st.sets(st.sampled_from(names)).map(lambda chosen: tuple(name for name in names if name in chosen))


@st.composite
def peripherals(draw: st.DrawFn) -> dict[str, object]:
    video = st.builds(
        Video,
        model=st.just("vmvga"),
        memory=st.none() | st.integers(1, 1 << 30),
        heads=st.none() | st.integers(1, 8),
        accelerated=st.none() | st.just(True),
    )
    console = st.builds(
        Graphics, kind=st.just("vnc"), listen=st.none() | TEXT, port=st.none() | st.integers(5900, 5964), keymap=st.none() | TEXT
    )
    pci = st.builds(lambda bus: Passthrough(kind="pci", address=f"0000:{bus:02x}:1f.7"), st.integers(0, 255))
    vgpu = st.builds(Passthrough, kind=st.just("vgpu"), name=TEXT)
    usb = st.builds(lambda number: Passthrough(kind="usb", address=f"046d:{number:04x}"), st.integers(0, 65535))
    return {
        "videos": tuple(draw(st.lists(video | st.just(Video(model="none")), max_size=1))),
        "graphics": tuple(draw(st.lists(console, max_size=1))),
        "sounds": tuple(draw(st.lists(st.sampled_from(["hda", "es1371", "sb16"]), max_size=1))),
        "usb": tuple(name for name in ("uhci", "ehci", "xhci") if draw(st.booleans())),
        "inputs": tuple(name for name in ("mouse", "keyboard") if draw(st.booleans())),
        "passthrough": (*draw(st.lists(pci | vgpu, max_size=2)), *draw(st.lists(usb, max_size=2))),
        "shared_folders": tuple(draw(st.lists(st.builds(SharedFolder, path=TEXT, tag=TEXT, read_only=MAYBE), max_size=2))),
    }


def resources() -> st.SearchStrategy[Resources]:
    some = st.none() | st.integers(1, 100_000)
    megabytes = st.none() | st.integers(1, 1 << 20).map(lambda number: number * MIB)
    return st.builds(
        Resources,
        cpu_shares=some,
        cpu_reservation=some,
        cpu_limit=some,
        memory_shares=some,
        memory_reservation=megabytes,
        memory_limit=megabytes,
        cpu_affinity=st.lists(st.integers(0, 63), max_size=4, unique=True).map(tuple),
    )
