"""Parts of libvirt hosts that need no libvirtd: what they say, what fails there, and what is cleared up then."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import libvirt
import pytest
from lxml import etree

from imgtool.endpoints.libvirt import connection, define, disks, inventory, storage, upload, watch
from imgtool.endpoints.libvirt.disks import Behind
from imgtool.endpoints.libvirt.inventory import Pool
from imgtool.endpoints.libvirt.source import _press, _shut_down
from imgtool.endpoints.libvirt.target import _missing
from imgtool.endpoints.uri import parse
from imgtool.errors import ImgtoolError, MissingToolError, NoSpaceError, RefusedError, StoppedError, UnreachableError, UsageError
from imgtool.formats.disk import open_disk
from imgtool.model.endpoint import NewDisk
from imgtool.progress import Control, Stop

MIB = 1 << 20


def fault(code: int = libvirt.VIR_ERR_INTERNAL_ERROR, words: str = "no", *, domain: int = 0, number: int = 0
          ) -> libvirt.libvirtError:
    error = libvirt.libvirtError("x")
    error.err = (code, domain, words, 2, None, None, None, number, 0)
    return error


def failing(error: BaseException) -> Callable[..., NoReturn]:
    def call(*_words: object) -> NoReturn:
        raise error

    return call


@pytest.mark.parametrize(("error", "raised"), [
    (fault(libvirt.VIR_ERR_NO_CONNECT), UnreachableError), (fault(libvirt.VIR_ERR_AUTH_FAILED), UnreachableError),
    (fault(domain=libvirt.VIR_FROM_RPC), UnreachableError), (fault(libvirt.VIR_ERR_ACCESS_DENIED), UnreachableError),
    (fault(libvirt.VIR_ERR_OPERATION_DENIED), UnreachableError), (fault(number=errno.ENOSPC), NoSpaceError),
    (fault(words="cannot write: No space left on device"), NoSpaceError), (fault(libvirt.VIR_ERR_DOM_EXIST), RefusedError),
    (fault(libvirt.VIR_ERR_STORAGE_VOL_EXIST), RefusedError), (fault(), ImgtoolError)])
def test_what_libvirt_says_has_its_exit_code(error: libvirt.libvirtError, raised: type[ImgtoolError]) -> None:
    with pytest.raises(ImgtoolError, match="kvm1: ") as caught:
        connection.failed(error, "kvm1")
    assert type(caught.value) is raised


@pytest.mark.parametrize("query", ["socket=", "keyfile="])
def test_an_empty_parameter(query: str) -> None:
    with pytest.raises(UsageError, match="is empty"):
        connection._check(parse(f"qemu+ssh://root@kvm1/system?{query}"))


def test_no_binding_of_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(MissingToolError) as caught:
        connection.load()
    assert "python3-libvirt" in (caught.value.hint or "")


UEFI = "<domain><name>web.imgtool-new</name><os><nvram template='/t'>{}</nvram></os></domain>"


@pytest.mark.parametrize(("nvram", "renames", "defined"), [
    ("/n/web.imgtool-new_VARS.fd", True, True), ("/n/web.imgtool-new_VARS.fd", False, True), ("/n/other.fd", True, False),
    ("/n/other.fd", False, True)])
def test_the_variables_get_the_final_name_and_stay(nvram: str, renames: bool, defined: bool) -> None:
    """Where libvirt does not rename, the machine is made anew: its disks and variables are kept."""
    done: list[tuple[object, ...]] = []
    machine: Any = SimpleNamespace(
        name=lambda: "web.imgtool-new", XMLDesc=lambda _flags: UEFI.format(nvram),
        rename=(lambda name, _flags: done.append(("rename", name))) if renames else failing(fault()),
        undefineFlags=lambda flags: done.append(("undefine", flags)))
    host: Any = SimpleNamespace(listAllDomains=lambda: [machine], defineXMLFlags=lambda text, _flags: done.append(
        ("define", text)) or SimpleNamespace(setAutostart=lambda on: done.append(("autostart", on))))
    define.rename(host, machine, "web")
    assert done.pop(0) == (("rename", "web") if renames else ("undefine", libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM))
    assert [what for what, _ in done] == (["define", "autostart"] if defined else [])
    if defined:
        root = etree.fromstring(str(done[0][1]))
        assert root.findtext("name") == "web"
        assert (root.findtext("os/nvram") or "") == ("" if "imgtool-new" in nvram else nvram)
        assert done[1] == ("autostart", 0)


def test_disks_that_are_not_read() -> None:
    with pytest.raises(RefusedError, match="is encrypted"):
        Behind(name="a", device="vda", path="/a", format="raw", kind="raw", encrypted=True).file()
    with pytest.raises(RefusedError, match="is no file"):
        Behind(name="a", device="vda", path=None, format="raw", kind="network").file()


def test_each_disk_has_its_element() -> None:
    """Also where one has no image; a disk is never taken for another."""
    text = ("<domain><devices><disk device='cdrom'/><disk type='file' device='disk'/>"
            "<disk type='file'><source file='/a'/></disk></devices></domain>")
    slots: Any = [SimpleNamespace(path=""), SimpleNamespace(path="/a")]
    assert [one.findtext("source") for one in disks._matching(etree.fromstring(text), slots)] == [None, ""]
    assert len(disks._matching(etree.fromstring(text), slots[1:])) == 1
    for wrong in ([*slots, *slots], slots[::-1]):
        with pytest.raises(RefusedError, match="cannot be understood"):
            disks._matching(etree.fromstring(text), wrong)


@pytest.mark.parametrize(("code", "raised"), [
    (libvirt.VIR_ERR_NO_STORAGE_VOL, RefusedError), (libvirt.VIR_ERR_RPC, libvirt.libvirtError)])
def test_a_file_in_no_pool(code: int, raised: type[Exception]) -> None:
    host: Any = SimpleNamespace(listAllStoragePools=lambda _flags: [], storageVolLookupByPath=failing(fault(code)))
    with pytest.raises(raised):
        disks.volume_at(host, "/a")


def test_a_host_that_lists_no_bridges() -> None:
    """Without libvirt's interface driver; then without that of node devices, too."""
    lab: Any = SimpleNamespace(name=lambda: "lab", bridgeName=lambda: "virbr7")
    routed: Any = SimpleNamespace(name=lambda: "routed", bridgeName=failing(fault()))
    cards = [SimpleNamespace(XMLDesc=lambda _flags: "<device><capability><interface>br0</interface></capability></device>"),
             SimpleNamespace(XMLDesc=lambda _flags: "<device/>")]
    host: Any = SimpleNamespace(listAllNetworks=lambda: [lab, routed], listAllInterfaces=failing(fault()),
                                listAllDevices=lambda _flags: cards)
    assert inventory.networks(host) == ("bridge:br0", "bridge:virbr7", "network:lab", "network:routed")
    host.listAllDevices = failing(fault())
    assert inventory.networks(host) == ("bridge:virbr7", "network:lab", "network:routed")


def test_a_pool_that_holds_no_files() -> None:
    known = (Pool(name="vg", kind="logical", path="/dev/vg", active=True, capacity=1, free=1),)
    with pytest.raises(UsageError, match="'vg' is of type logical: its volumes are no files"):
        inventory.choose(known, "vg", "kvm1")


def test_a_host_that_says_little() -> None:
    host: Any = SimpleNamespace(getCapabilities=lambda: "<capabilities><host/></capabilities>")
    assert inventory.owner(host) is None
    (missing,) = _missing(host)
    assert "qemu-system-x86" in missing


def test_a_guest_that_does_not_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    pressed: list[int] = []
    machine: Any = SimpleNamespace(isActive=lambda: True, shutdownFlags=pressed.append)
    module = import_module("imgtool.endpoints.libvirt.source")  # the package has a function of that name
    monkeypatch.setattr(module, "OFF_SECONDS", 0.05)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    with pytest.raises(ImgtoolError, match="web did not shut down"):
        _shut_down(machine, "web", Control())
    assert pressed == [libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT]


@pytest.mark.parametrize("active", [True, False])
def test_a_machine_without_agent_and_power_button(active: bool) -> None:
    """One that has gone off meanwhile is what was wanted."""
    machine: Any = SimpleNamespace(isActive=lambda: active, shutdownFlags=failing(fault()))
    if active:
        with pytest.raises(libvirt.libvirtError):
            _press(machine)
    else:
        _press(machine)


ERRORS = [fault(), StoppedError(15)]


@pytest.mark.parametrize("error", ERRORS)
def test_a_volume_that_was_not_filled_is_removed(error: BaseException) -> None:
    removed: list[int] = []
    pool: Any = SimpleNamespace(createXML=lambda _text, _flags: SimpleNamespace(delete=removed.append))
    with pytest.raises(type(error)), storage.new_volume(pool, "a", MIB, "raw"):
        raise error
    assert removed == [0]
    with storage.new_volume(pool, "a", MIB, "raw"):
        pass
    assert removed == [0]


@pytest.mark.parametrize("error", ERRORS)
def test_a_stream_that_broke_is_ended(tmp_path: Path, error: BaseException) -> None:
    """Else the daemon waits for it, and holds the volume."""
    done: list[str] = []
    stream = SimpleNamespace(sparseSendAll=failing(error), sparseRecvAll=failing(error), finish=lambda: done.append("finish"),
                             abort=lambda: done.append("abort"))
    host: Any = SimpleNamespace(newStream=lambda _flags: stream)
    volume = SimpleNamespace(upload=lambda *_: None, download=lambda *_: None, name=lambda: "a")
    (tmp_path / "a").write_bytes(bytes(512))
    with (tmp_path / "a").open("rb") as file, pytest.raises(type(error)):
        storage.upload(host, volume, file, Control())
    with pytest.raises(type(error)):
        storage.download(host, volume, io.BytesIO(), Control())
    assert done == ["abort", "abort"]


def test_zeros_are_staged_as_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    with (tmp_path / "a").open("wb") as file:
        file.write(b"x" * 512)
        file.truncate(16 * MIB)
    with open_disk(str(tmp_path / "a"), source_format="raw", stop=Stop()) as disk, \
            upload._staged(NewDisk(name="a", format="raw"), disk, Control()) as path:
        assert Path(path).read_bytes() == (tmp_path / "a").read_bytes()
        assert Path(path).stat().st_blocks < 4 * MIB // 512


class Machine:
    """A domain that is on for so many questions; its console says some words, its screen changes or not."""

    def __init__(self, *, on: int = 1000, pictures: Iterator[bytes] | None = None) -> None:
        self.left, self.pictures = on, pictures

    def isActive(self) -> bool:  # noqa: N802 - libvirt's
        self.left -= 1
        return self.left >= 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, seconds in (("POLL", 0.001), ("AGENT_SECONDS", 0.05), ("CONSOLE_SECONDS", 0.05), ("SCREEN_SECONDS", 0.05),
                          ("LOGIN_SECONDS", 0.01)):
        monkeypatch.setattr(watch, name, seconds)
    return monkeypatch


AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def looked(machine: Any, devices: str = "", *, near: bool = True) -> str:
    machine.XMLDesc = lambda _flags: f"<domain><devices>{devices}</devices></domain>"
    return watch.look(SimpleNamespace(), machine, Control(), near=near)  # type: ignore[arg-type]


def test_an_agent_that_answers(quick: pytest.MonkeyPatch) -> None:
    answers = iter([fault(), None])

    def command(_machine: object, text: str, _seconds: int, _flags: int) -> str:
        assert "guest-ping" in text
        if error := next(answers):
            raise error
        return "{}"

    quick.setattr("libvirt_qemu.qemuAgentCommand", command)
    assert looked(Machine(), AGENT) == "the guest agent answers"


@pytest.mark.parametrize("inner", [
    "<serial type='pty'><log file='{}'/></serial>", "<serial type='file'><source path='{}'/></serial>"])
@pytest.mark.parametrize("near", [True, False])
@pytest.mark.usefixtures("quick")
def test_a_console_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str, near: bool) -> None:
    """A file that a far host names is none of this one."""
    monkeypatch.setattr(watch, "CONSOLE_SECONDS", 20.0)  # the login ends it
    monkeypatch.setattr(watch, "_stream", lambda *_: nullcontext(lambda: b"far login: "))
    (tmp_path / "log").write_bytes(b"x" * watch.TAIL + b"\nDebian 12\nweb login: ")
    if not near:
        monkeypatch.setattr(watch, "CONSOLE_SECONDS", 0.02)
    monkeypatch.setattr(watch, "_picture", lambda *_: None)
    words = {True: "its serial console says: web login:", False: "its serial console says: far login:" if "pty" in inner else
             "it runs; it has no screen that could be looked at"}
    assert looked(Machine(), inner.format(tmp_path / "log"), near=near) == words[near]


@pytest.mark.parametrize(("on", "pictures", "words"), [
    (2, [b"a"], "it went off"), (1000, [b"a", b"b"], "its screen changes"),
    (1000, [b"a"], "its screen does not change: look whether it hangs in the firmware")])
def test_a_screen(quick: pytest.MonkeyPatch, on: int, pictures: list[bytes], words: str) -> None:
    shown = iter([*pictures, *pictures[-1:] * 10_000])
    quick.setattr(watch, "_picture", lambda *_: next(shown))
    assert looked(Machine(on=on)) == words


def test_a_screen_that_goes_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_picture", lambda *_: b"a")
    assert watch._screen(None, Machine(on=0), Control()) == "its screen went dark"
