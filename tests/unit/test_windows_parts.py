"""Parts of the knowledge about Windows that need no appliance: ISO images, which drivers fit, the script of the first start."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st

from fixtures import phony_windows
from imgtool.errors import DamagedError, UsageError
from imgtool.guests.windows import first_boot, given, hive, iso, media
from imgtool.guests.windows.adapt import _moved
from imgtool.guests.windows.first_boot import Static
from imgtool.model.guest import AdaptRequest, GuestInfo, OsInfo, Platform
from tests import oracle

ONE = Static(guid="{1}", addresses=("192.0.2.7/255.255.255.0",), gateway="192.0.2.1")
TWO = Static(guid="{2}", addresses=("198.51.100.7/255.255.255.0", "198.51.100.8/255.255.255.0"), dns=("192.0.2.53",))


def windows(build: str = "17763", arch: str = "x86_64", edition: str = "ServerStandard") -> GuestInfo:
    return GuestInfo(os=OsInfo(family="windows", build=build, arch=arch, edition=edition, name="Phony"))


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phony_windows.virtio_win(tmp_path_factory.mktemp("virtio") / "drivers")


def image(folder: Path, path: Path, *words: str) -> Path:
    oracle.tool("xorrisofs", "-quiet", *words, "-o", path, folder)
    return path


def test_an_iso_has_the_files_of_the_folder(drivers: Path, tmp_path: Path) -> None:
    made = image(drivers, tmp_path / "a.iso", "-J", "-r")
    folder, found = media.entries(str(drivers)), media.entries(str(made))
    assert [(entry.name, entry.read()) for entry in sorted(folder, key=lambda one: one.name)] == [
        (entry.name, entry.read()) for entry in found]


def test_an_iso_without_joliet_has_short_names(drivers: Path, tmp_path: Path) -> None:
    made = image(drivers, tmp_path / "a.iso")
    assert "VIOSTOR/2K19/AMD64/VIOSTOR.SYS" in {entry.name for entry in media.entries(str(made))}


@pytest.mark.parametrize("keep", [0, 30000, 40000, 60000])
def test_an_iso_that_is_cut_off_gives_no_file_beyond_its_end(drivers: Path, tmp_path: Path, keep: int) -> None:
    made = image(drivers, tmp_path / "a.iso", "-J")
    made.write_bytes(made.read_bytes()[:keep])
    with suppress(DamagedError, UsageError):
        assert all(entry.start + entry.size <= keep for entry in media.entries(str(made)))


def test_an_iso_that_goes_in_circles_ends(drivers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(drivers, tmp_path / "a.iso", "-J")
    with made.open("rb") as file:
        root, _ = iso._root(file)
    folder = root[:25] + bytes([iso.FOLDER_FLAG]) + root[26:]
    huge = root[:2] + bytes([1]) + root[3:10] + b"\xff\xff\xff\x7f" + folder[14:]
    monkeypatch.setattr(iso, "_records", lambda *_, **__: [("again", folder), ("huge", huge), ("file", root[:25] + bytes(9))])
    assert [one.name for one in iso.files(str(made))] == ["file"]


def test_an_iso_of_too_many_files(drivers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(drivers, tmp_path / "a.iso", "-J")
    monkeypatch.setattr(iso, "MAX_FILES", 5)
    with pytest.raises(DamagedError, match="more than 5 files"):
        iso.files(str(made))


def test_a_file_that_is_no_driver_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "viostor.sys").touch()
    os.truncate(tmp_path / "viostor.sys", media.MAX_FILE + 1)
    (entry,) = media.entries(str(tmp_path))
    with pytest.raises(UsageError, match=r"viostor\.sys is too large"):
        entry.read()


def test_a_folder_with_nothing_but_the_drivers(tmp_path: Path) -> None:
    """Whoever took them out of the image has chosen."""
    for name in ("viostor.sys", "netkvm.sys", "readme.txt"):
        (tmp_path / name).write_text(name)
    package = given.choose(str(tmp_path), windows(), Platform.KVM)
    assert sorted(package.files) == ["netkvm.sys", "viostor.sys"]
    assert ([driver.service for driver in package.boot], package.nic) == (["viostor"], ("virtio",))


class Registry:
    """hivex, that fails in one of its calls."""

    def __init__(self, fails: str, number: int = errno.EINVAL) -> None:
        self.fails, self.number, self.called = fails, number, list[str]()

    def call(self, name: str, *_: object, **__: object) -> object:
        self.called.append(name)
        if name == self.fails:
            raise OSError(self.number, "bad magic")
        return 1


@pytest.mark.parametrize(("fails", "number", "kind", "words"), [
    ("hivex_open", errno.EINVAL, DamagedError, "C:/SYSTEM of the guest cannot be read: bad magic"),
    ("hivex_root", errno.EINVAL, DamagedError, "C:/SYSTEM of the guest is damaged: bad magic"),
    ("hivex_commit", errno.EINVAL, DamagedError, "is damaged: bad magic"), ("hivex_commit", errno.ENOSPC, OSError, "bad magic"),
    ("hivex_close", errno.EINVAL, None, "")])
def test_a_registry_that_cannot_be_read_or_written(fails: str, number: int, kind: type[Exception] | None, words: str) -> None:
    handle, kept = Registry(fails, number), list[str]()
    with pytest.raises(kind, match=words) if kind else nullcontext(), \
            hive.opened(handle, "C:/SYSTEM", "SYSTEM", write=True, keep=kept.append) as opened:  # type: ignore[arg-type]
        opened.put_number("Select", "Current", 1, "why")
    assert bool(kept) == (fails not in ("hivex_open", "hivex_root")), "kept only where it is about to change"
    assert ("hivex_close" in handle.called) == (fails != "hivex_open")


@given_by(st.lists(st.tuples(st.integers(16 * 2048, 30 * 2048), st.integers(0, 255)), max_size=40))
def test_a_damaged_iso_is_an_error_or_a_list(changes: list[tuple[int, int]]) -> None:
    import tempfile

    data = bytearray(_iso_bytes())
    for at, byte in changes:
        if at < len(data):
            data[at] = byte
    with tempfile.NamedTemporaryFile(suffix=".iso") as file:
        file.write(data)
        file.flush()
        try:
            found = iso.files(file.name)
        except DamagedError:
            return
    assert all(one.start >= 0 and one.start + one.size <= len(data) for one in found)


_CACHE: list[bytes] = []


def _iso_bytes() -> bytes:
    if not _CACHE:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            made = image(phony_windows.virtio_win(Path(folder) / "x"), Path(folder) / "a.iso", "-J")
            _CACHE.append(made.read_bytes())
    return _CACHE[0]


@pytest.mark.parametrize(("info", "viostor"), [
    (windows(), "viostor 2k19 amd64 sys"), (windows("20348"), "viostor 2k22 amd64 sys"),
    (windows("14393"), "viostor 2k16 amd64 sys"), (windows("7601", "i686", "Professional"), "viostor w7 x86 sys"),
    (windows("19045", "x86_64", "Professional"), "viostor w7 amd64 sys"),
])
def test_the_newest_driver_that_is_not_newer(drivers: Path, info: GuestInfo, viostor: str) -> None:
    package = given.choose(str(drivers), info, Platform.KVM)
    assert package.files["viostor.sys"].read().decode().strip() == viostor
    assert [driver.service for driver in package.boot] == ["viostor", "vioscsi"]
    assert package.nic == ("virtio",)
    assert package.agent == ("qemu-ga-i386.msi" if info.os.arch == "i686" else "qemu-ga-x86_64.msi")


@pytest.mark.parametrize(("info", "pvscsi", "vmxnet3"), [
    (windows(), "pvscsi Win10 amd64 sys", "vmxnet3 Win8 sys"), (windows("9600"), "pvscsi Win8 amd64 sys", "vmxnet3 Win8 sys"),
    (windows("7601", "i686"), "pvscsi Vista i386 sys", "vmxnet3 NDIS5 sys"),
])
def test_drivers_of_vmware(tmp_path: Path, info: GuestInfo, pvscsi: str, vmxnet3: str) -> None:
    package = given.choose(str(phony_windows.vmware_drivers(tmp_path / "d")), info, Platform.ESXI)
    assert package.files["pvscsi.sys"].read().decode().strip() == pvscsi
    assert package.files["vmxnet3.sys"].read().decode().strip() == vmxnet3
    assert package.nic == ("vmxnet3",)
    assert package.agent is None


def test_no_driver_fits(drivers: Path) -> None:
    with pytest.raises(UsageError, match="no virtio storage driver for Phony"):
        given.choose(str(drivers), windows("17763", "aarch64"), Platform.KVM)
    with pytest.raises(UsageError, match="no VMware storage driver"):
        given.choose(str(drivers), windows(), Platform.ESXI)
    with pytest.raises(UsageError, match="neither a folder nor an ISO"):
        given.choose(str(drivers / "guest-agent/qemu-ga-i386.msi"), windows(), Platform.KVM)


@pytest.mark.parametrize(("found", "nics", "moved", "words"), [
    ([ONE], (), [(ONE, None)], ""), ([ONE], ("m1",), [(ONE, "m1")], ""), ([], ("m1",), [], ""),
    ([ONE], ("m1", "m2"), [(ONE, "m1")], "matched by their order"),
    ([ONE, TWO], ("m1", "m2"), [(ONE, "m1"), (TWO, "m2")], "matched by their order"),
    ([ONE, TWO], (), [], "no network card is known for 192.0.2.7/255.255.255.0, 198.51.100.7"),
    ([ONE, TWO], ("m1",), [(ONE, "m1")], "no network card is known for 198.51.100.7"),
])
def test_static_addresses_follow_the_cards(found: list[Static], nics: tuple[str, ...], moved: list[tuple[Static, str | None]],
                                           words: str) -> None:
    warnings: list[str] = []
    assert _moved(found, AdaptRequest(images=(), platform=Platform.KVM, nics=nics), warnings) == moved
    assert words in " ".join(warnings)
    assert bool(words) == bool(warnings)


def test_the_script() -> None:
    text = first_boot.script(None, [(ONE, "52:54:00:aa:bb:cc"), (TWO, None)])
    assert ("    @{ old = '{1}'; mac = '52:54:00:AA:BB:CC'; addresses = @('192.0.2.7/255.255.255.0'); "
            "gateway = '192.0.2.1'; dns = @() }\n") in text
    assert ("addresses = @('198.51.100.7/255.255.255.0', '198.51.100.8/255.255.255.0'); "
            "gateway = ''; dns = @('192.0.2.53') }") in text
    assert "pnputil" not in text
    assert text.count("{") == text.count("}")
    assert first_boot.script(None, []) == ""
    assert first_boot.install(None, None, "ControlSet001", "") == []  # type: ignore[arg-type]


@given_by(st.text(max_size=50))
def test_what_the_registry_says_stays_in_its_quotes(word: str) -> None:
    """PowerShell: single quotes, of any kind, are doubled inside a string."""
    text = first_boot.script(None, [(Static(guid="{1}", addresses=("a/b",), gateway=word), None)])
    (line,) = [line for line in text.split("\n") if line.startswith("    @{")]
    inner = line.split("gateway = '", 1)[1].rsplit("'; dns = @() }", 1)[0]
    for quote in "'\u2018\u2019\u201a\u201b":
        assert quote not in inner.replace(quote * 2, "")
