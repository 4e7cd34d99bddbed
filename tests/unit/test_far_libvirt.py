"""Parts of the far libvirt host that need no host: graphs, joined ranges, descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool.endpoints import uri
from imgtool.endpoints.far import nbd, tunnel
from imgtool.endpoints.far.file import FarFile, data_of
from imgtool.endpoints.libvirt import define, far, far_target, send, watch
from imgtool.endpoints.libvirt.disks import Behind
from imgtool.errors import (
    DamagedError,
    DifferError,
    ImgtoolError,
    MissingToolError,
    RefusedError,
    StoppedError,
    UnreachableError,
    UsageError,
)
from imgtool.model.endpoint import NewDisk
from imgtool.progress import Control, Stop

MIB = 1 << 20
KVM1 = uri.parse("qemu+ssh://root@kvm1/system")


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


@pytest.mark.parametrize(("layer", "words"), [
    ({"backing-filename": "base"}, "does not say which format its backing image has"), ({"encrypted": True}, "is encrypted")])
def test_a_chain_that_is_not_followed(monkeypatch: pytest.MonkeyPatch, layer: dict[str, object], words: str) -> None:
    """A format that is not said would be probed: a guest could write one into its disk."""
    said = [{"filename": "/p/a", "format": "qcow2"} | layer, {"filename": "/p/base", "format": "raw"}]
    monkeypatch.setattr(tunnel, "run", lambda *_words, **_options: json.dumps(said))
    behind = Behind(name="a", device="vda", path="/p/a", format="qcow2", kind="qcow2")
    with pytest.raises(RefusedError, match=words):
        far.chain(KVM1, behind, ["/p"], Stop())


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

    errnum = 5


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


def test_a_far_disk_that_is_always_cut(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    links.cuts = range(1, 100)  # type: ignore[assignment]
    monkeypatch.setattr(nbd, "PAUSE", 0.001)
    with pytest.raises(UnreachableError, match="reading /a") as caught:
        far_disk(Control())
    assert "goes on where it stopped" in (caught.value.hint or "")
    assert (links.made, links.open) == (1 + nbd.TRIES, 0)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_read_that_fails_is_a_bad_sector_or_a_cut(links: Links, monkeypatch: pytest.MonkeyPatch, speaks: bool) -> None:
    """A cut connection is made again: what could not be read over it is not zeros in a copy."""
    nbd_module = SimpleNamespace(Error=CutError, CMD_FLAG_DF=4)
    monkeypatch.setattr(nbd, "load_nbd", lambda: nbd_module)

    def pread(length: int, _at: int, _chunk: object, *, flags: int) -> bytes:
        assert flags == nbd_module.CMD_FLAG_DF
        if links.made == 2:
            raise CutError
        return b"x" * length

    @contextmanager
    def handle(_number: int) -> Iterator[Any]:
        yield SimpleNamespace(get_size=lambda: MIB, pread_structured=pread, aio_is_ready=lambda: speaks)

    disk = far_disk(Control())
    monkeypatch.setattr(links, "handle", handle)
    if speaks:
        with pytest.raises(ImgtoolError, match="/a cannot be read at byte 512"):
            disk.pread(512, 1024, Stop())
    else:
        assert disk.pread(512, 1024, Stop()) == b"x" * 512
    assert links.made == (2 if speaks else 3)
    disk.close()


def test_a_qemu_nbd_that_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd.ssh, "argv", lambda *_words, **_options: ["sleep", "60"])
    monkeypatch.setattr(nbd, "READY_SECONDS", 0)
    with pytest.raises(UnreachableError, match="was not ready"):
        nbd.Link(KVM1, [("/a", "raw")], block=False, stop=Stop())


@pytest.mark.parametrize("there", ["run/libvirt-sock", "/run/a:b", "/tmp/x:/etc/shadow"])
def test_a_socket_that_is_not_forwarded(there: str) -> None:
    """ssh would take it for another one, of this machine or that."""
    with pytest.raises(UsageError, match="cannot be forwarded"):
        tunnel.options("/near", there)


def test_a_far_end_that_sends_too_little() -> None:
    """It would leave a gap in the copy."""
    assert data_of(({}, b"12"), 2) == b"12"
    assert data_of(({"zero": True}, b""), 2) is None
    with pytest.raises(DamagedError, match="1 bytes instead of 2"):
        data_of(({}, b"1"), 2)


def test_a_far_map_that_goes_backwards() -> None:
    """It would be asked without end."""
    answers = iter([{"size": 4096, "sector": 512, "physical": 512, "block": False, "handle": 1},
                    {"ranges": [[0, 512]], "next": 1024}, {"ranges": [], "next": 1024}])
    file = FarFile(SimpleNamespace(name="far", call=lambda *_words, **_details: (next(answers), b"")), "/a")  # type: ignore[arg-type]
    found = file.data(0, 4096)
    assert next(found) == (0, 512)
    with pytest.raises(DamagedError, match="goes backwards"):
        next(found)


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


class Asked:
    """A far end that notes what is asked of it; giving a file away fails with ``error``."""

    def __init__(self, error: ImgtoolError | None = None) -> None:
        self.error, self.asked = error, [("", {})]

    def call(self, op: str, **details: object) -> tuple[dict[str, object], bytes]:
        self.asked.append((op, details))
        if self.error and "uid" in details:
            raise self.error
        return {}, b""


def job(state: str) -> send.Job:
    return send.Job(new=NewDisk(name="a", format="raw"), path="/p/a", state=state, mode=0o600, owner=(64055, 64055))


def test_who_is_not_root_there_gives_no_disk_away(tmp_path: Path) -> None:
    """libvirt does it, at each start. But nobody else reads the disk, and it gets its name."""
    wire: Any = Asked(ImgtoolError("EPERM"))
    send._publish(wire, job(str(tmp_path)))
    assert wire.asked[2:] == [("mode", {"path": "/p/a.imgtool-partial", "mode": 0o600}),
                              ("rename", {"path": "/p/a.imgtool-partial", "to": "/p/a"})]
    wire = Asked(UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        send._publish(wire, job(str(tmp_path)))
    assert len(wire.asked) == 2


def test_a_line_that_is_always_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as something comes through it goes on."""
    tried: list[int] = []

    def over(_wire: object, _job: object, _source: object, _control: object, shown: send._Shown) -> None:
        tried.append(1)
        shown.at(min(len(tried), 3))
        raise UnreachableError("cut")

    monkeypatch.setattr(send, "_over", over)
    monkeypatch.setattr(send, "PAUSE", 0.001)
    source: Any = SimpleNamespace(virtual_size=10)
    with pytest.raises(UnreachableError, match="cut") as caught:
        send.disk(lambda: source, job(str(tmp_path)), source, Control())
    assert "goes on where it stopped" in (caught.value.hint or "")
    assert len(tried) == 3 + send.TRIES


@pytest.mark.parametrize(("error", "raised"), [
    (ImgtoolError("3 errors were found"), DifferError), (UnreachableError("ssh"), UnreachableError),
    (StoppedError(15), StoppedError)])
def test_an_image_that_qemu_img_finds_broken_there(monkeypatch: pytest.MonkeyPatch, error: ImgtoolError,
                                                   raised: type[ImgtoolError]) -> None:
    """It is not taken for the machine's disk; a cut line says nothing of it."""
    def run(*_words: object, **_options: object) -> str:
        raise error

    monkeypatch.setattr(tunnel, "run", run)
    target: Any = SimpleNamespace(_host=SimpleNamespace(uri=KVM1))
    with pytest.raises(ImgtoolError) as caught:
        far_target.FarTarget._check(target, "/p/a", Control())
    assert type(caught.value) is raised


def test_a_far_host_without_python_and_pool() -> None:
    target: Any = SimpleNamespace(_pool=None, _host=SimpleNamespace(name="kvm1"))
    with pytest.raises(MissingToolError, match="only go into a storage pool"):
        far_target.FarTarget._pooled(target)


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
