"""What ``doctor`` says of a host that lacks something."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from imgtool.errors import ENGINE_HINT, MissingToolError
from imgtool.progress import Stop
from imgtool.steps import doctor


def lacks_nbd() -> NoReturn:
    raise MissingToolError("libnbd is not installed", "apt-get install python3-libnbd")


def test_what_is_missing_is_installed_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "load_nbd", lacks_nbd)
    report = doctor.examine(Stop())
    lacking = {tool.name for tool in report.tools if not tool.found}
    assert lacking >= {name for name, *_ in (*doctor.PROGRAMS, *doctor.MODULES)} | {"python3-libnbd"}
    *_, by_apt, by_pip = report.lines()
    first = "qemu-utils util-linux coreutils openssh-client qemu-system-x86 efibootmgr smartmontools "
    assert by_apt.startswith(f"to install: apt-get install {first}")
    assert by_pip == f"to install: {ENGINE_HINT}"
    states = {line[:19].rstrip(): line[20:].split()[0] for line in report.lines()}
    assert (states["qemu-img"], states["ssh"]) == ("MISSING", "missing")


def test_nothing_is_to_be_installed_where_all_is_there() -> None:
    there = doctor.Tool(name="ssh", found=True, version=None, purpose="p", needed=True, install="apt-get install openssh-client")
    assert [*doctor.Doctor(tools=(there,), kvm=True, kvm_why="w").lines()] == [
        "ssh                 found      p", "kvm                 usable     w"]


def test_a_program_that_does_not_start_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qemu-img").write_text("no program")
    (tmp_path / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = {tool.name: tool.found for tool in doctor.examine(Stop()).tools}
    assert found["qemu-nbd"]
    assert not found["qemu-img"]


def test_a_kernel_without_its_modules_boots_no_appliance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    boot.mkdir()
    (boot / "vmlinuz-6.1.0-x").touch()
    monkeypatch.delenv("LIBGUESTFS_PATH", raising=False)
    assert not doctor._kernel(boot, modules).found
    (modules / "6.1.0-x").mkdir(parents=True)
    assert doctor._kernel(boot, modules).found
    monkeypatch.setenv("LIBGUESTFS_PATH", "/usr/lib/guestfs")
    assert doctor._kernel(tmp_path, tmp_path).found
