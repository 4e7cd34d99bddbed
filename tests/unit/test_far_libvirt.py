"""Parts of the far libvirt host that need no host: graphs, joined ranges, descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from imgtool.endpoints import uri
from imgtool.endpoints.far import nbd, tunnel
from imgtool.endpoints.libvirt import define, far, watch
from imgtool.endpoints.libvirt.disks import Behind
from imgtool.errors import DamagedError, RefusedError
from imgtool.progress import Stop

MIB = 1 << 20


def test_graph_names_each_format_and_file() -> None:
    said = json.loads(nbd.graph([("/a/top", "qcow2"), ("/b/base", "raw")], block=False).removeprefix("json:"))
    assert said == {"driver": "qcow2", "file": {"driver": "file", "filename": "/a/top"},
                    "backing": {"driver": "raw", "file": {"driver": "file", "filename": "/b/base"}}}
    alone = json.loads(nbd.graph([("/dev/vg/lv", "qcow2")], block=True).removeprefix("json:"))
    assert alone == {"driver": "qcow2", "file": {"driver": "host_device", "filename": "/dev/vg/lv", "cache": {"direct": True}},
                     "backing": None}


@pytest.mark.parametrize("said", [
    "", "[]", "{}", "null", "[1]", "[[]]", "[" * 20000, '[{"filename": "/a"}]', '[{"filename": "/a", "format": 5}]',
    '[{"filename": "/a\\u0000", "format": "qcow2"}]',
    '[{"filename": "/p/a", "format": "qcow2"}, {"filename": "/p/b\\u0000", "format": "raw"}]'])
def test_a_chain_that_is_none(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """What the host says may be a stranger's words."""
    monkeypatch.setattr(tunnel, "run", lambda *_words, **_options: said)
    behind = Behind(name="a", device="vda", path="/p/a", format="qcow2", kind="qcow2")
    with pytest.raises(DamagedError, match=r"cannot be understood|names no files"):
        far.chain(uri.parse("qemu+ssh://root@kvm1/system"), behind, ["/p"], Stop())


def test_joined_ranges() -> None:
    zeros = [(0, 4096, True), (4096, 8192, False), (8192, 12288, True), (12288, 16384, False), (16384, MIB, True),
             (MIB, 2 * MIB, False)]
    assert list(nbd._joined(iter(zeros))) == [(0, 4096, True), (4096, 16384, False), (16384, MIB, True), (MIB, 2 * MIB, False)]


def test_joined_ranges_do_not_wait_for_the_end() -> None:
    def endless() -> Iterator[tuple[int, int, bool]]:
        at = 0
        while True:
            yield at, at + MIB, False
            at += MIB

    found = nbd._joined(endless())
    assert next(found) == (0, nbd.MOST, False)
    assert next(found) == (nbd.MOST, 2 * nbd.MOST, False)


def test_disks_get_their_places_in_the_description() -> None:
    text = (b"<domain><name>x</name><devices><disk type='block' device='disk'><source dev='/old/a &amp; b.qcow2'/></disk>"
            b"<disk type='file' device='cdrom'><source file='/old/c.raw'/></disk>"
            b"<disk type='file'><driver name='qemu' type='vmdk' cache='none'/>"
            b"<source file='/old/c.raw' startupPolicy='optional'/></disk></devices></domain>")
    placed = define.with_disks(text, [("a & b.qcow2", "/new/a & b.qcow2", "qcow2"), ("c.raw", "/new/c.raw", "raw")])
    assert placed == (b"<domain><name>x</name><devices><disk type=\"file\" device=\"disk\"><driver name=\"qemu\" type=\"qcow2\"/>"
                      b"<source file=\"/new/a &amp; b.qcow2\"/></disk>"
                      b"<disk type=\"file\" device=\"cdrom\"><source file=\"/old/c.raw\"/></disk>"
                      b"<disk type=\"file\"><driver name=\"qemu\" type=\"raw\" cache=\"none\"/><source file=\"/new/c.raw\"/>"
                      b"</disk></devices></domain>")
    with pytest.raises(RefusedError, match="does not name"):
        define.with_disks(text, [("other", "/new/other", "raw")])


@pytest.mark.parametrize(("said", "shown"), [
    (b"", ""), (b"\r\n \n", ""), (b"one\r\ntwo \r\n", "two"), (b"\x1b[2J\x1bM\x1b[01;31mred\x1b[0m\n", "red"),
    ("Zeile ü\nDebian login: ".encode(), "Debian login:"), (b"a" * 500, "a" * watch.SHOWN),
    (b"x\n\xff\xfe bad\x07", "\ufffd\ufffd bad")])
def test_last_words_of_a_console(said: bytes, shown: str) -> None:
    assert watch._last(said) == shown
