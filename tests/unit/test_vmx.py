"""``.vmx``: what is written means the machine that it was written from, and nothing in a value gets out of it."""

from __future__ import annotations

import re
import struct
import uuid
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imgtool.descriptions.fields import pattern, said
from imgtool.descriptions.vmx import HOLDS, lowest_hardware, parse, render, without_secrets
from imgtool.descriptions.vmx.text import escape, take_apart, unescape
from imgtool.errors import DamagedError, ImgtoolError, RefusedError
from imgtool.model.devices import Bus, Controller, DiskSlot, Graphics, Network, NetworkKind, Nic, Passthrough, Port, Video
from imgtool.model.machine import Cpu, Firmware, FirmwareKind, GuestOs, Machine, Memory, Topology, Tpm
from tests.golden import DESCRIPTIONS
from tests.unit.vmx_machines import TEXT, machines

GIB = 1 << 30
LINE = re.compile(r'[\w.:]+ = "[^"\x00-\x1f\x7f]*"')
HEAD = '.encoding = "UTF-8"\nconfig.version = "8"\ndisplayName = "x"\nmemSize = "4"\nfloppy0.present = "FALSE"\n'
SLOW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


def machine(lines: str) -> Machine:
    return parse((HEAD + lines).encode()).machine


def problems(lines: str) -> list[str]:
    return [one.what for one in parse((HEAD + lines).encode()).problems]


@SLOW
@given(machines())
def test_round_trip(wanted: Machine) -> None:
    done = render(wanted)
    found = parse(done.text)
    assert found.machine == wanted
    assert done.problems == ()
    assert [one.what for one in found.problems if "not carried" in one.what] == []


@SLOW
@given(machines())
def test_no_value_gets_out_of_its_line(wanted: Machine) -> None:
    lines = render(wanted).text.decode().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line.partition(" ")[0] for line in lines] == [
        line.partition(" ")[0] for line in render(harmless(wanted)).text.decode().splitlines()
    ]


def harmless(thing: Any) -> Any:
    """The same with each free text replaced by one that means the same to the writer."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(
            thing,
            **{
                one.name: harmless(getattr(thing, one.name))
                for one in fields(thing)
                if one.name not in {"kind", "model", "mac", "mac_kind", "bus", "uuid", "vc_uuid", "genid", "guest_os"}
            },
        )
    if isinstance(thing, tuple):
        return tuple(harmless(item) for item in thing) if thing and is_dataclass(thing[0]) else thing
    if type(thing) is str and thing not in KEPT and not re.fullmatch("[0-9a-f:]+.*", thing):
        return "pvn:x" if thing.startswith("pvn:") else "x"
    return thing


KEPT = {"virtual", "physical", "device", "writethrough"}


@SLOW
@given(wanted=machines(), old=machines())
def test_onto_another_machine(wanted: Machine, old: Machine) -> None:
    before = render(old).text + b'# a remark\nmy.key = "mine"\n'
    done = render(wanted, onto=before)
    assert parse(done.text).machine == wanted
    assert b'# a remark\nmy.key = "mine"\n' in done.text


@SLOW
@given(machines())
def test_onto_itself_changes_nothing(same: Machine) -> None:
    text = render(same).text.replace(b"\n", b"\r\n")
    assert render(same, onto=text).text == text


@given(st.text())
@example('a"b|c\n|22')
def test_escapes(text: str) -> None:
    written = escape(text)
    assert not set(written) & {'"', "\n", "\r", "\0"}
    if "\0" not in text and not re.search("[\ud800-\udfff]", text):
        assert unescape(written) == text


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    with suppress(ImgtoolError):
        parse(data)


KEYS = sorted(
    {
        key
        for path in (DESCRIPTIONS / "vmx").glob("*.vmx")
        for key in (entry.key for entry in take_apart(path.read_bytes()).entries.values())
        if "encryption" not in key
    }
)
VALUES = (
    st.sampled_from(
        [
            "",
            "TRUE",
            "FALSE",
            "maybe",
            "-1",
            "0",
            "9" * 25,
            "1e9",
            "x.vmdk",
            "tcp://[",
            "auto detect",
            "\x7f",
            "|00",
            "|ZZ",
            "emptyBackingString",
            "cdrom-image",
            "efi",
            "1,2,,x",
            "٣",
            "²",
        ]
    )
    | TEXT
)


@SLOW
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=30))
def test_nonsense_is_a_problem_not_a_traceback(pairs: list[tuple[str, str]]) -> None:
    lines = "".join(f'{key} = "{escape(value)}"\n' for key, value in pairs if key != ".encoding")
    found = parse((HEAD + lines).encode()).machine
    again = parse(render(found).text).machine
    assert replace(again, hardware_version=None) == replace(parse(render(again).text).machine, hardware_version=None)


def test_encrypted() -> None:
    with pytest.raises(RefusedError, match=r"encryption\.keySafe"):
        parse(b'.encoding = "UTF-8"\nencryption.keySafe = "vmware:key/list/(pair/(null"\nencryption.data = "x"\n')


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"KDMV\x01\0\0\0", "VMDK"),
        (b"# Disk DescriptorFile\nversion=1\n", "VMDK"),
        (b"COWD\x01", "VMDK"),
        (b"<domain/>", "XML"),
        (b"\xff\xfea\0", "UTF-16"),
        (b'a = "b\0c"\n', "binary"),
        (b"", "no setting"),
        (b"hello\n", "no setting"),
        (b"QFI\xfb\0", "qcow2"),
        (b'.encoding = "klingon"\na = "\xe9"\n', "klingon"),
        (b'.encoding = "utf-16"\na = "\xe9"\n', "utf-16"),
    ],
)
def test_what_is_no_vmx(data: bytes, words: str) -> None:
    with pytest.raises(DamagedError, match=words):
        parse(data)


def test_a_line_of_100_mb_is_refused() -> None:
    with pytest.raises(DamagedError, match="too many"):
        parse(b'annotation = "' + b"x" * (100 << 20) + b'"\n')


def test_a_long_line_is_read_in_linear_time() -> None:
    """Quadratic work on 8 MB would take hours."""
    for filler in ("|22", "x", '"', "=", " ", 'a="";', "|", "'"):
        parse((HEAD + 'annotation = "' + filler * ((8 << 20) // len(filler)) + '"\n').encode())


def test_20000_guestinfo_keys_are_one_problem() -> None:
    lines = "".join(f'guestinfo.key{number} = "{"x" * 50}"\n' for number in range(20_000))
    found = problems(lines)
    assert len(found) == 1
    assert "19999 more" in found[0]


def test_20000_unknown_keys_are_some_problems() -> None:
    found = problems("".join(f'key{number}.x = "1"\n' for number in range(20_000)))
    assert len(found) == 31
    assert "19970 more" in found[-1]


def test_lax_lines() -> None:
    text = (
        "\ufeff#!/usr/bin/vmware\r\n  DISPLAYNAME=\"a\"\r\nmemsize = 64\r\nNumVCPUs='2' \r\n\r\nnonsense\r\n"
        'annotation = "say "hi" # x = y"\r\nmemSize = "128"\r\ncleanShutdown = "TRUE"; vhv.enable = "TRUE"\r\n'
    ).encode()
    found = parse(text)
    assert found.machine.name == "a"
    assert found.machine.memory.size == 64 << 20
    assert found.machine.cpu == Cpu(count=2, nested=True)
    assert found.machine.description == 'say "hi" # x = y'
    assert [one.what for one in found.problems][:3] == [
        'line 6: no settings (key = "value"); ignored',
        "memsize: the value is not in quotes",
        "memSize: set more than once; the first counts",
    ]


@pytest.mark.parametrize(
    ("encoding", "raw", "text"),
    [
        ("windows-1252", "café".encode("cp1252"), "café"),
        ("windows-1251", "диск".encode("cp1251"), "диск"),
        ("GBK", "虚拟机".encode("gbk"), "虚拟机"),
        ("Big5", "功許蓋".encode("big5"), "功許蓋"),
        ("Shift_JIS", "ソ表".encode("shift_jis"), "ソ表"),
        ("UTF-8", b"caf|C3|A9", "café"),
        ("windows-936", "磁盘".encode("gbk"), "磁盘"),
        ("UTF-8", b"a|22b|7Cc|0Ad", 'a"b|c\nd'),
        ("UTF-8", b"bad |zz |9", "bad |zz |9"),
        ("UTF-8", b"|FF|00", "|FF|00"),
        ("windows-1252", b"caf|E9", "café"),
        ("UTF-8", b"%2f%5C%25%41", "/\\%%41"),
    ],
)
def test_encodings_and_escapes(encoding: str, raw: bytes, text: str) -> None:
    found = parse(b'.encoding = "%s"\nmemSize = "4"\ndisplayName = "%s"\n' % (encoding.encode(), raw))
    assert found.machine.name == text
    assert found.problems == ()


def test_an_unknown_encoding_of_plain_ascii_is_read() -> None:
    found = parse(b'.encoding = "klingon"\ndisplayName = "x"\nmemSize = "4"\n')
    assert found.machine.name == "x"
    assert "klingon" in found.problems[0].what


def test_bytes_that_do_not_fit_are_told() -> None:
    found = parse(b'.encoding = "UTF-8"\ndisplayName = "caf\xe9"\nmemSize = "4"\n')
    assert found.machine.name == "café"
    assert "not in UTF-8" in found.problems[0].what


def test_genid_is_what_windows_sees() -> None:
    """The example of virt-v2v's documentation."""
    found = machine('vm.genid = "-8536691797830587195"\nvm.genidX = "-1723453263670062919"\n')
    assert found.genid == "09512cc5-940a-8987-b950-f54f631015e8"
    assert uuid.UUID(found.genid).bytes_le == struct.pack("<qq", -8536691797830587195, -1723453263670062919)
    assert b'vm.genid = "-8536691797830587195"' in render(found).text
    for half in ("vm.genid", "vm.genidX"):
        assert machine(f'{half} = "5"\n').genid is None


@pytest.mark.parametrize(
    "text",
    [
        "56 4d 2a 1b 00 01 02 03-04 05 06 07 08 09 0a 0b",
        "564d2a1b-0001-0203-0405-060708090a0b",
        "{564D2A1B000102030405060708090A0B}",
    ],
)
def test_uuid(text: str) -> None:
    found = machine(f'uuid.bios = "{text}"\n')
    assert found.uuid == "564d2a1b-0001-0203-0405-060708090a0b"
    assert b'uuid.bios = "56 4d 2a 1b 00 01 02 03-04 05 06 07 08 09 0a 0b"' in render(found).text


def test_a_controller_that_is_off_takes_its_disks_with_it() -> None:
    lines = 'scsi1.present = "FALSE"\nscsi1:0.present = "TRUE"\nscsi1:0.fileName = "x.vmdk"\n'
    assert machine(lines).disks == machine(lines).controllers == ()
    assert problems(lines) == ["scsi1 is off: scsi1:0 is not there either"]


def test_present_false_hides_what_follows_without_a_word() -> None:
    lines = 'ethernet1.present = "FALSE"\nethernet1.address = "00:50:56:00:00:01"\nfoo.present = "false"\nfoo.bar.baz = "1"\n'
    assert machine(lines).nics == ()
    assert problems(lines) == []


@pytest.mark.parametrize("lines", [
    'serial1.fileType = "file"\nserial1.fileName = "x"\n', 'sound.virtualDev = "hdaudio"\n', 'parallel0.fileName = "/dev/lp0"\n'])
def test_what_is_not_said_to_be_there_hides_it_too(lines: str) -> None:
    assert (machine(lines), problems(lines)) == (machine(""), [])
    assert machine(f'{lines.partition(".")[0]}.present = "TRUE"\n{lines}') != machine("")


def test_the_first_floppy_is_there_unless_it_is_switched_off() -> None:
    assert [drive.floppy for drive in parse(b'displayName = "x"\n').machine.drives] == [True]
    assert parse(b'floppy0.present = "FALSE"\nfloppy1.fileName = "x"\n').machine.drives == ()


@pytest.mark.parametrize(
    ("lines", "mac", "kind"),
    [
        (
            'addressType = "static"\nethernet0.address = "00:50:56:01:02:03"\nethernet0.generatedAddress = "00:0c:29:00:00:01"',
            "00:50:56:01:02:03",
            "static",
        ),
        (
            'addressType = "generated"\nethernet0.address = "00:50:56:01:02:03"\n'
            'ethernet0.generatedAddress = "00:0c:29:00:00:01"',
            "00:0c:29:00:00:01",
            "generated",
        ),
        ('addressType = "VPX"\nethernet0.generatedAddress = "00-50-56-95-72-98"', "00:50:56:95:72:98", "vpx"),
        ('address = "52:54:00:AA:BB:CC"', "52:54:00:aa:bb:cc", "static"),
        ('generatedAddress = "00:0C:29:00:00:01"', "00:0c:29:00:00:01", "generated"),
        ('address = "00:50:56:01:02:03"\nethernet0.generatedAddress = "00:0c:29:00:00:01"', "00:0c:29:00:00:01", "generated"),
        ('addressType = "generated"', None, "generated"),
        ('addressType = "static"\nethernet0.address = "nonsense"', None, "static"),
    ],
)
def test_mac(lines: str, mac: str | None, kind: str) -> None:
    nic = machine(f'ethernet0.present = "TRUE"\nethernet0.{lines}\n').nics[0]
    assert (nic.mac, nic.mac_kind) == (mac, kind)


@pytest.mark.parametrize(
    ("mac", "check"),
    [
        ("52:54:00:01:02:03", True),
        ("00:0c:29:01:02:03", True),
        ("00:50:56:95:72:98", True),
        ("00:50:56:3f:ff:ff", False),
        ("00:50:56:40:00:00", True),
    ],
)
def test_a_mac_of_nobody_knows_whom_is_static(mac: str, check: bool) -> None:
    """ESXi refuses a static address outside its range unless it is told not to look."""
    text = render(Machine(name="x", nics=(Nic(mac=mac),))).text.decode()
    assert f'ethernet0.addressType = "static"\nethernet0.address = "{mac}"' in text
    assert ('ethernet0.checkMACAddress = "FALSE"' in text) is check


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("00000:013:00.0", "0000:0d:00.0"),
        ("0000:0d:00.0", "0000:0d:00.0"),
        ("0:66:0.0", "0000:42:00.0"),
        ("130:00.0", "0000:82:00.0"),
        ("00000:026:01.2", "0000:1a:01.2"),
    ],
)
def test_pci_addresses_are_decimal(given: str, address: str) -> None:
    found = machine(f'pciPassthru0.present = "TRUE"\npciPassthru0.id = "{given}"\n')
    assert found.passthrough == (Passthrough(kind="pci", address=address),)
    assert machine(render(found).text.decode()).passthrough == found.passthrough


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ({}, 7),
        ({"disks": (DiskSlot(path="x", bus=Bus.NVME),)}, 13),
        ({"disks": (DiskSlot(path="x", unit=16),)}, 13),
        ({"disks": (DiskSlot(path="x", bus=Bus.SATA),)}, 10),
        ({"firmware": Firmware(kind=FirmwareKind.UEFI)}, 8),
        ({"firmware": Firmware(kind=FirmwareKind.UEFI, secure_boot=True)}, 13),
        ({"tpm": Tpm(version="2.0")}, 14),
        ({"cpu": Cpu(count=64)}, 9),
        ({"cpu": Cpu(count=200)}, 15),
        ({"cpu": Cpu(nested=True)}, 9),
        ({"memory": Memory(size=1024 * GIB)}, 11),
        ({"nics": (Nic(model="e1000e"),)}, 8),
        ({"usb": ("xhci",)}, 8),
        ({"controllers": (Controller(bus=Bus.NVME),)}, 13),
        ({"disks": (DiskSlot(path="x", bus=Bus.NVME, unit=15),)}, 21),
    ],
)
def test_the_lowest_hardware_that_has_what_is_needed(changes: dict[str, Any], version: int) -> None:
    wanted = Machine(name="x", **changes)
    assert lowest_hardware(wanted) == version
    assert f'virtualHW.version = "{version}"' in render(wanted).text.decode()


def test_what_a_stock_esxi_needs() -> None:
    text = render(
        Machine(
            name="x",
            guest_os=GuestOs(id="debian12"),
            memory=Memory(size=GIB + 1),
            hardware_version=10,
            uuid=str(uuid.UUID(int=7)),
            disks=(DiskSlot(path="x.vmdk"),),
            firmware=Firmware(kind=FirmwareKind.UEFI, secure_boot=True),
        )
    ).text.decode()
    lines = text.splitlines()
    assert lines[0] == '.encoding = "UTF-8"'
    assert {
        'config.version = "8"',
        'virtualHW.version = "10"',
        'guestOS = "debian7-64"',
        'memSize = "1028"',
        'scsi0.present = "TRUE"',
        'scsi0:0.deviceType = "scsi-hardDisk"',
        'pciBridge0.present = "TRUE"',
        'pciBridge4.virtualDev = "pcieRootPort"',
        'firmware = "efi"',
        'pciBridge7.functions = "8"',
        'floppy0.present = "FALSE"',
        'uuid.action = "keep"',
        'uefi.secureBoot.enabled = "TRUE"',
    } <= set(lines)
    assert not re.search("pciSlotNumber|sasWWID|uuid.location|vmci0.id|derivedName", text)
    assert "pciBridge" not in render(Machine(name="x", hardware_version=4)).text.decode()
    assert 'disk.EnableUUID = "TRUE"' in render(Machine(name="x", guest_os=GuestOs(id="windows2019"))).text.decode()


LOST = Machine(
    name="x",
    hardware_version=13,
    memory=Memory(size=GIB + 1, maximum=2 * GIB),
    cpu=Cpu(count=3, topology=Topology(sockets=2, cores=2)),
    disks=(
        DiskSlot(path="a.qcow2", format="qcow2"),
        DiskSlot(path="b", bus=Bus.VIRTIO),
        DiskSlot(path="c.vmdk", unit=7, format="vmdk"),
    ),
    nics=(Nic(model="virtio", network=Network(kind=NetworkKind.NETWORK, name="default")),),
    rng="/dev/urandom",
    inputs=("tablet",),
    serials=(Port(kind="pty"),),
    graphics=(Graphics(kind="spice"),),
    videos=(Video(model="qxl"),),
    genid="nonsense",
    uuid="x\ny",
    controllers=(Controller(bus=Bus.IDE), Controller(bus=Bus.SCSI, model="virtio-scsi")),
    guest_os=GuestOs(id="rhel8", release="8.6"),
)


def test_what_a_vmx_cannot_hold_is_told() -> None:
    done = render(LOST)
    told = {pattern(one.what.partition(" = ")[0].partition(":")[0]) for one in done.problems}
    assert told == {
        "uuid",
        "genid",
        "guest_os.release",
        "guest_os.id",
        "cpu.topology.sockets",
        "cpu.topology.cores",
        "memory.size",
        "memory.maximum",
        "controllers.model",
        "disks.format",
        "disks",
        "nics.model",
        "nics.network.kind",
        "serials",
        "graphics",
        "videos.model",
        "inputs",
        "rng",
    }
    assert next(one.hint for one in done.problems if "rng" in one.what)


def test_passwords_stay() -> None:
    found = parse(
        (HEAD + 'RemoteDisplay.vnc.enabled = "TRUE"\nRemoteDisplay.vnc.password = "s3cret"\nfoo.password = "s3cret"\n').encode()
    )
    assert found.machine.graphics == (Graphics(kind="vnc", password=True),)
    assert "s3cret" not in repr(found)
    assert b"s3cret" not in render(found.machine).text
    assert any("vnc" in one.what for one in found.problems)


def test_everything_that_it_holds_is_in_a_golden_file() -> None:
    there = {pattern(path) for file in (DESCRIPTIONS / "vmx").glob("*.vmx") for path, _ in said(parse(file.read_bytes()).machine)}
    assert HOLDS - there == {"graphics.kind"}, "vnc is the default, and so never said"


ONTO = b"""\xef\xbb\xbf#!/usr/bin/vmware\r
.encoding = "windows-1252"\r
config.version = "8"\r
  DisplayName   =   "old"\t\r
# a remark\r
\r
memSize = "1024"\r
scsi0.present = "TRUE"\r
scsi0:0.present = "TRUE"\r
scsi0:0.fileName = "caf\xe9.vmdk"\r
ethernet0.present = "TRUE"\r
ethernet0.pciSlotNumber = "33"\r
floppy0.present = "FALSE"\r
vendor.secret = "keep |22me|22"
""".replace(b"\xef\xbb\xbf", b"")


def test_onto_changes_only_what_must_change() -> None:
    old = parse(ONTO).machine
    done = render(replace(old, name="new", memory=Memory(size=2 * GIB)), onto=ONTO)
    assert done.text == ONTO.replace(b'"old"', b'"new"').replace(b'"1024"', b'"2048"')
    gone = render(replace(old, nics=()), onto=ONTO).text
    assert gone == b"".join(line for line in ONTO.splitlines(keepends=True) if not line.startswith(b"ethernet0"))


def test_onto_a_key_that_stands_twice() -> None:
    text = HEAD.encode() + b'displayName = "y"\nmemSize = "8"\n'
    done = render(replace(parse(text).machine, name="z"), onto=text).text
    assert done == text.replace(b'displayName = "y"\n', b"").replace(b'"x"', b'"z"')


SHARED = b"""\xef\xbb\xbfconfig.version = "8"; displayName = "old"\r
virtualHW.version = "13"; memSize = "1024"; annotation = 'a "b" |7c'\r
RemoteDisplay.vnc.password = "hunter2"; numvcpus = "4"\r
guestOS = "debian10-64"; uuid.action = "keep"\r
"""


def test_onto_a_line_with_several_settings_changes_one_of_them() -> None:
    old = parse(SHARED).machine
    wanted = replace(old, name="new", memory=Memory(size=2 * GIB))
    done = render(wanted, onto=SHARED)
    assert parse(done.text).machine == wanted
    assert not done.problems
    assert b'\nguestOS = "debian10-64"; uuid.action = "keep"\r\n' in done.text
    assert parse(render(replace(old, description=None), onto=SHARED).text).machine == replace(old, description=None)


def test_without_secrets_keeps_what_shares_their_line() -> None:
    clean = without_secrets(SHARED)
    assert clean == SHARED.replace(b'RemoteDisplay.vnc.password = "hunter2"; ', b"")
    assert without_secrets(clean) == clean


@pytest.mark.parametrize("line", [
    b'# RemoteDisplay.vnc.password = "x"\r\n', b'#was: remotedisplay.VNC.key = "x"; numvcpus = "1"\n',
    b'the old RemoteDisplay.vnc.password = "x"\n'])
def test_without_secrets_in_a_comment(line: bytes) -> None:
    rest = b'# RemoteDisplay.vnc.port\nannotation = "# RemoteDisplay.vnc.password"\nno setting\n'
    assert without_secrets(HEAD.encode() + line + rest) == HEAD.encode() + rest


@pytest.mark.parametrize("path", sorted((DESCRIPTIONS / "vmx").glob("*.vmx")), ids=lambda path: path.stem)
def test_files_of_real_life(path: Path) -> None:
    """Onto itself nothing changes; written anew it means the same."""
    data = path.read_bytes()
    found = parse(data).machine
    assert render(found, onto=data).text == data
    again = render(found)
    differ = {one.what.partition(" = ")[0] for one in again.problems}
    assert differ <= {"graphics[0].password", "guest_os.word", "guest_os.arch"}
    if not differ and found.hardware_version and path.stem != "ide_without_device_type":  # that gets a checkMACAddress
        assert parse(again.text).machine == found


def test_onto_in_an_encoding_that_lacks_a_letter_becomes_utf8() -> None:
    old = parse(ONTO).machine
    done = render(replace(old, name="虚拟机"), onto=ONTO).text
    assert b'.encoding = "UTF-8"\r\n' in done
    assert parse(done).machine == replace(old, name="虚拟机")
    assert parse(done).machine.disks[0].path == "café.vmdk"


def test_onto_removes_what_would_contradict() -> None:
    text = HEAD.encode() + (
        b'sched.mem.minsize = "64"\nmemSize = "8"\nethernet0.present = "FALSE"\nethernet0.address = "00:50:56:00:00:09"\n'
    )
    wanted = replace(parse(text).machine, nics=(Nic(model="e1000", mac_kind="generated"),))
    again = parse(render(replace(wanted, hardware_version=8), onto=text).text).machine
    assert again.nics == wanted.nics
    assert (
        parse(
            render(replace(wanted, resources=replace(wanted.resources, memory_reservation=None)), onto=text).text
        ).machine.resources.memory_reservation
        is None
    )


def test_trace_and_chain() -> None:
    found = parse((HEAD + 'scsi0.present = "TRUE"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "x-000002.vmdk"\n').encode())
    assert ("disks[0].path", "scsi0:0.fileName", "x-000002.vmdk") in found.trace
    assert "snapshots" in found.problems[0].what
    assert ("disks[0].path", "scsi0:0.fileName", "x-000002.vmdk") in render(found.machine).trace


def test_onto_a_file_whose_last_line_has_no_end() -> None:
    for end in (b"\n", b"\r\n"):
        text = end.join(HEAD.encode().split(b"\n")[:-1])
        assert not text.endswith(b"\n")
        wanted = replace(parse(text).machine, description="new")
        done = render(wanted, onto=text).text
        assert done.startswith(text + end)
        assert parse(done).machine == wanted


def test_onto_a_file_that_does_not_name_its_encoding_becomes_utf8() -> None:
    text = b'config.version = "8"\r\ndisplayName = "caf\xe9"\r\nmemSize = "4"\r\n'
    old = parse(text).machine
    done = render(replace(old, description="\u865a\u62df\u673a"), onto=text).text
    assert done.startswith(b'.encoding = "UTF-8"\n')
    assert parse(done).machine == replace(old, description="\u865a\u62df\u673a")


def test_an_address_that_is_none_stays_as_it_stands() -> None:
    found = machine('pciPassthru0.present = "TRUE"\npciPassthru0.id = "the card below"\n')
    assert found.passthrough == (Passthrough(kind="pci", address="the card below"),)
    assert 'pciPassthru0.id = "the card below"' in render(found).text.decode()


def test_a_kind_of_opaque_network_that_is_not_nsx_is_told() -> None:
    lines = 'ethernet0.present = "TRUE"\nethernet0.opaqueNetwork.id = "x"\nethernet0.opaqueNetwork.type = "{}"\n'
    assert [one for one in problems(lines.format("other")) if "opaqueNetwork.type" in one] == [
        "ethernet0.opaqueNetwork.type = other: not carried"]
    assert not [one for one in problems(lines.format("nsx.LogicalSwitch")) if "opaqueNetwork" in one]


def test_an_empty_address_is_none() -> None:
    lines = 'ethernet0.present = "TRUE"\nethernet0.addressType = "generated"\nethernet0.generatedAddress = "{}"\n'
    assert machine(lines.format(" ")).nics[0].mac is None
    assert not [one for one in problems(lines.format(" ")) if "generatedAddress" in one]
    assert machine(lines.format("000C29AABBCC")).nics[0].mac == "00:0c:29:aa:bb:cc"


def test_what_is_no_text_stays_an_escape() -> None:
    assert unescape("a|FFb|C3|A9") == "a|FFb\u00e9"
    assert unescape("|FF", "latin-1") == "\u00ff"
    assert escape("a\udcffb\ud800") == "a|FFb|3F", "a byte of a file's name, and nonsense"


def test_a_line_of_which_only_a_part_is_several_settings_is_one() -> None:
    """What is behind the quotes is no setting."""
    found = take_apart(HEAD.encode() + b'one = "1"; two = 2\nfour = "4"; six = "6"\n')
    assert found.entries["one"].value == "1"
    assert [key in found.entries for key in ("two", "four", "six")] == [False, True, True]


def test_a_folder_that_is_not_there_is_left_out() -> None:
    line = 'sharedFolder0.hostPath = "/srv"\nsharedFolder0.guestName = "srv"\n'
    assert machine(line).shared_folders == ()
    assert machine(line + 'sharedFolder0.present = "TRUE"\n').shared_folders[0].path == "/srv"
