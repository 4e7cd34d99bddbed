"""Phony Windows guests from 7 to 11 and 2025, for each platform: what adapt writes into the registry, byte by byte.

The golden files are to be held against the documented layout: see the sources in ``imgtool/guests/windows``. None ever booted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures import phony_windows
from fixtures.phony_windows import SOFTWARE, SYSTEM, Keys
from imgtool.errors import DamagedError, RefusedError
from imgtool.guests.windows import adapt
from imgtool.model.guest import AdaptRequest, AdaptResult, FileSystem, Platform
from tests.golden import check
from tests.program import ROOT
from tests.windows_tree import CONFIG, HostHandle, WindowsTree, files, values

GOLDEN = ROOT / "fixtures" / "windows"
VOLUME = (FileSystem(device="/dev/sda1", type="ntfs", mounted_at="/"),)
MAC = "52:54:00:00:00:01"
VERSION = r"Microsoft\Windows NT\CurrentVersion"


@dataclass(frozen=True)
class Release:
    """``sets``: the control set that it starts with; ``drivers``: what it has of the usual ones, as files and services."""

    name: str
    build: str
    edition: str = "Professional"
    arch: str = "AMD64"
    sets: int = 1
    drivers: tuple[str, ...] = ("storahci", "stornvme", "LSI_SAS", "megasas", "intelide")
    table: str = "gpt"


OLD = ("msahci", "LSI_SAS", "megasas", "intelide")
RELEASES = {
    "7": Release("Windows 7 Phony", "7601", arch="x86", drivers=OLD, table="msdos"),
    "2008r2": Release("Windows Server 2008 R2 Phony", "7600", "ServerStandard", drivers=OLD, table="msdos"),
    "8": Release("Windows 8 Phony", "9200", drivers=("storahci", "LSI_SAS", "megasas", "intelide")),
    "2012r2": Release("Windows Server 2012 R2 Phony", "9600", "ServerStandard", sets=2),
    "10": Release("Windows 10 Phony", "19045"),
    "11": Release("Windows 10 Phony", "22631"),
    "2016": Release("Windows Server 2016 Phony", "14393", "ServerStandard"),
    "2022": Release("Windows Server 2022 Phony", "20348", "ServerStandard"),
    "2025": Release("Windows Server 2025 Phony", "26100", "ServerStandard"),
}
SHOWN = ("7", "2012r2", "11", "2025")
"""Those with golden files: before the DriverDatabase, with another control set, and the newest."""


def registry(release: Release) -> tuple[Keys, Keys]:
    """SYSTEM and SOFTWARE."""
    system = {key: value for key, value in SYSTEM.items() if not key.endswith(("\\pvscsi", "\\storahci", "\\StartOverride",
                                                                               "\\stornvme", "\\LSI_SAS"))}
    for driver in release.drivers:
        system[rf"ControlSet001\Services\{driver}"] = {"Start": 3, "Type": 1}
    system[r"ControlSet001\Services\storahci\StartOverride"] = {"0": 3}
    system[r"ControlSet001\Control\Session Manager\Environment"] = {"PROCESSOR_ARCHITECTURE": release.arch}
    moved = {key.replace("ControlSet001", f"ControlSet{release.sets:03d}"): value for key, value in system.items()}
    moved["Select"] = {"Current": release.sets, "Default": release.sets, "LastKnownGood": 1}
    named = {**SOFTWARE[VERSION], "ProductName": release.name, "EditionID": release.edition, "CurrentBuild": release.build,
             "CurrentBuildNumber": release.build}
    return moved, {**SOFTWARE, VERSION: named}


def made(release: Release, root: Path) -> tuple[WindowsTree, HostHandle]:
    for folder in (CONFIG, "Windows/System32/drivers", "Windows/inf"):
        (root / folder).mkdir(parents=True)
    for name, keys in zip(("SYSTEM", "SOFTWARE"), registry(release), strict=True):
        phony_windows.write_hive(root / CONFIG / name, keys)
    for driver in release.drivers:
        (root / f"Windows/System32/drivers/{driver.lower()}.sys").write_bytes(b"MZ phony\n")
    tree = WindowsTree(root)
    return tree, HostHandle(tree, release.table)


def given(platform: Platform, place: Path) -> str | None:
    """Drivers as they are given out; metal has to do with what Windows has."""
    if platform is Platform.METAL:
        return None
    return str((phony_windows.virtio_win if platform is Platform.KVM else phony_windows.vmware_drivers)(place / "drivers"))


def changed(tree: WindowsTree, handle: HostHandle, platform: Platform, drivers: str | None, *,
            backup: bool = True) -> AdaptResult:
    return adapt(handle, tree, VOLUME, AdaptRequest(  # type: ignore[arg-type]
        images=(), platform=platform, drivers=drivers, nics=(MAC,), backup=backup))


def story(result: AdaptResult) -> Iterator[str]:
    able = result.capabilities
    yield f"os = {result.os.name} | {result.os.build} {result.os.edition} {result.os.arch}\n"
    yield f"disks = {', '.join(able.disk_buses)}\nnics = {', '.join(able.nic_models)}\nagent = {able.agent}\n"
    yield from (f"warning: {warning}\n" for warning in result.warnings)


def difference(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key}\n" + "".join(f"  {sign} {one[key]}\n" for sign, one in (("-", before), ("+", after)) if key in one)


def cards(tree: WindowsTree) -> list[str]:
    """What the script of the first start knows of the network."""
    script = tree.read("/Windows/imgtool/first-boot.ps1").decode("utf-8-sig").split("\r\n")
    return [f"card: {line.strip()}\n" for line in script if line.startswith("    @{")]


@pytest.mark.parametrize("platform", list(Platform))
@pytest.mark.parametrize("name", RELEASES)
def test_adapt_writes_what_is_golden_and_nothing_later(tmp_path: Path, name: str, platform: Platform) -> None:
    tree, handle = made(RELEASES[name], tmp_path / "c")
    drivers = given(platform, tmp_path)
    hives = {one: (tree.root / CONFIG / one).read_bytes() for one in ("SYSTEM", "SOFTWARE")}
    old = values(tree, "SYSTEM") | values(tree, "SOFTWARE")
    had = files(tree.root)
    result = changed(tree, handle, platform, drivers)
    new, has = values(tree, "SYSTEM") | values(tree, "SOFTWARE"), files(tree.root)
    if name in SHOWN:
        added = [f"file: {path}\n" for path in has if path not in had]
        check(GOLDEN / f"{name}.{platform}", "".join([*story(result), *added, *cards(tree), *difference(old, new)]))
    assert {key for key, value in new.items() if old.get(key) != value} <= {
        f"{change.where}: {change.what.split(' = ')[0] or '(default)'}" for change in result.changes}
    kept = {one: has.get(f"/{CONFIG}/{one}.imgtool-orig") for one in hives}
    assert kept == (hives if drivers else {"SYSTEM": hives["SYSTEM"], "SOFTWARE": None})
    assert result.disk_bus == {Platform.KVM: "virtio", Platform.ESXI: "pvscsi", Platform.METAL: "sata"}[platform]
    again = changed(tree, handle, platform, drivers)
    assert again.changes == ()
    assert (values(tree, "SYSTEM") | values(tree, "SOFTWARE"), files(tree.root)) == (new, has)


@pytest.mark.parametrize("name", RELEASES)
def test_every_storage_driver_starts_at_boot_and_is_found(tmp_path: Path, name: str) -> None:
    """By its ids: up to 7 in the CriticalDeviceDatabase, from 8 on in the DriverDatabase; not in both."""
    release = RELEASES[name]
    tree, handle = made(release, tmp_path / "c")
    changed(tree, handle, Platform.KVM, given(Platform.KVM, tmp_path))
    found, current = values(tree, "SYSTEM"), rf"HKLM\SYSTEM\ControlSet{release.sets:03d}"
    for driver in ("viostor", "vioscsi", *release.drivers[:1]):
        assert found[rf"{current}\Services\{driver}: Start"] == "4 00 00 00 00"
    old = int(release.build) < 9200
    critical = {key for key in found if "CriticalDeviceDatabase\\PCI#VEN_1AF4" in key}
    database = {key for key in found if key.startswith(r"HKLM\SYSTEM\DriverDatabase\DeviceIds\PCI\VEN_1AF4")}
    assert (bool(critical), bool(database)) == (old, not old)
    assert len(critical or database) == (8 if old else 4)


def test_without_virtio_windows_gets_what_it_knows(tmp_path: Path) -> None:
    tree, handle = made(RELEASES["10"], tmp_path / "c")
    result = changed(tree, handle, Platform.KVM, None)
    assert (result.disk_bus, result.nic_model) == ("sata", "e1000e")
    assert any("no virtio driver" in warning for warning in result.warnings)


def test_an_older_driver_of_its_own_is_kept(tmp_path: Path) -> None:
    for backup in (True, False):
        tree, handle = made(RELEASES["2016"], tmp_path / f"c-{backup}")
        place = tree.root / "Windows/System32/drivers/viostor.sys"
        place.write_bytes(b"old")
        changed(tree, handle, Platform.KVM, given(Platform.KVM, tmp_path / f"d-{backup}"), backup=backup)
        kept = [path for path in files(tree.root) if path.endswith(".imgtool-orig")]
        assert len(kept) == (3 if backup else 0)
        assert place.read_bytes() == b"viostor 2k16 amd64 sys\n"
        if backup:
            assert place.with_name("viostor.sys.imgtool-orig").read_bytes() == b"old"


def test_what_is_refused_or_left_alone(tmp_path: Path) -> None:
    tree, handle = made(RELEASES["10"], tmp_path / "fast")
    power = r"ControlSet001\Control\Session Manager\Power"
    system = phony_windows.changed(registry(RELEASES["10"])[0], power, HiberbootEnabled=1)
    phony_windows.write_hive(tree.root / CONFIG / "SYSTEM", system)
    before = (tree.root / CONFIG / "SYSTEM").read_bytes()
    with pytest.raises(RefusedError, match="Fast Startup is on") as caught:
        changed(tree, handle, Platform.ESXI, None)
    assert "powercfg /h off" in str(caught.value.hint)
    assert (tree.root / CONFIG / "SYSTEM").read_bytes() == before
    tree, handle = made(Release("Windows Vista Phony", "6002", drivers=OLD), tmp_path / "vista")
    result = changed(tree, handle, Platform.METAL, None)
    assert (result.changes, result.disk_bus) == ((), None)
    assert "older than 7" in result.warnings[0]


def test_a_driver_without_a_service_is_not_started(tmp_path: Path) -> None:
    """A file that an uninstaller left: Windows has no use for it, and would not start with it."""
    tree, handle = made(Release("Windows 10 Phony", "19045", drivers=("storahci",)), tmp_path / "c")
    (tree.root / "Windows/System32/drivers/stornvme.sys").write_bytes(b"MZ left\n")
    result = changed(tree, handle, Platform.METAL, None)
    assert result.capabilities.disk_buses == ("sata",)
    assert not [key for key in values(tree, "SYSTEM") if "Services\\stornvme" in key]


def test_what_windows_cannot_start_from_is_said(tmp_path: Path) -> None:
    tree, handle = made(Release("Windows 10 Phony", "19045", drivers=()), tmp_path / "c")
    result = changed(tree, handle, Platform.METAL, str(tmp_path))
    assert result.disk_bus is None
    assert "Windows has no driver for the disks of metal" in result.warnings
    assert any("no drivers are installed for metal" in warning for warning in result.warnings)


def test_a_windows_without_its_registry_is_damaged(tmp_path: Path) -> None:
    tree, handle = made(RELEASES["10"], tmp_path / "c")
    (tree.root / CONFIG / "SOFTWARE").unlink()
    with pytest.raises(DamagedError, match="no registry, or no drivers"):
        changed(tree, handle, Platform.METAL, None)
