"""Packages for a guest without a network: which of a folder fit, where they go, and what starts their installation."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imgtool.errors import NoSpaceError, UsageError
from imgtool.guests.linux import adapt, first_boot, packages
from imgtool.guests.linux.edit import Editor
from imgtool.model.guest import AdaptRequest, OsInfo, Platform
from tests.folder_tree import FolderTree
from tests.phony import DISK, tree

DEBIAN = OsInfo(family="linux", distro="debian", version="12", arch="x86_64")
NAMES = ("qemu-guest-agent_7.2_amd64.deb", "qemu-guest-agent_7.2_arm64.deb", "libx_1.0_all.deb", "-rf.deb", ".hidden.deb",
         "agent-8-1.el9_4.x86_64.rpm", "agent-8-1.el8.x86_64.rpm", "agent-8-1.el9.aarch64.rpm", "data-1.noarch.rpm",
         "agent-8-r0.apk", "agent-8-1-x86_64.pkg.tar.zst", "read.me")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "packages"
    made.mkdir()
    for name in NAMES:
        (made / name).write_bytes(name.encode())
    return made


@pytest.mark.parametrize(("os_", "expected"), [
    (DEBIAN, ["libx_1.0_all.deb", "qemu-guest-agent_7.2_amd64.deb"]),
    (OsInfo(distro="debian", arch="aarch64"), ["libx_1.0_all.deb", "qemu-guest-agent_7.2_arm64.deb"]),
    (OsInfo(distro="rocky", version="9.3", arch="x86_64"), ["agent-8-1.el9_4.x86_64.rpm", "data-1.noarch.rpm"]),
    (OsInfo(distro="rhel", version="8.9", arch="x86_64"), ["agent-8-1.el8.x86_64.rpm", "data-1.noarch.rpm"]),
    (OsInfo(distro="alpine", arch="x86_64"), ["agent-8-r0.apk"]),
    (OsInfo(distro="arch", arch="x86_64"), ["agent-8-1-x86_64.pkg.tar.zst"]),
])
def test_those_of_the_guest_are_taken(folder: Path, os_: OsInfo, expected: list[str]) -> None:
    assert [os.path.basename(path) for path in packages.choose(str(folder), os_)] == expected


@pytest.mark.parametrize(("os_", "words"), [
    (OsInfo(distro="homemade", name="Home Made"), "how Home Made installs packages"),
    (OsInfo(distro="debian", arch="s390x", name="Debian"), None), (OsInfo(distro="rhel", version="7.9", arch="x86_64"), None),
])
def test_none_fits(folder: Path, os_: OsInfo, words: str | None) -> None:
    for name in ("libx_1.0_all.deb", "data-1.noarch.rpm"):
        (folder / name).unlink()
    with pytest.raises(UsageError, match=words or "has no packages for"):
        packages.choose(str(folder), os_)
    with pytest.raises(UsageError):
        packages.choose(str(folder / "nowhere"), DEBIAN)


def test_too_large(folder: Path) -> None:
    os.truncate(folder / "libx_1.0_all.deb", packages.MAX_PACKAGE + 1)
    with pytest.raises(UsageError, match="too large"):
        packages.choose(str(folder), DEBIAN)


@pytest.mark.parametrize(("guest", "started"), [
    ("debian12", [first_boot.UNIT, first_boot.WANTED]), ("rocky8", [first_boot.UNIT, first_boot.WANTED]),
    ("alpine319", [first_boot.INIT, first_boot.OPENRC]),
    ("rhel6", [first_boot.INIT, "/etc/rc.d/rc2.d/S99imgtool-first-boot", "/etc/rc.d/rc3.d/S99imgtool-first-boot"]),
])
def test_adapt_copies_them_and_the_guest_installs_them(guest: str, started: list[str], folder: Path, tmp_path: Path) -> None:
    phony = tree(guest, tmp_path / "guest")
    if guest in ("debian12", "rocky8"):
        phony.symlink("/lib/systemd/systemd", "/usr/sbin/init")
        phony.symlink("usr/sbin", "/sbin")
    elif guest == "alpine319":
        phony.write("/sbin/openrc-run", b"")
    else:
        for level in "23":
            phony.mkdir(f"/etc/rc.d/rc{level}.d")
            phony.symlink(f"rc.d/rc{level}.d", f"/etc/rc{level}.d")
    phony.mkdir("/var")
    request = AdaptRequest(images=(), platform=Platform.KVM, packages=str(folder))
    result = adapt(phony, DISK, request)
    assert [path for path in started if phony.readlink(path) is None and not phony.is_file(path)] == []
    found = phony.ls(packages.FOLDER)
    assert {name.rsplit(".", 1)[1] for name in found} == {{"debian12": "deb", "alpine319": "apk"}.get(guest, "rpm")}
    assert phony.read(f"{packages.FOLDER}/{found[0]}") == found[0].encode()
    agent = any(name.startswith("qemu-guest-agent") for name in found)
    assert result.capabilities.agent is agent
    assert any("qemu-guest-agent is not installed" in warning for warning in result.warnings) is not agent
    assert adapt(phony, DISK, request).changes == ()


def test_an_init_that_nobody_knows_is_said(tmp_path: Path) -> None:
    editor = Editor(tree=FolderTree(tmp_path))
    first_boot.install(editor, "true", "/x")
    assert editor.changes == []
    assert "install what is in /x by hand" in editor.warnings[0]


def test_no_room_is_an_error(folder: Path, tmp_path: Path) -> None:
    phony = FolderTree(tmp_path, room=10)
    with pytest.raises(NoSpaceError, match="/var in the guest"):
        packages.copy(Editor(tree=phony), packages.choose(str(folder), DEBIAN), DEBIAN)


@pytest.mark.parametrize(("command", "code", "left"), [("cat ./a.deb", 0, False), ("false", 1, True)])
def test_the_script_runs_once_and_removes_its_traces(command: str, code: int, left: bool, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """With its paths below a folder of the test."""
    monkeypatch.setattr(first_boot, "TRIES", 2)
    monkeypatch.setattr(first_boot, "CONTENT", first_boot.CONTENT.replace("sleep 10", "sleep 0"))
    made = FolderTree(tmp_path)
    made.symlink("/lib/systemd/systemd", "/sbin/init")
    made.write("/packages/a.deb", b"contents of a package\n")
    first_boot.install(Editor(tree=made), command, f"{tmp_path}/packages")
    script = made.read(first_boot.SCRIPT).decode()
    for path in (first_boot.SCRIPT, first_boot.LOG, "/etc/"):
        script = script.replace(path, f"{tmp_path}{path}")
    (tmp_path / "var/log").mkdir()
    made.write(first_boot.SCRIPT, script.encode())
    done = subprocess.run(["sh", made.root / first_boot.SCRIPT.lstrip("/")], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
    log = made.read(first_boot.LOG).decode()
    assert f"exit code: {code}" in log
    assert ("contents of a package" in log) is not left
    assert made.exists("/packages/a.deb") is left
    for path in (first_boot.UNIT, first_boot.WANTED, first_boot.SCRIPT):
        assert made.readlink(path) is None
        assert not made.exists(path)
