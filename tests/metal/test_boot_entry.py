"""``v2p --boot-entry``. There is no UEFI here: what /sys says and efibootmgr are replaced."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from imgtool.errors import RefusedError, StoppedError
from imgtool.model.endpoint import Uri
from imgtool.model.metal import PhysicalDisk
from imgtool.model.v2p import DiskChoice, V2pRequest, V2pResult
from imgtool.progress import Control, Stop
from imgtool.steps.v2p import boot_entry, prepare, v2p
from tests.metal.physical import MIB, image, physical, serial, written
from tests.metal.physical import v2p as command
from tests.oracle import tool

EFIBOOTMGR = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >{said}
{end}
"""


@pytest.fixture
def firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machine says that it was started by UEFI."""
    place = tmp_path / "fw_platform_size"
    place.write_text("64\n")
    monkeypatch.setattr(boot_entry, "BITS", str(place))
    return place


def efibootmgr(place: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> Path:
    """Where it writes what it was asked for."""
    folder, said = place / "bin", place / "said"
    folder.mkdir()
    (folder / "efibootmgr").write_text(EFIBOOTMGR.format(said=said, end=end))
    (folder / "efibootmgr").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return said


def moved(source: Path, device: Path) -> V2pResult:
    return v2p(V2pRequest(name=str(source), disks=(DiskChoice(source="0", device=str(device)),), adapt=False, boot_entry=True,
                          confirmed=(serial(device),)), Control())


@pytest.fixture
def esp(tmp_path: Path) -> Path:
    disk = image(tmp_path, "web 01'.raw")
    tool("sgdisk", "--typecode=2:EF00", disk)
    return disk


def test_an_entry_that_comes_first(tmp_path: Path, esp: Path, firmware: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = efibootmgr(tmp_path, monkeypatch, "exit 0")
    with physical(tmp_path, 80 * MIB) as device:
        done = moved(esp, device)
        assert said.read_text().splitlines() == [
            "--quiet", "--create", "--disk", str(device), "--part", "2", "--label", "web 01'.raw", "--loader",
            r"\EFI\BOOT\BOOTX64.EFI"]
        assert done.boot_entry == rf"web 01'.raw: \EFI\BOOT\BOOTX64.EFI on partition 2 of {device}"
        assert done.warnings == ()
        firmware.write_text("32\n")
        assert str(moved(esp, device).boot_entry).split(": ")[1].startswith(r"\EFI\BOOT\BOOTIA32.EFI")


def test_what_fails_is_a_warning(tmp_path: Path, esp: Path, firmware: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is written by then."""
    efibootmgr(tmp_path, monkeypatch, "echo 'EFI variables are not supported' >&2; exit 2")
    with physical(tmp_path, 80 * MIB) as device:
        done = moved(esp, device)
        assert done.boot_entry is None
        (warning,) = done.warnings
        assert "EFI variables are not supported" in warning
        assert "'web 01'\"'\"'.raw'" in warning, "it can be pasted into a shell"
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name, *words: None if name == "efibootmgr" else which(name, *words))
        assert "apt-get install efibootmgr" in moved(esp, device).warnings[0]


@pytest.mark.usefixtures("firmware")
def test_a_disk_without_a_system_partition(tmp_path: Path) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device:
        request = V2pRequest(name=str(source), disks=(DiskChoice(source="0", device=str(device)),), adapt=False, boot_entry=True)
        (problem,) = prepare(request, Control()).problems
        assert problem.fatal
        assert "EFI system partition" in problem.what


def test_a_machine_that_was_not_started_by_uefi(tmp_path: Path, esp: Path, firmware: Path) -> None:
    """Before anything is written."""
    firmware.unlink()
    with physical(tmp_path, 80 * MIB) as device:
        before = written(device)
        with pytest.raises(RefusedError, match="was not started by UEFI"):
            moved(esp, device)
        assert written(device) == before


def test_the_option(tmp_path: Path, esp: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        plan = command(esp, device, "--boot-entry", "--dry-run", "--json")
        assert ("was not started by UEFI" in plan.stderr) == (not os.path.exists(boot_entry.BITS))


def test_who_is_stopped_is_not_warned_of_a_missing_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_given: object, **_how: object) -> NoReturn:
        raise StoppedError(signal.SIGINT)

    monkeypatch.setattr(boot_entry, "partition", lambda *_given: 1)
    monkeypatch.setattr(boot_entry, "loader", lambda _wire: "x")
    monkeypatch.setattr(boot_entry.tunnel, "run", stopped)
    monkeypatch.setattr(boot_entry.proc, "run", stopped)
    for place in (Uri(scheme="metal"), Uri(scheme="metal+ssh", host="h")):
        with pytest.raises(StoppedError):
            boot_entry.add(None, place, "m", [(PhysicalDisk(name="sda", size=1), None)], Stop())  # type: ignore[arg-type, list-item]


def test_far_away_it_is_asked_by_the_same_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folders of root's programs, which ssh does not search; what a name holds stays one word."""
    said = efibootmgr(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setattr(boot_entry.tunnel, "run", lambda _place, argv, **_how: subprocess.run(argv, check=True))
    boot_entry._run(Uri(scheme="metal+ssh", host="h"), ["efibootmgr", "--label", "web 01'; $(x)"], Stop())
    assert said.read_text().splitlines() == ["--label", "web 01'; $(x)"]
