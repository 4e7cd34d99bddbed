"""Domain XML from strangers: read, or refused with the right error, and soon; never resolved, fetched or run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from imgtool.descriptions.domain_xml import parse, render, without_secrets
from imgtool.descriptions.domain_xml.document import MAX_SIZE
from imgtool.errors import DamagedError
from imgtool.model.devices import Bus, DiskSlot, Network, NetworkKind, Nic
from imgtool.model.machine import Machine
from tests.golden import inputs
from tests.program import ROOT

BODY = "<name>x</name><memory>1024</memory><vcpu>1</vcpu>"
LAUGHS = "".join(f'<!ENTITY a{n} "' + f"&a{n - 1};" * 10 + '">' for n in range(1, 10))
BOMB = f'<!DOCTYPE domain [<!ENTITY a0 "ha">{LAUGHS}]><domain type="kvm"><name>&a9;</name></domain>'
REFUSED = {
    "entity bomb": BOMB,
    "entity bomb in an attribute": BOMB.replace('<domain type="kvm">', '<domain type="&a9;">'),
    "external entity": '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain type="kvm"><name>&x;</name></domain>',
    "external subset": f'<!DOCTYPE domain SYSTEM "http://192.0.2.1/x.dtd"><domain type="kvm">{BODY}</domain>',
    "DOCTYPE behind all": f'\ufeff<?xml version="1.0"?>\n<!-- > --><?a ?><!DOCTYPE domain><domain type="kvm">{BODY}</domain>',
    "undefined entity": '<domain type="kvm"><name>&x;</name></domain>',
    "deep nesting": '<domain type="kvm">' + "<a>" * 100_000,
    "forbidden characters": '<domain type="kvm"><name>a&#1;b</name></domain>',
    "NUL": f'<domain type="kvm">\0{BODY}</domain>',
    "UTF-7": '<?xml version="1.0" encoding="UTF-7"?>+ADw-domain/+AD4-',
    "a codec of Python": '<?xml version="1.0" encoding="rot13"?><domain/>',
    "no XML": "config.version = 8",
    "nothing": "",
    "another document": "<network><name>x</name></network>",
    "a snapshot": f'<domainsnapshot><domain type="kvm">{BODY}</domain></domainsnapshot>',
    "no name": '<domain type="kvm"><memory>1</memory></domain>',
    "a container": f'<domain type="lxc">{BODY}</domain>',
    "no type": f"<domain>{BODY}</domain>",
    "two roots": f'<domain type="kvm">{BODY}</domain><domain/>',
    "perhaps": f'<domain type="kvm">{BODY}<os><type>hvm</type><bootmenu enable="perhaps"/></os></domain>',
    **{
        f"a card at {place[:20]}": f'<domain type="kvm">{BODY}<devices><hostdev type="pci"><source><address domain="0" '
                                  f'bus="{place}" slot="0" function="0"/></source></hostdev></devices></domain>'
        for place in ("zz", "0x", "-1", "1" * 5000, "1.5")
    },
    **{
        f"vcpu {number[:20]}": f'<domain type="kvm"><name>x</name><vcpu>{number}</vcpu></domain>'
        for number in ("0", "-1", "x", "1" * 5000, "1e3", "\u0663", "65537", "0x10")
    },
    **{
        f"memory {number} {unit}": f'<domain type="kvm"><name>x</name><memory unit="{unit}">{number}</memory></domain>'
        for number, unit in (("9" * 19, "EiB"), ("1", "parsecs"), ("1", "kk"), ("-5", "KiB"), ("1.5", "GiB"))
    },
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_is_refused(text: str) -> None:
    with pytest.raises(DamagedError):
        parse(text.encode())


def test_utf_16_is_refused() -> None:
    with pytest.raises(DamagedError, match="utf-8"):
        parse(f'<domain type="kvm">{BODY}</domain>'.encode("utf-16"))


def test_a_document_that_is_too_large_is_not_looked_at() -> None:
    with pytest.raises(DamagedError, match="too many"):
        parse(b'<domain type="kvm"><!--' + b"x" * MAX_SIZE)


SLOW = {
    "blanks before a DOCTYPE": " " * (MAX_SIZE - 100),
    "comments before a DOCTYPE": "<!---->" * ((MAX_SIZE - 100) // 7),
    "an attribute": f'<domain type="{"k" * (MAX_SIZE - 100)}">{BODY}</domain>',
    "a name": f'<domain type="kvm"><name>{"n" * (MAX_SIZE - 100)}</name></domain>',
    "unknown elements": f'<domain type="kvm">{BODY}{"<a/>" * 50_000}</domain>',
    "disks": f'<domain type="kvm">{BODY}<devices>' + '<disk><target dev="vda"/></disk>' * 5_000 + "</devices></domain>",
    "processors": f'<domain type="kvm"><name>x</name><vcpu cpuset="{"0-99999," * 3000}">1</vcpu></domain>',
}
CHILD = """
import sys
from imgtool.descriptions.domain_xml import parse
from imgtool.errors import DamagedError
try:
    parse(sys.stdin.buffer.read())
except DamagedError:
    pass
print("ended")
"""


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW.keys())
def test_megabytes_of_nonsense_are_read_soon(text: str) -> None:
    """In a process of its own: what runs away cannot be interrupted."""
    assert len(text) <= MAX_SIZE
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=text.encode(), cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b"ended\n", done.stderr.decode()


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_damaged(raw: bytes) -> None:
    with suppress(DamagedError):
        parse(b'<domain type="kvm">' + raw)


WEIRD = st.sampled_from(
    ["", " ", "-1", "9" * 30, "nan", "yes", "../../x", 'a"; rm -rf', "\u202e", "0x", "a:b:c", "[::", "/", "1-", "^"]
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(inputs(".xml")), st.data())
def test_any_value_in_a_real_domain_is_read_or_damaged(path: Path, data: st.DataObject) -> None:
    """And what was read can be written; what was written onto the same file too."""
    root = etree.fromstring(path.read_bytes())
    elements = list(root.iter("*"))
    for _ in range(data.draw(st.integers(1, 4))):
        element = data.draw(st.sampled_from(elements))
        if element.attrib and data.draw(st.booleans()):
            element.set(data.draw(st.sampled_from(list(element.attrib))), data.draw(WEIRD))
        else:
            element.text = data.draw(WEIRD)
    text = etree.tostring(root)
    with suppress(DamagedError):
        machine = parse(text).machine
        assert render(machine, onto=text).text == text


NASTY = [
    'a"; rm -rf /',
    "../../x",
    "<disk/>",
    "]]>",
    "&amp;",
    "a' b=\"c",
    "--><!--",
    "$(reboot)",
    "a\nb",
    "\u202e",
    "x\x00y",
    "\x1b[31m",
    "\ud800",
    "\ufffe",
    "/",
    " ",
    ".",
]


@given(st.sampled_from(NASTY) | st.text(max_size=30))
@example("\x0b")
def test_no_name_becomes_markup(name: str) -> None:
    machine = Machine(
        name=name,
        accelerator="qemu",
        description=name,
        disks=(DiskSlot(path=name, bus=Bus.VIRTIO, format="raw", serial=name),),
        nics=(Nic(network=Network(kind=NetworkKind.BRIDGE, name=name)),),
    )
    rendered = render(machine)
    plain = render(
        Machine(
            name="plain",
            accelerator="qemu",
            description="d",
            disks=(DiskSlot(path="p", bus=Bus.VIRTIO, format="raw", serial="s"),),
            nics=(Nic(network=Network(kind=NetworkKind.BRIDGE, name="n")),),
        )
    )
    tags = [one.tag for one in etree.fromstring(rendered.text).iter()]
    assert tags == [one.tag for one in etree.fromstring(plain.text).iter()] or (not name and rendered.problems)
    assert parse(rendered.text).machine.name == name or rendered.problems


@pytest.mark.parametrize(("graphics", "left"), [
    ("<graphics type='vnc' passwd='a\"b' port='1'/>", "<graphics type='vnc' port='1'/>"),
    ('<graphics\n  passwd = "x>y" passwdValidTo="2030-01-01T00:00:00"\ttype="spice"><!-- passwd="c" --></graphics>',
     '<graphics\ttype="spice"><!-- passwd="" --></graphics>'),
    ("<!-- <graphics passwd='x'/> --><graphicsx passwd='y'/>", "<!-- <graphics passwd=\"\"/> --><graphicsx passwd='y'/>"),
    ("<!-- -passwd='c'-passwd=\"d\n\" passwd = 1, passwd='e-->", "<!-- -passwd=\"\"-passwd=\"\" passwd = 1, passwd='e-->"),
])
def test_secrets_are_taken_out_of_a_text(graphics: str, left: str) -> None:
    before, after = (f"<?xml version='1.0'?>\n<domain type='kvm'>\n <name>x</name><devices>{one}</devices></domain>\n".encode()
                     for one in (graphics, left))
    assert without_secrets(before) == after


def test_no_password_goes_anywhere() -> None:
    """Not into a problem, not into the trace, not into what is written."""
    words = ("hunter2", "geheim", "s3cret")
    seen = 0
    for path in inputs(".xml"):
        text = path.read_bytes()
        seen += any(word.encode() in text for word in words)
        parsed = parse(text)
        shown = repr(parsed) + render(parsed.machine).text.decode()
        assert [word for word in words if word in shown] == []
    assert seen == 4
