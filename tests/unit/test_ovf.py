"""OVF: what is written is read again, for every machine that an OVF can hold; what it cannot hold is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from imgtool.descriptions import ovf
from imgtool.descriptions.fields import pattern, said
from imgtool.descriptions.guest_os import from_vmware, to_vmware_api
from imgtool.descriptions.ovf import xml
from imgtool.descriptions.ovf.dialects import virtualbox_os
from imgtool.descriptions.ovf.units import unit
from imgtool.errors import DamagedError, ImgtoolError, RefusedError
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
from imgtool.model.package import Packed
from tests.program import ROOT

MIB = 1 << 20
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF), min_size=1, max_size=12).filter(str.strip)
PLAIN = st.text("abcXYZ0189 ._-äß'\"<&>", min_size=1, max_size=12).map(str.strip).filter(lambda text: text and "://" not in text)
FLAG = st.none() | st.booleans()
COUNT = st.none() | st.integers(0, 1 << 40)
VERSIONS = [None, 4, 7, 13, 21]
SYSTEMS = {hardware: [os for word in ("debian12-64", "rhel8-64", "windows2019srv-64", "windows9", "other-64", "ubuntu", "rhel4")
                      if (os := from_vmware(word)) == from_vmware(to_vmware_api(os, hardware))] for hardware in VERSIONS}
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
    for controller, number in places:
        at = {"bus": controller.bus, "controller": controller.number, "unit": number}
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
    hardware = draw(st.sampled_from(VERSIONS))
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


GOLDEN = ROOT / "fixtures" / "descriptions" / "ovf"
VSPHERE = (GOLDEN / "vsphere-6.7.ovf").read_bytes()
CLOSE = b"</Envelope>"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.ovf")), ids=lambda path: path.name)
def test_the_same_machine_changes_nothing(path: Path) -> None:
    text = path.read_bytes()
    assert ovf.render(ovf.parse(text).machine, onto=text).text == text


def test_one_change_changes_one_thing() -> None:
    """Everything else stays: settings that nobody knows, comments, order, the file of variables."""
    machine = ovf.parse(VSPHERE).machine
    disk = replace(machine.disks[0], path="new.vmdk", capacity=5 << 30, populated=None)
    nic = replace(machine.nics[1], model="e1000", wake_on_lan=None)
    changed = replace(machine, name="w<b>", disks=(disk, machine.disks[1]), nics=(machine.nics[0], nic),
                      cpu=replace(machine.cpu, count=8,
                      topology=Topology(sockets=4, cores=2)))
    text = ovf.render(changed, onto=VSPHERE).text
    assert ovf.parse(text).machine == changed
    before, after = ({line.strip().replace(b" />", b"/>") for line in one.splitlines()} for one in (VSPHERE, text))
    assert {line for line in after - before if b"<?xml" not in line and b"<Envelope" not in line} == {
        b"<Name>w&lt;b&gt;</Name>", b'<File ovf:href="new.vmdk" ovf:id="file1"/>',
        b'<Disk ovf:capacity="5368709120" ovf:diskId="vmdisk1" ovf:fileRef="file1" '
        b'ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>',
        b"<rasd:VirtualQuantity>8</rasd:VirtualQuantity>", b"<rasd:ResourceSubType>E1000</rasd:ResourceSubType>"}
    assert b"wakeOnLanEnabled" in b"".join(before - after)
    assert len(before - after) == len(after - before) + 1


@pytest.mark.parametrize("name", ["vsphere-6.7.ovf", "ovf-2.0.ovf", "ovirt-4.ovf"])
def test_a_new_network_is_listed_with_the_others(name: str) -> None:
    text = (GOLDEN / name).read_bytes()
    machine = ovf.parse(text).machine
    first, *others = machine.nics
    changed = replace(machine, nics=(replace(first, network=replace(first.network, name="new one")), *others))
    root = etree.fromstring(ovf.render(changed, onto=text).text)
    (section,) = (one for one in root.iter() if etree.QName(one).localname == "NetworkSection")
    listed = [value for one in section for key, value in one.items() if etree.QName(key).localname == "name"]
    assert sorted(listed) == sorted({nic.network.name for nic in changed.nics if nic.network.name})


def test_virtualbox_says_the_model_of_a_card_in_its_own_words() -> None:
    text = (GOLDEN / "virtualbox-7.ovf").read_bytes()
    without = text.replace(b"<rasd:ResourceSubType>E1000</rasd:ResourceSubType>", b"")
    assert without != text
    for word, model in ((b"82540EM", "e1000"), (b"Am79C973", "pcnet"), (b"virtio", "virtio"), (b"strange", None)):
        (nic,) = ovf.parse(without.replace(b'type="82540EM"', b'type="' + word + b'"')).machine.nics
        assert (nic.model, nic.mac) == (model, "08:00:27:aa:bb:cc")


@pytest.mark.parametrize(("drive", "subtype"), [
    (Drive(bus=Bus.IDE, backing=Backing.NETWORK, path="nbd://h/x"), b"vmware.cdrom.atapi"),
    (Drive(bus=Bus.FLOPPY, floppy=True, backing=Backing.NETWORK, path="nbd://h/x"), b"vmware.floppy.device"),
    (Drive(bus=Bus.IDE, backing=Backing.FILE, path="x.iso"), b"vmware.cdrom.iso")])
def test_the_kind_of_a_drive(drive: Drive, subtype: bytes) -> None:
    """What an OVF has no word for is a drive of the host."""
    machine = replace(ovf.parse(VSPHERE).machine, drives=(drive,))
    assert b"<rasd:ResourceSubType>" + subtype + b"</" in ovf.render(machine).text


def test_line_ends_stay() -> None:
    text = VSPHERE.replace(b"\n", b"\r\n")
    machine = replace(ovf.parse(text).machine, name="other")
    kept = ovf.render(machine, onto=text).text
    assert kept.count(b"\r\n") == kept.count(b"\n") > 100


@given(machines())
@settings(deadline=None, max_examples=40)
def test_elements_are_in_the_order_of_the_schema(machine: Machine) -> None:
    """DSP8023: sections of the envelope and of the machine in order, settings of an Item in alphabetical order, each id once."""
    root = etree.fromstring(ovf.render(machine).text)
    names = [etree.QName(one).localname for one in root]
    assert names == ["References", "DiskSection", *(["NetworkSection"] if "NetworkSection" in names else []), "VirtualSystem"]
    system = [etree.QName(one).localname for one in root[-1]]
    assert system[:4] == ["Info", "Name", "OperatingSystemSection", "VirtualHardwareSection"]
    items = [one for one in root.iter() if etree.QName(one).localname == "Item"]
    for one in items:
        rasd = [etree.QName(child).localname for child in one if etree.QName(child).namespace == xml.RASD]
        assert rasd == sorted(rasd)
        assert {"ElementName", "InstanceID", "ResourceType"} <= set(rasd)
        others = [child for child in one if etree.QName(child).namespace != xml.RASD]
        assert others == list(one)[len(rasd):]
        assert all(child.get(f"{{{xml.OVF}}}required") == "false" for child in others)
    ids = [one.findtext(f"{{{xml.RASD}}}InstanceID") for one in items]
    assert len(set(ids)) == len(ids)
    assert {one.findtext(f"{{{xml.RASD}}}Parent") for one in items} <= {*ids, None}
    ids = [str(value) for one in root.iter() for key, value in one.items() if key in (f"{{{xml.OVF}}}diskId", f"{{{xml.OVF}}}id")
           and etree.QName(one).localname in ("File", "Disk")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("text", "size"), [
    ("byte", 1), ("bytes", 1), ("byte * 2^20", 1 << 20), ("byte*2^30", 1 << 30), ("MegaBytes", 1 << 20), ("GB", 1 << 30),
    ("kilobytes", 1 << 10), ("mb", 1 << 20), ("GigaBytes", 1 << 30), ("TB", 1 << 40), ("terabyte", 1 << 40), ("TiB", 1 << 40),
    ("byte * 1024", 1024), ("byte * 10^9", 10**9), ("KiB", 1024), ("Byte * 2 ^ 10 * 4", 4096), ("bit", None),
    ("byte * 2^999", None),
    ("byte * x", None), ("", None), ("byte * 99999999999999999999 * 99999999999999999999", None), ("hertz * 10^6", None)])
def test_units(text: str, size: int | None) -> None:
    assert unit(text) == size


REFUSED: dict[str, tuple[type[ImgtoolError], str, bytes]] = {
    "two machines": (RefusedError, "2 machines \\('a', 'b'\\)", b'<VirtualSystemCollection xmlns="x"><VirtualSystem id="a"/>'
                     b'<VirtualSystem><Name>b</Name></VirtualSystem></VirtualSystemCollection>'),
    "no machine": (DamagedError, "no machine", b""),
    "no hardware": (DamagedError, "no hardware", b"<VirtualSystem/>"),
    "encrypted": (RefusedError, "encrypted", b"<EncryptionSection/><VirtualSystem/>"),
    "delta": (RefusedError, "delta", b'<DiskSection><Disk diskId="d" parentRef="p"/></DiskSection>'),
    "file that is not there": (DamagedError, "not among the References",
                               b'<DiskSection><Disk diskId="d" fileRef="f"/></DiskSection>'),
    "file twice": (DamagedError, "two files", b'<References><File id="f" href="a"/><File id="f" href="b"/></References>'),
    "disk twice": (DamagedError, "two with one id", b'<DiskSection><Disk diskId="d"/><Disk diskId="d"/></DiskSection>'),
    "packed oddly": (DamagedError, "'lzma'", b'<References><File id="f" href="a" compression="lzma"/></References>'),
}
HARDWARE = b"<VirtualSystem><VirtualHardwareSection/></VirtualSystem>"


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused(what: str) -> None:
    error, words, body = REFUSED[what]
    machine = b"" if b"VirtualSystem" in body or what == "no machine" else HARDWARE
    with pytest.raises(error, match=words):
        ovf.parse(b"<Envelope>" + body + machine + CLOSE)


def test_without_a_word_about_it_there_is_one_processor_and_no_memory() -> None:
    machine = ovf.parse(b"<Envelope>" + HARDWARE + CLOSE).machine
    assert (machine.cpu.count, machine.memory.size) == (1, 0)


@pytest.mark.parametrize("count", [0, 1 << 40])
def test_no_machine_has_so_many_processors(count: int) -> None:
    item = (f'<Item xmlns:r="{xml.RASD}"><r:InstanceID>1</r:InstanceID><r:ResourceType>3</r:ResourceType>'
            f"<r:VirtualQuantity>{count}</r:VirtualQuantity></Item>").encode()
    with pytest.raises(DamagedError, match=f"{count} processors"):
        ovf.parse(b"<Envelope>" + HARDWARE.replace(b"<VirtualHardwareSection/>", b"<VirtualHardwareSection>" + item
                                                   + b"</VirtualHardwareSection>") + CLOSE)


DOCTYPES = {
    "plain": b"<!DOCTYPE Envelope><Envelope>" + HARDWARE + CLOSE,
    "file": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><Envelope>&a;' + HARDWARE + CLOSE,
    "wide": ("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE x [<!ENTITY a 'b'>]><Envelope>"
             + (HARDWARE + CLOSE).decode()).encode("utf-16"),
    "outside": b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><Envelope>' + HARDWARE + CLOSE,
}
LEVELS = b"".join(b"<!ENTITY l%d '%s'>" % (level, b"&l%d;" % (level - 1) * 10) for level in range(1, 12))
BOMB = b"<!DOCTYPE x [<!ENTITY l0 'lol'>" + LEVELS + b"]>"


@pytest.mark.parametrize("what", DOCTYPES)
def test_a_doctype_is_damaged(what: str) -> None:
    with pytest.raises(DamagedError, match="DOCTYPE"):
        ovf.parse(DOCTYPES[what])


MANY_DISKS = b"".join(b"<Disk diskId='%d'/>" % number for number in range(50_000))
HOSTILE = {
    "bomb": BOMB + b"<Envelope>&l11;" + HARDWARE + CLOSE,
    "bomb in an attribute": BOMB + b"<Envelope a='&l11;'>" + HARDWARE + CLOSE,
    "nothing": b"", "zeros": bytes(1000), "no xml": b"{}", "another": b"<domain/>", "cut off": b"<Envelope><References>",
    "control character": b"<Envelope>\x01" + HARDWARE + CLOSE, "deep": b"<Envelope>" + b"<a>" * 100_000,
    "long": b"<Envelope>" + b"x" * (17 << 20) + CLOSE, "unknown encoding": b"<?xml version='1.0' encoding='rot13'?><Envelope/>",
    "quantity": b"<Envelope><VirtualSystem><VirtualHardwareSection><Item><ResourceType>3</ResourceType>"
                b"<VirtualQuantity>99999999999</VirtualQuantity></Item></VirtualHardwareSection></VirtualSystem>" + CLOSE,
    "many devices": b"<Envelope><VirtualSystem><VirtualHardwareSection>" + b"<Item/>" * 50_000
                    + b"</VirtualHardwareSection></VirtualSystem>" + CLOSE,
    "many disks": b"<Envelope><DiskSection>" + MANY_DISKS + b"</DiskSection>" + HARDWARE + CLOSE,
    "disk of nothing": b"<Envelope><VirtualSystem><VirtualHardwareSection><Item><ResourceType>17</ResourceType><HostResource>"
                       b"/etc/shadow</HostResource></Item></VirtualHardwareSection></VirtualSystem>" + CLOSE,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_text_is_damaged(what: str) -> None:
    with pytest.raises(DamagedError):
        ovf.parse(HOSTILE[what])


@pytest.mark.parametrize("name", ['a"; rm -rf', "../../x", "<File href='/etc/passwd'/>", "]]>", "a\x00b\x1b[2J", "\ud800",
                                  "x\r\ny"])
def test_no_name_becomes_markup(name: str) -> None:
    machine = Machine(name=name, description=name, disks=(DiskSlot(path=name),), controllers=(Controller(bus=Bus.SCSI),),
                      nics=(Nic(network=Network(kind=NetworkKind.BRIDGE, name=name)),))
    read = ovf.parse(ovf.render(machine).text).machine
    clean = re.sub("[\x00\x1b\ud800]", "\ufffd", name)
    assert (read.name, read.description, read.disks[0].path, read.nics[0].network.name) == (clean,) * 4
    assert len(ovf.files(ovf.render(machine).text)) == 1


def test_twenty_thousand_settings_are_read() -> None:
    lines = b"".join(b'<ExtraConfig key="guestinfo.%d" value="x"/>' % number for number in range(20_000))
    before, after = b"<Envelope><VirtualSystem><VirtualHardwareSection>", b"</VirtualHardwareSection></VirtualSystem>"
    parsed = ovf.parse(before + lines + after + CLOSE)
    assert len(parsed.problems) == 20_000


def test_no_secret_is_shown() -> None:
    for path in GOLDEN.glob("*.ovf"):
        parsed = ovf.parse(path.read_bytes())
        assert not {"hunter2", "secret"} & set(re.findall(r"\w+", repr((parsed.trace, parsed.problems))))


def test_each_loss_is_said() -> None:
    machine = Machine(name="x", genid="g", rng="/dev/urandom", tpm=Tpm(version="1.2"),
                      cpu=Cpu(count=3, topology=Topology(sockets=2, cores=2)),
                      disks=(DiskSlot(path="x", format="raw", serial="s"),), serials=(Port(kind="tcp", path="h:1"),),
                      nics=(Nic(network=Network(kind=NetworkKind.DIRECT, name="eth0", vlan=7)),))
    said_of = {one.what.split(":")[0].split(" = ")[0] for one in ovf.render(machine).problems}
    assert said_of == {"genid", "rng", "tpm.version", "2 sockets of 2 cores are not 3 processors", "disks[0].format",
                       "disks[0].serial",
                       "disks[0]", "serials[0].kind", "nics[0].network.kind", "nics[0].network.vlan"}


def test_files_and_their_sizes() -> None:
    text = (GOLDEN / "ovf-2.0.ovf").read_bytes()
    assert [(one.href, one.gzip, one.size) for one in ovf.files(text)] == [("a%20b.vmdk.gz", True, None)]
    sized = ovf.sized(text, [Packed(name="a%20b.vmdk.gz", size=77, sha256="")])
    assert [one.size for one in ovf.files(sized)] == [77]
    chunked = ovf.files((GOLDEN / "network-disk-and-chunks.ovf").read_bytes())[1]
    assert (chunked.chunked, chunked.size) == (True, 5_000_000_000)


def test_what_it_holds_are_fields() -> None:
    fields = {pattern(path) for path, _ in said(Machine(name="x"))}
    assert fields <= ovf.HOLDS


def test_the_trace_says_where() -> None:
    found = {one.field: (one.key, one.value) for one in ovf.parse(VSPHERE).trace}
    assert found["cpu.count"] == ("VirtualSystem/VirtualHardwareSection/Item[1]/VirtualQuantity", "4")
    assert found["name"] == ("VirtualSystem/Name", "web")
    assert found["disks[1].path"] == ("DiskSection/Disk[2]", "web-2.vmdk")


def test_a_device_of_ovirts_own_is_not_lost_silently() -> None:
    text = (ROOT / "fixtures" / "descriptions" / "ovf" / "ovirt-4.ovf").read_text()
    item = ("<Item><rasd:ResourceType>0</rasd:ResourceType><rasd:InstanceId>10</rasd:InstanceId><Type>watchdog</Type>"
            "<Device>i6300esb</Device></Item>")
    before, after = (ovf.parse(one.encode()).problems for one in (text, text.replace("<Item>", item + "<Item>", 1)))
    assert [one.what for one in after if one not in before] == [
        "watchdog i6300esb: a device of oVirt's own; not carried over"]


@pytest.mark.parametrize(("word", "id_", "arch"), [
    ("Debian12_arm64", "debian12", "aarch64"), ("Windows11_arm64", "windows11", "aarch64"), ("Debian12_64", "debian12", "x86_64"),
    ("Debian", "debian10", "i686"), ("Haiku_arm64", "other", "aarch64"), ("Haiku", "other", "i686")])
def test_a_system_of_virtualbox(word: str, id_: str, arch: str) -> None:
    found = virtualbox_os(word)
    assert (found.id, found.arch) == (id_, arch)


SPARE = b"""<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <Odd><VirtualSystem><Info/><Name>m</Name>
    <VirtualHardwareSection>
      <vmw:ExtraConfig vmw:key="RemoteDisplay.vnc.password" vmw:value="hunter2"/>
      <vmw:ExtraConfig vmw:key="RemoteDisplay.vnc.port" vmw:value="5900"/>
    </VirtualHardwareSection>
    <Machine><Hardware><RemoteDisplay><Property name="VNCPassword" value="hunter2"/></RemoteDisplay></Hardware></Machine>
  </VirtualSystem></Odd>
</Envelope>
"""


def test_without_secrets() -> None:
    clean = ovf.without_secrets(SPARE)
    lines = SPARE.replace(b'<RemoteDisplay><Property name="VNCPassword" value="hunter2"/></RemoteDisplay>', b"<RemoteDisplay/>")
    assert clean == b"".join(line for line in lines.splitlines(keepends=True) if b"hunter2" not in line)
    assert ovf.without_secrets(clean) is clean


def test_without_secrets_in_a_comment() -> None:
    comment = b'<!-- <vmw:ExtraConfig vmw:key="RemoteDisplay.vnc.password" vmw:value="hunter2"/> -->'
    for place in (b"<Info/>", b"<VirtualHardwareSection>\n"):
        text = ovf.without_secrets(SPARE)
        assert ovf.without_secrets(text.replace(place, place + comment)).split() == text.split()


def test_a_comment_behind_the_envelope_stays() -> None:
    text = SPARE + b"<!-- made by </Envelope> -->\r\n<?odd ?>"
    assert ovf.render(replace(ovf.parse(text).machine, name="n"), onto=text).text.endswith(text[len(SPARE):])


def test_devices_and_networks_go_into_an_ovf_that_has_none() -> None:
    """Wherever its machine stands."""
    wanted = replace(ovf.parse(SPARE).machine, nics=(Nic(model="e1000", network=Network(kind=NetworkKind.BRIDGE, name="lan")),))
    assert ovf.parse(ovf.render(wanted, onto=SPARE).text).machine == wanted


@pytest.mark.parametrize("info", [b"<Info/>", b""])
def test_disks_a_name_and_images_go_into_an_ovf_that_has_none(info: bytes) -> None:
    """In the order of the schema: files first, then what is in them, then the machine."""
    spare = SPARE.replace(b"<Info/><Name>m</Name>", info)
    machine = ovf.parse(spare).machine
    wanted = replace(machine, name="new", controllers=(Controller(bus=Bus.SCSI, model="lsilogic"),),
                     disks=(DiskSlot(path="x.vmdk", bus=Bus.SCSI, capacity=1 << 30, format="vmdk"),),
                     drives=(Drive(path="y.iso", bus=Bus.SCSI, unit=1, backing=Backing.FILE),))
    text = ovf.render(wanted, onto=spare).text
    found = ovf.parse(text).machine
    assert (found.name, found.disks[0].path, found.disks[0].capacity, found.drives[0].path) == ("new", "x.vmdk", 1 << 30, "y.iso")
    root = etree.fromstring(text)
    assert [etree.QName(one).localname for one in root][:2] == ["References", "DiskSection"]
    (system,) = root.iter(f"{{{xml.OVF}}}VirtualSystem")
    names = [etree.QName(one).localname for one in system]
    assert names[:names.index("VirtualHardwareSection")] == (["Info", "Name"] if info else ["Name"])
    assert [one.href for one in ovf.files(text)] == ["x.vmdk", "y.iso"]


def test_an_ovf_in_another_encoding_becomes_utf8() -> None:
    """Its bytes cannot stay where others are put between them."""
    text = SPARE.decode().replace('<?xml version="1.0"?>', '<?xml version="1.0" encoding="ISO-8859-1"?>').replace(
        "<Name>m", "<Name>K\u00fcche").encode("latin-1")
    machine = ovf.parse(text).machine
    assert machine.name == "K\u00fcche"
    done = ovf.render(replace(machine, name="\u865a\u62df\u673a"), onto=text).text
    assert done.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")
    assert ovf.parse(done).machine.name == "\u865a\u62df\u673a"


def test_adapters_of_virtualbox_count_only_where_they_are_as_many_as_cards() -> None:
    """Else a card would get the address of another."""
    text = (GOLDEN / "virtualbox-7.ovf").read_bytes()
    nics = ovf.parse(text).machine.nics
    assert nics
    assert all(nic.mac for nic in nics)
    off = re.sub(rb'(<Adapter [^>]*)enabled="true"', rb'\1enabled="false"', text, count=1)
    assert off != text
    assert not any(nic.mac for nic in ovf.parse(off).machine.nics)


ITEM = "<Item><ResourceType>{kind}</ResourceType><InstanceID>{number}</InstanceID>{more}</Item>"


def with_items(*items: str, before: str = "") -> bytes:
    body = f"<VirtualSystem><VirtualHardwareSection>{''.join(items)}</VirtualHardwareSection></VirtualSystem>"
    return f"<Envelope>{before}{body}</Envelope>".encode()


def test_memory_in_a_unit_that_nobody_knows_is_damaged() -> None:
    for units, size in (("byte * 2^20", 64 << 20), ("parsecs", None)):
        text = with_items(ITEM.format(kind=4, number=1, more=(
            f"<AllocationUnits>{units}</AllocationUnits><VirtualQuantity>64</VirtualQuantity>")))
        if size:
            assert ovf.parse(text).machine.memory.size == size
        else:
            with pytest.raises(DamagedError, match="counts memory in 'parsecs'"):
                ovf.parse(text)


def test_a_disk_may_stand_on_a_file_without_a_disk_section() -> None:
    files = '<References><File id="f" href="x.vmdk"/><File id="none"/></References>'
    item = ITEM.format(kind=17, number=2, more="<Parent>1</Parent><AddressOnParent>0</AddressOnParent>"
                       "<HostResource>ovf:/file/{}</HostResource>")
    scsi = ITEM.format(kind=6, number=1, more="<Address>0</Address>")
    (disk,) = ovf.parse(with_items(scsi, item.format("f"), before=files)).machine.disks
    assert disk.path == "x.vmdk"
    with pytest.raises(DamagedError, match="'ovf:/file/none', which is not a disk of the OVF"):
        ovf.parse(with_items(scsi, item.format("none"), before=files))
