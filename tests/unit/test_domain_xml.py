"""Domain XML: what is written is read again; what cannot be written is said; an existing file keeps what does not change."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from imgtool.descriptions import ovf
from imgtool.descriptions.domain_xml import HOLDS, parse, render, words
from imgtool.descriptions.domain_xml.document import opened
from imgtool.descriptions.fields import pattern, said
from imgtool.errors import DamagedError
from imgtool.model.devices import (
    Backing,
    Bus,
    Controller,
    DiskMode,
    DiskSlot,
    Drive,
    Network,
    NetworkKind,
    Nic,
    Passthrough,
    Port,
)
from imgtool.model.machine import Cpu, Firmware, FirmwareKind, GuestOs, Machine, Topology
from tests.golden import DESCRIPTIONS, check, inputs
from tests.machines import machines

PLAIN = Machine(name="plain", accelerator="kvm")
DISK = DiskSlot(path="/x", bus=Bus.VIRTIO, format="raw")
OVIRT = (DESCRIPTIONS / "domain_xml" / "132-r9-gita.kreonet.net.xml").read_bytes()


@pytest.mark.parametrize(("count", "read"), [(1, 4096), (1024, 4096), (1025, 0)])
def test_a_list_of_processors_ends_somewhere(count: int, read: int) -> None:
    """100,000 parts took 12 seconds."""
    cpus = ",".join(["0-4095"] * count)
    parsed = parse(f"<domain type='kvm'><name>x</name><vcpu cpuset='{cpus}'>2</vcpu><memory>1024</memory></domain>".encode())
    assert len(parsed.machine.resources.cpu_affinity) == read
    assert any("no list of processors" in problem.what for problem in parsed.problems) == (not read)


def test_a_boot_device_that_is_none_is_left_out() -> None:
    """It went into the packages of the other side, where there is no word for it."""
    os = "<os><type>hvm</type><boot dev='hd'/><boot dev=''/><boot dev='usb'/><boot/><boot dev='network'/></os>"
    parsed = parse(f"<domain type='kvm'><name>x</name><memory>1024</memory>{os}</domain>".encode())
    assert parsed.machine.boot == ("disk", "network")
    assert [problem.what for problem in parsed.problems if "boot order" in problem.what] == [
        f"/domain/os/boot[{number}]: {word!r} is no device that is known: left out of the boot order"
        for number, word in ((2, ""), (3, "usb"), (4, ""))]
    assert b'vmw:type="disk net"' in ovf.render(parsed.machine).text


@given(machines())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again(machine: Machine) -> None:
    rendered = render(machine)
    assert parse(rendered.text).machine == machine
    assert rendered.problems == ()
    assert parse(rendered.text).problems == ()
    assert {pattern(path) for path, _ in said(machine)} <= HOLDS


@given(machines(), machines())
@settings(max_examples=30, deadline=None)
def test_what_is_written_onto_another_is_read_again(machine: Machine, other: Machine) -> None:
    rendered = render(machine, onto=render(other).text)
    assert parse(rendered.text).machine == machine
    assert not any(one.fatal for one in rendered.problems)


@pytest.mark.parametrize("path", inputs(".xml"), ids=lambda path: path.name)
def test_each_line_of_the_trace_leads_from_a_place_to_a_field(path: Path) -> None:
    text = path.read_bytes()
    places = {place: element for element, place in opened(text).notes.paths.items()}
    parsed = parse(text)
    for line in parsed.trace:
        place, _, attribute = line.key.partition("/@")
        value = places[place].get(attribute) if attribute else places[place].text
        assert line.value in ((value or "").strip()[:80], "***") or not attribute, line
        eval(f"machine.{line.field}", {"machine": parsed.machine})


@pytest.mark.parametrize("name", ["132-r9-gita.kreonet.net.xml", "virt-install-windows.xml", "scsi-controllers.xml"])
def test_is_written_as_a_person_has_read(name: str) -> None:
    path = DESCRIPTIONS / "domain_xml" / name
    check(path.with_name(f"{name}.written"), render(parse(path.read_bytes()).machine).text.decode())


def problems(machine: Machine) -> str:
    return "\n".join(f"{'FATAL ' if one.fatal else ''}{one.what} | {one.hint}" for one in render(machine).problems)


IMPOSSIBLE = {
    "NVMe": (replace(PLAIN, disks=(replace(DISK, bus=Bus.NVME),)), "FATAL disks[0] on nvme0:0: not written"),
    "one place": (
        replace(PLAIN, disks=(DISK, replace(DISK, path="/y"))),
        "FATAL disks[1] on virtio0:0: not written, another one",
    ),
    "no URL": (replace(PLAIN, disks=(replace(DISK, backing=Backing.NETWORK),)), "FATAL disks[0]"),
    "no file": (replace(PLAIN, disks=(replace(DISK, path="", backing=Backing.EMPTY),)), "disks[0]: not written, it has no file"),
    "no pool": (replace(PLAIN, disks=(replace(DISK, path="x", backing=Backing.VOLUME),)), "FATAL disks[0]"),
    "second controller": (replace(PLAIN, disks=(replace(DISK, controller=1),)), "FATAL disks[0]"),
    "no format": (replace(PLAIN, disks=(replace(DISK, format=None),)), "disks[0].format is not said: written as raw"),
    "undoable": (replace(PLAIN, disks=(replace(DISK, mode=DiskMode.UNDOABLE),)), "disks[0].mode = undoable"),
    "virtual RDM": (replace(PLAIN, disks=(replace(DISK, rdm="virtual"),)), "disks[0].rdm = virtual"),
    "client drive": (
        replace(PLAIN, drives=(Drive(backing=Backing.CLIENT),)),
        "drives[0].backing = client: written as an empty drive",
    ),
    "host-only": (
        replace(PLAIN, nics=(Nic(network=Network(kind=NetworkKind.HOST_ONLY)),)),
        "FATAL nics[0].network.kind = host-only",
    ),
    "no bridge": (replace(PLAIN, nics=(Nic(network=Network(kind=NetworkKind.BRIDGE)),)), "FATAL nics[0].network.kind = bridge"),
    "thinprint": (replace(PLAIN, serials=(Port(kind="thinprint"),)), "serials[0].kind = thinprint"),
    "no port": (replace(PLAIN, serials=(Port(kind="tcp", path="host"),)), "serials[0].kind = tcp"),
    "vgpu": (replace(PLAIN, passthrough=(Passthrough(kind="vgpu", name="grid"),)), "passthrough[0] = vgpu None: not written"),
    "topology": (replace(PLAIN, cpu=Cpu(count=3, topology=Topology(sockets=1, cores=2))), "cpu.topology: 1 sockets"),
    "two orders": (replace(PLAIN, boot=("disk",), disks=(replace(DISK, boot_order=1),)), "boot = disk: not written"),
    "another system": (replace(PLAIN, guest_os=GuestOs(id="other", word="netware6")), "guest_os = netware6: libosinfo has no id"),
    "another hypervisor": (replace(PLAIN, accelerator="hyperv"), "accelerator = hyperv: written as kvm"),
    "NVRAM": (replace(PLAIN, firmware=Firmware(kind=FirmwareKind.UEFI, nvram="x.nvram")), "fresh variables"),
    "a slash": (replace(PLAIN, name="a/b"), "name = 'a/b': written as 'a_b'"),
    "a control character": (replace(PLAIN, description="a\x01b"), "description: characters that XML cannot hold"),
    "hot plug": (replace(PLAIN, cpu=Cpu(hot_add=True)), "cpu.hot_add = True: a domain XML has no place for it | say how many"),
}


@pytest.mark.parametrize(("machine", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_cannot_be_written_is_said(machine: Machine, words: str) -> None:
    assert words in problems(machine)
    assert len(render(machine).problems) == 1


def test_what_means_nothing_to_kvm_is_left_without_a_word() -> None:
    nic = Nic(network=Network(kind=NetworkKind.NAT), mac_kind="vpx", mac_check=False)
    assert problems(replace(PLAIN, hardware_version=19, nics=(nic,), disks=(replace(DISK, capacity=1 << 30),))) == ""


def lines(before: bytes, after: bytes) -> list[str]:
    """Of a difference: those that went and came."""
    found = difflib.unified_diff(before.decode().splitlines(), after.decode().splitlines(), n=0, lineterm="")
    return [line[0] + line[1:].strip() for line in found if not line.startswith(("---", "+++", "@@"))]


def test_the_same_machine_onto_its_own_file_changes_no_byte() -> None:
    for path in inputs(".xml"):
        text = path.read_bytes()
        assert render(parse(text).machine, onto=text).text == text, path.name


def test_another_path_changes_one_attribute() -> None:
    machine = parse(OVIRT).machine
    rendered = render(replace(machine, disks=(replace(machine.disks[0], path="/new/x.qcow2"),)), onto=OVIRT)
    old, new = lines(OVIRT, rendered.text)
    assert old.startswith("-<source file='/rhev/data-center/")
    assert new == "+<source file=\"/new/x.qcow2\" index='1'>"
    assert rendered.problems == ()


def test_devices_come_and_go_and_the_rest_stays() -> None:
    machine = parse(OVIRT).machine
    nic = Nic(number=1, model="e1000e", mac="52:54:00:00:00:01", network=Network(kind=NetworkKind.BRIDGE, name="br7"))
    added = DiskSlot(path="/srv/second.qcow2", bus=Bus.SCSI, unit=1, format="qcow2")
    changed = replace(
        machine,
        nics=(*machine.nics, nic),
        disks=(*machine.disks, added),
        drives=(),
        description="two & three",
        rng=None,
        cpu=replace(machine.cpu, count=6),
    )
    text = render(changed, onto=OVIRT).text
    assert parse(text).machine == changed
    assert [one.what for one in parse(text).problems] != []
    found = lines(OVIRT, text)
    assert "+<description>two &amp; three</description>" in found
    assert [line for line in found if "vcpu" in line] == [
        "-<vcpu placement='static' current='4'>16</vcpu>",
        "+<vcpu placement='static' current=\"6\">16</vcpu>",
    ]
    assert "ovirt-vm" not in "".join(found)
    went = [line for line in found if line.startswith("-")]
    assert len(went) == 1 + 8 + 4  # vcpu, the CD-ROM's lines, those of the random numbers


def test_what_has_a_name_is_known_by_it() -> None:
    """Of two features and two timers the first goes; the second stays the line that it was, with what nobody knows in it."""
    features = b"<feature policy='require' name='vmx'/>\n  <feature policy='disable' name='x2apic' foo='bar'/>"
    timers = b"<timer name='rtc' tickpolicy='catchup'/>\n  <timer name='hpet' present='no' foo='bar'/>"
    text = (b"<domain type='kvm'>\n <name>a</name>\n <memory>1048576</memory>\n <vcpu>1</vcpu>\n <os><type>hvm</type></os>\n"
            b" <cpu mode='host-model'>\n  " + features + b"\n </cpu>\n <clock offset='utc'>\n  " + timers
            + b"\n </clock>\n</domain>\n")
    machine = parse(text).machine
    assert (len(machine.cpu.features), len(machine.clock.timers)) == (2, 2)
    changed = replace(machine, cpu=replace(machine.cpu, features=machine.cpu.features[1:]),
                      clock=replace(machine.clock, timers=machine.clock.timers[1:]))
    assert [line.lstrip("-+ ") for line in lines(text, render(changed, onto=text).text)] == [
        "<feature policy='require' name='vmx'/>", "<timer name='rtc' tickpolicy='catchup'/>"]


def of_devices(devices: str) -> Machine:
    return parse(f"<domain type='kvm'><name>a</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
                 f"<devices>{devices}</devices></domain>".encode()).machine


@pytest.mark.parametrize(("secure", "enrolled", "warned"), [("yes", "yes", False), ("yes", "no", True), ("no", "no", False)])
def test_secure_boot(secure: str, enrolled: str, *, warned: bool) -> None:
    """Two features say it; without keys it is none."""
    features = f"<feature enabled='{enrolled}' name='enrolled-keys'/><feature enabled='{secure}' name='secure-boot'/>"
    parsed = parse(f"<domain type='kvm'><name>a</name><memory>1048576</memory><vcpu>1</vcpu><os firmware='efi'>"
                   f"<type>hvm</type><firmware>{features}</firmware></os></domain>".encode())
    assert parsed.machine.firmware == Firmware(kind=FirmwareKind.UEFI, secure_boot=secure == "yes")
    assert bool([one for one in parsed.problems if "secure boot without keys" in one.what]) == warned
    (trace,) = (one for one in parsed.trace if one.field == "firmware.secure_boot")
    assert (trace.key, trace.value) == ("/domain/os/firmware/feature[2]/@enabled", secure)


@pytest.mark.parametrize("root", ["network", "domainsnapshot", "pool"])
def test_other_documents_of_libvirt(root: str) -> None:
    with pytest.raises(DamagedError, match=f"<{root}> is no libvirt domain"):
        parse(f"<{root}><name>a</name></{root}>".encode())


def test_usb_disks_have_places_of_their_own() -> None:
    disk = "<disk type='file' device='disk'><source file='/{0}'/><target dev='sd{0}' bus='{1}'/></disk>"
    found = of_devices("".join(disk.format(*each) for each in (("a", "usb"), ("b", "scsi"), ("c", "usb")))).disks
    assert [(one.bus, one.unit) for one in found] == [(Bus.USB, 0), (Bus.SCSI, 1), (Bus.USB, 1)]


@pytest.mark.parametrize(("said", "port", "auto"), [
    ("port='-1'", None, True), ("port='0'", None, True), ("", None, True), ("port='5901'", 5901, False),
    ("port='5901' autoport='yes'", None, True)])
def test_the_port_of_a_screen(said: str, port: int | None, auto: bool) -> None:
    (screen,) = of_devices(f"<graphics type='vnc' {said}/>").graphics
    assert (screen.port, screen.port is None) == (port, auto)


@pytest.mark.parametrize(("said", "paths"), [("pool='p' volume='v'", ["p/v"]), ("pool='p'", []), ("volume='v'", [])])
def test_a_volume_needs_its_pool(said: str, paths: list[str]) -> None:
    machine = of_devices(f"<disk type='volume' device='disk'><source {said}/><target dev='vda' bus='virtio'/></disk>")
    assert [(disk.path, disk.backing) for disk in machine.disks] == [(path, Backing.VOLUME) for path in paths]


def test_another_chipset_gives_up_places_on_the_old_buses() -> None:
    machine = parse(OVIRT).machine
    text = render(replace(machine, chipset="i440fx"), onto=OVIRT).text
    assert b"pcie-root" not in text
    assert b"type='pci'" not in text
    assert parse(text).machine.chipset == "i440fx"


def test_another_model_gives_up_its_place() -> None:
    machine = parse(OVIRT).machine
    text = render(replace(machine, nics=(replace(machine.nics[0], model="e1000"),)), onto=OVIRT).text
    assert lines(OVIRT, text) == [
        "-<model type='virtio'/>",
        '+<model type="e1000"/>',
        "-<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>",
    ]


def test_what_the_file_says_in_its_own_way_is_replaced_and_said() -> None:
    text = (DESCRIPTIONS / "domain_xml" / "secure-loader.xml").read_bytes()
    machine = parse(text).machine
    rendered = render(replace(machine, firmware=Firmware()), onto=text)
    assert parse(rendered.text).machine == replace(machine, firmware=Firmware())
    assert "firmware.kind: the existing file said it in another way: replaced" in [one.what for one in rendered.problems]


def test_comments_blanks_and_line_ends_stay() -> None:
    text = (
        b'<?xml version="1.0"?>\r\n<!-- a > b -->\r\n<domain  type = "qemu" >\r\n<name>x</name><memory unit="MiB" >1</memory>\r\n'
        b"\t<vcpu>1</vcpu>\r\n\t<!-- <vcpu>7</vcpu> -->\r\n\t<description><![CDATA[a<b]]></description>\r\n\t<devices/>\r\n"
        b"</domain>\r\n<!-- end -->\r\n"
    )
    machine = parse(text).machine
    changed = replace(machine, cpu=Cpu(count=2), controllers=(Controller(bus=Bus.SATA),))
    assert render(changed, onto=text).text == text.replace(b"<vcpu>1", b"<vcpu>2").replace(
        b"<devices/>", b'<devices>\r\n\t  <controller type="sata" index="0"/>\r\n\t</devices>'
    ).replace(b">2<", b">2<")


@pytest.mark.parametrize(("name", "index"), [
    ("sda", 0), ("hdc", 2), ("vdz", 25), ("sdab", 27), ("xvdb", 1), ("fdb", 1), ("nvme2n1", 2), ("nvme0", 0), ("nvmex", 0),
    ("", 0)])
def test_the_number_of_a_device_by_its_name(name: str, index: int) -> None:
    assert words.device_index(name) == index
    if name.startswith("sd"):
        assert words.device_name("sd", index) == name


def test_a_network_disk_without_a_source_is_there_all_the_same() -> None:
    text = (b'<domain type="kvm"><name>x</name><memory>1</memory><devices><disk type="network" device="disk">'
            b'<target dev="vda" bus="virtio"/></disk></devices></domain>')
    (disk,) = parse(text).machine.disks
    assert (disk.path, disk.backing, disk.bus) == ("", Backing.NETWORK, Bus.VIRTIO)


def test_a_vlan_has_twelve_bits() -> None:
    text = (b'<domain type="kvm"><name>x</name><memory>1</memory><devices><interface type="bridge"><source bridge="br0"/>'
            b'<vlan><tag id="4095"/></vlan></interface></devices></domain>')
    (nic,) = parse(text).machine.nics
    assert nic.network.vlan == 4095
    with pytest.raises(DamagedError, match="from 0 to 4095"):
        parse(text.replace(b"4095", b"4096"))
