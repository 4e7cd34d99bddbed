"""Any machine that a domain XML can hold: hypothesis strategies."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from imgtool.descriptions.domain_xml.elements import FORBIDDEN
from imgtool.descriptions.domain_xml.words import NETWORKS
from imgtool.descriptions.guest_os import from_osinfo, to_osinfo
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

ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: not FORBIDDEN.search(text))
"""Anything that XML can hold, quotes, angle brackets and line ends among it."""
WORD = ANY.map(str.strip).filter(bool)
"""The same without blanks around it: those of attributes and names are not kept."""
NAME = WORD.map(lambda text: " ".join(text.replace("/", "").split())).filter(bool)
MAYBE = st.none() | st.booleans()
FLAG = st.none() | st.just(value=True)
UUIDS = st.uuids().map(str)
SMALL = st.integers(1, 1000)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


SYSTEM = st.sampled_from(
    [
        system
        for system in (GuestOs(id=name) for name in SYSTEMS)
        if from_osinfo(to_osinfo(system) or "x") == system or system == GuestOs()
    ]
)
"""Those that libosinfo has a name for."""


@st.composite
def cpus(draw: st.DrawFn) -> Cpu:
    count = draw(st.integers(1, 64))
    maximum = draw(maybe(st.integers(count + 1, 128)))
    topology = draw(
        st.sampled_from(
            [None, Topology(sockets=maximum or count, cores=1), Topology(sockets=1, cores=1, threads=1, dies=maximum or count)]
        )
    )
    mode = draw(st.sampled_from([None, "host-model", "host-passthrough", "maximum", "custom"]))
    return Cpu(
        count=count,
        maximum=maximum,
        topology=topology,
        mode=mode,
        model="Westmere" if mode == "custom" else None,
        features=tuple(
            draw(st.lists(st.builds(CpuFeature, name=WORD, policy=st.sampled_from(["require", "disable"])), max_size=2))
        ),
    )


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    size = draw(st.integers(1, 1 << 42))
    maximum = draw(maybe(st.integers(size, 1 << 43)))
    return Memory(
        size=size,
        current=draw(maybe(st.integers(0, size - 1))),
        maximum=maximum,
        slots=None if maximum is None else draw(st.integers(1, 64)),
        huge_pages=draw(FLAG),
    )


FIRMWARE = st.just(Firmware()) | st.builds(Firmware, kind=st.just(FirmwareKind.UEFI), secure_boot=MAYBE)
PATHS = {
    Backing.FILE: WORD,
    Backing.BLOCK: WORD,
    Backing.VOLUME: st.tuples(WORD.map(lambda text: text.replace("/", "") or "p"), WORD).map("/".join),
    Backing.NETWORK: st.tuples(
        st.sampled_from(["rbd", "iscsi", "nbd", "https"]), st.sampled_from(["", "ceph", "10.0.0.1:3260", "[::1]:80"]), WORD
    ).map(lambda parts: f"{parts[0]}://{parts[1]}/{parts[2]}"),
}
BACKINGS = st.sampled_from(list(PATHS))


@st.composite
def disks(draw: st.DrawFn) -> DiskSlot:
    backing = draw(BACKINGS)
    return DiskSlot(
        path=draw(PATHS[backing]),
        backing=backing,
        format=draw(st.sampled_from(["raw", "qcow2", "vmdk"])),
        mode=draw(st.sampled_from([None, DiskMode.INDEPENDENT, DiskMode.NONPERSISTENT])),
        cache=draw(maybe(st.just("none"))),
        discard=draw(maybe(st.just("unmap"))),
        shared=draw(FLAG),
        read_only=draw(FLAG),
        rdm=draw(maybe(st.just("physical"))) if backing in (Backing.BLOCK, Backing.NETWORK) else None,
        serial=draw(maybe(WORD)),
        wwn=draw(maybe(WORD)),
        io_limit=draw(maybe(SMALL)),
    )


@st.composite
def drives(draw: st.DrawFn) -> Drive:
    backing = draw(st.sampled_from([Backing.EMPTY, *PATHS]))
    return Drive(backing=backing, path=draw(PATHS[backing]) if backing is not Backing.EMPTY else None)


NETWORK = (
    st.builds(
        Network,
        kind=st.sampled_from(
            [
                kind
                for kind in NETWORKS.values()
                if kind not in (NetworkKind.NONE, NetworkKind.DISTRIBUTED, NetworkKind.NAT, NetworkKind.CUSTOM)
            ]
        ),
        name=WORD,
        port_group=maybe(WORD),
        vlan=maybe(st.integers(0, 4095)),
        virtual_port=maybe(st.just("openvswitch")),
        device=maybe(st.just("tap7")),
    )
    | st.just(Network(kind=NetworkKind.NAT))
    | st.just(Network(kind=NetworkKind.CUSTOM, device="tap8"))
)
NIC = st.builds(
    Nic,
    model=maybe(st.sampled_from(["virtio", "e1000", "vmxnet3", "pcnet"])),
    mac=maybe(st.just("52:54:00:00:00:01")),
    network=NETWORK,
    connected=MAYBE,
    mtu=maybe(SMALL),
    limit=maybe(SMALL.map(lambda number: number * 8000)),
)
PORT = (
    st.sampled_from(["pty", "null"]).map(lambda kind: Port(kind=kind))
    | st.builds(Port, kind=st.sampled_from(["device", "file", "pipe", "unix"]), path=WORD, server=MAYBE)
    | st.builds(
        Port,
        kind=st.sampled_from(["tcp", "telnet", "tls", "udp"]),
        path=st.sampled_from(["0.0.0.0:1", "::1:65535"]),
        server=st.booleans(),
    )
)
PASSTHROUGH = st.sampled_from(
    [
        Passthrough(kind="pci", address="0000:03:00.0"),
        Passthrough(kind="usb", address="046d:c52b"),
        Passthrough(kind="mdev", address="825fcb99-1ebc-4d06-9ba5-3c5c28dd4bd4"),
        Passthrough(kind="scsi", address="scsi_host2:0:1:3"),
    ]
)
KIB = SMALL.map(lambda number: number << 10)
PLACES = {Bus.SCSI: 4, Bus.SATA: 2, Bus.IDE: 2, Bus.VIRTIO: 1, Bus.XEN: 1}
"""Buses of disks, and how many controllers (on IDE: channels) they have here."""


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A machine whose fields a domain XML holds, all of them in the form that it gives back."""
    places = draw(
        st.lists(
            st.sampled_from([(bus, number, unit) for bus, most in PLACES.items() for number in range(most) for unit in range(2)]),
            unique=True,
            max_size=6,
        )
    )
    ordered = draw(st.booleans())
    orders = iter(range(1, 100))

    def plugged(one, place):
        return replace(
            one,
            bus=place[0],
            controller=place[1],
            unit=place[2],
            boot_order=next(orders) if ordered and draw(st.booleans()) else None,
        )

    count = draw(st.integers(0, len(places)))
    scsi = draw(
        st.lists(
            st.builds(
                Controller,
                bus=st.just(Bus.SCSI),
                model=maybe(st.sampled_from(["pvscsi", "lsilogic", "lsisas1068", "virtio-scsi"])),
            ),
            max_size=3,
        )
    )
    slots = tuple(plugged(draw(disks()), place) for place in places[:count])
    found = tuple(plugged(draw(drives()), place) for place in places[count:])
    nics = tuple(
        replace(nic, number=number, boot_order=next(orders) if ordered and draw(st.booleans()) else None)
        for number, nic in enumerate(draw(st.lists(NIC, max_size=3)))
    )
    has_order = any(one.boot_order for one in (*slots, *found, *nics))
    return Machine(
        name=draw(NAME),
        uuid=draw(maybe(UUIDS)),
        genid=draw(maybe(UUIDS)),
        description=draw(maybe(ANY)),
        guest_os=replace(draw(SYSTEM), arch=draw(st.sampled_from(["x86_64", "i686"]))),
        cpu=draw(cpus()),
        memory=draw(memories()),
        firmware=draw(FIRMWARE),
        tpm=draw(maybe(st.builds(Tpm, version=maybe(st.just("2.0")), model=maybe(st.just("tpm-crb"))))),
        accelerator=draw(st.sampled_from(["kvm", "qemu"])),
        chipset=draw(st.sampled_from([None, "q35", "i440fx", "virt"])),
        controllers=tuple(replace(one, number=number) for number, one in enumerate(scsi)),
        disks=slots,
        drives=found,
        nics=nics,
        serials=_numbered(draw(st.lists(PORT, max_size=2))),
        parallels=_numbered(draw(st.lists(PORT, max_size=2))),
        videos=tuple(
            draw(
                st.lists(
                    st.builds(
                        Video, model=st.sampled_from(["vga", "qxl"]), memory=maybe(KIB), heads=maybe(SMALL), accelerated=MAYBE
                    ),
                    max_size=2,
                )
            )
        ),
        graphics=tuple(
            draw(
                st.lists(
                    st.builds(
                        Graphics,
                        kind=st.sampled_from(["vnc", "spice"]),
                        listen=maybe(WORD),
                        port=maybe(SMALL),
                        keymap=maybe(WORD),
                    ),
                    max_size=2,
                )
            )
        ),
        sounds=tuple(draw(st.lists(st.sampled_from(["ac97", "es1371", "sb16", "hda", "usb"]), max_size=2))),
        usb=tuple(draw(st.lists(st.sampled_from(["uhci", "ehci", "xhci"]), max_size=2))),
        inputs=tuple(draw(st.lists(st.sampled_from(["tablet", "mouse", "keyboard"]), max_size=2))),
        passthrough=tuple(draw(st.lists(PASSTHROUGH, max_size=2))),
        shared_folders=tuple(draw(st.lists(st.builds(SharedFolder, path=WORD, tag=WORD, read_only=FLAG), max_size=2))),
        watchdog=draw(maybe(st.builds(Watchdog, action=st.sampled_from(["reset", "none"])))),
        rng=draw(st.sampled_from([None, "/dev/urandom", "builtin"])),
        balloon=draw(st.sampled_from([None, "virtio", "none"])),
        tools=Tools(agent=draw(FLAG)),
        boot=() if has_order else tuple(draw(st.lists(st.sampled_from(["disk", "cdrom", "network"]), unique=True))),
        boot_menu=draw(MAYBE),
        clock=draw(
            st.just(Clock())
            | st.builds(
                Clock,
                offset=st.sampled_from(["utc", "localtime"]),
                timers=st.lists(
                    st.builds(Timer, name=st.just("rtc"), present=MAYBE, policy=maybe(st.just("catchup"))), max_size=2
                ).map(tuple),
            )
        ),
        resources=draw(
            st.builds(
                Resources,
                cpu_shares=maybe(SMALL),
                memory_limit=maybe(SMALL),
                cpu_affinity=st.sets(st.integers(0, 99), max_size=9).map(sorted).map(tuple),
            )
        ),
    )


def _numbered(ports: list[Port]) -> tuple[Port, ...]:
    return tuple(replace(one, number=number) for number, one in enumerate(ports))
