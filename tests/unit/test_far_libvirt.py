"""Parts of the far libvirt host that need no host: graphs, joined ranges, descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool.endpoints import uri
from imgtool.endpoints.far import nbd, tunnel
from imgtool.endpoints.libvirt import define, far, watch
from imgtool.endpoints.libvirt.disks import Behind
from imgtool.errors import DamagedError, MissingToolError, RefusedError, StoppedError
from imgtool.progress import Control, Stop

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


class CutError(Exception):
    """libnbd's, of a connection that was cut."""


class Links:
    """Makes connections to a far disk, of which those that ``cuts`` numbers fail at once."""

    def __init__(self, *cuts: int) -> None:
        self.cuts, self.made, self.open = cuts, 0, 0

    def __call__(self, *_words: object, **_options: object) -> Any:
        self.made, self.open = self.made + 1, self.open + 1
        return SimpleNamespace(state=["file 1"], dead=False, close=self.close,
                               handle=lambda number=self.made: self.handle(number))

    def close(self) -> None:
        self.open -= 1

    @contextmanager
    def handle(self, number: int) -> Iterator[Any]:
        if number in self.cuts:
            raise CutError
        yield SimpleNamespace(get_size=lambda: MIB)


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Links:
    found = Links(1)
    monkeypatch.setattr(nbd, "Link", found)
    monkeypatch.setattr(nbd, "load_nbd", lambda: SimpleNamespace(Error=CutError))
    return found


def far_disk(control: Control) -> nbd.FarDisk:
    return nbd.FarDisk(uri.parse("qemu+ssh://root@kvm1/system"), [("/a", "raw")], block=False, control=control)


def test_a_far_disk_that_is_cut_while_it_is_opened(links: Links) -> None:
    disk = far_disk(Control())
    assert (disk.size, links.made, links.open) == (MIB, 2, 1)
    disk.close()
    assert links.open == 0


def test_a_far_disk_that_cannot_be_opened_leaves_nothing(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    control.stop.set()
    with pytest.raises(StoppedError):
        far_disk(control)
    assert (links.made, links.open) == (1, 0)

    def missing() -> None:
        raise MissingToolError("no libnbd")

    monkeypatch.setattr(nbd, "load_nbd", missing)
    with pytest.raises(MissingToolError):
        far_disk(Control())
    assert links.open == 0


@pytest.mark.parametrize("said", [[], [(0, 0)], [(0, 2), (0, 0)]])
@pytest.mark.usefixtures("links")
def test_a_far_disk_that_does_not_say_what_it_holds(monkeypatch: pytest.MonkeyPatch, said: list[tuple[int, int]]) -> None:
    """It would be asked the same without end."""
    disk, asked = far_disk(Control()), Stop()

    def status(_handle: object, at: int, length: int) -> list[tuple[int, int]]:
        asked.check()
        if at:
            asked.set()
            return said
        return [(length // 2, 0)]

    monkeypatch.setattr(nbd, "_status", status)
    with pytest.raises(DamagedError, match=f"does not say what /a holds from byte {MIB // 2} on"):
        list(disk._map(0, MIB, Stop()))
    disk.close()


@pytest.mark.parametrize("said", ["ready", "file 1\nfile 2\nready"])
def test_a_far_host_that_speaks_of_other_files(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(nbd.ssh, "argv", lambda *_words, **_options: ["sh", "-c", f"echo '{said}'; exec cat"])
    with pytest.raises(DamagedError, match="asked about 1 files"):
        nbd.Link(uri.parse("qemu+ssh://root@kvm1/system"), [("/a", "raw")], block=False, stop=Stop())


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
