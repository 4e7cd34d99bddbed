"""The wrong disk cannot happen: a test for each way in which it could. Nothing is written, and the exit code is 4."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.metal.contents import Contents, contents
from imgtool.endpoints.metal.disks import disks
from imgtool.errors import RefusedError, UsageError
from imgtool.model.metal import PhysicalDisk
from imgtool.model.v2p import DiskChoice, V2pRequest
from imgtool.progress import Control, Stop
from imgtool.steps.v2p import prepare, targets
from imgtool.steps.v2p import v2p as write_v2p
from tests.libvirt_endpoint.domains import disk as libvirt_disk
from tests.libvirt_endpoint.domains import domain
from tests.loops import loop_device
from tests.metal.physical import MIB, image, physical, serial, v2p, written
from tests.metal.tables import gpt
from tests.oracle import tool
from tests.program import ENVIRONMENT, imgtool
from tests.unit.test_metal import LVM, SDA


def refused(source: Path, device: Path, why: str, *words: object, swaps: bool = False) -> None:
    """Whatever the flags. ``swaps``: the kernel writes there when it wants to."""
    for more in (words, (*words, "--ignore-lock", "--dry-run")):
        before = written(device)
        done = v2p(source, device, *more)
        assert (done.returncode, why in done.stderr) == (4, True), done.stderr + done.stdout
        assert swaps or written(device) == before


def root_disk() -> Path:
    number = os.stat("/").st_dev
    name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    return Path("/dev") / (name.parent.name if (name / "partition").exists() else name.name)


def test_the_disk_of_the_running_root(tmp_path: Path) -> None:
    disk = root_disk()
    done = imgtool("v2p", image(tmp_path), "--disk", f"0={disk}", "--no-adapt", "--wipe", "--dry-run")
    assert done.returncode == 4
    assert "mounted at /" in done.stderr


def test_mounted(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        tool("mkfs.ext4", "-q", "-F", device)
        (tmp_path / "point").mkdir()
        tool("mount", "-o", "ro", device, tmp_path / "point")
        try:
            refused(image(tmp_path), device, f"mounted at {tmp_path}/point", "--wipe")
        finally:
            tool("umount", tmp_path / "point")


def test_a_partition_of_it_is_mounted(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as whole:
        tool("sgdisk", "--new=1:2048:+40M", whole)
    with partitioned(tmp_path / "physical") as part:
        device = Path(str(part).removesuffix("p1"))
        tool("mkfs.ext4", "-q", "-F", part)
        (tmp_path / "point").mkdir()
        tool("mount", "-o", "ro", part, tmp_path / "point")
        try:
            refused(image(tmp_path), device, f"{device}p1 is mounted at {tmp_path}/point", "--wipe")
        finally:
            tool("umount", tmp_path / "point")


@contextmanager
def partitioned(file: Path) -> Iterator[Path]:
    """The first partition of a disk, also where the kernel reads no tables and nobody makes device nodes."""
    with loop_device(file, "--partscan") as device:
        path = Path(f"{device}p1")
        if not Path(f"/sys/class/block/{path.name}").exists():
            tool("partx", "--add", device)
        made = not path.exists()
        if made:
            major, minor = Path(f"/sys/class/block/{path.name}/dev").read_text().split(":")
            os.mknod(path, 0o600 | 0o060000, os.makedev(int(major), int(minor)))
        try:
            yield path
        finally:
            if made:
                path.unlink()


def test_refused_before_the_source_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose disks may have to be copied here first."""
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_PASSWORD", "x")
    with physical(tmp_path, 80 * MIB) as device:
        words = ("v2p", "web", "--from", "esx://root@127.0.0.1:1/", "--disk", f"0={device}", "--no-adapt")
        done = imgtool(*words)
        assert (done.returncode, "would be written over" in done.stderr) == (4, True), done.stderr
        assert imgtool(*words, "--yes-write-to", serial(device)).returncode == 8
        fd = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            done = imgtool(*words, "--yes-write-to", serial(device))
            assert (done.returncode, "is open in process" in done.stderr) == (4, True), done.stderr
        finally:
            os.close(fd)


def test_swap_in_use(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        tool("mkswap", "-q", device)
        tool("swapon", device)
        try:
            refused(image(tmp_path), device, "is swap in use", "--wipe", swaps=True)
        finally:
            tool("swapoff", device)


def test_open_elsewhere_exclusively(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device, device.open("rb") as _:
        fd = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            refused(image(tmp_path), device, f"is open in process {os.getpid()}", "--wipe")
        finally:
            os.close(fd)


def test_open_in_another_process(tmp_path: Path) -> None:
    """QEMU opens a disk without O_EXCL."""
    with physical(tmp_path, 80 * MIB) as device, device.open("r+b"):
        refused(image(tmp_path), device, f"is open in process {os.getpid()}", "--wipe")


def test_read_only(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB, "--read-only") as device:
        refused(image(tmp_path), device, "is read-only", "--wipe")


def test_smaller_than_the_data(tmp_path: Path) -> None:
    with physical(tmp_path, 41 * MIB) as device:
        refused(image(tmp_path), device, f"{33 * 512} bytes too small", "--wipe")


@pytest.mark.parametrize(("files", "why"), [
    (LVM, "the volume group of vg0-root"),
    ({"/sys/block/sda/sda1/holders/md0": "x", "/sys/block/md0/md/level": "raid1", "/sys/block/md0/dev": "9:0"}, "the RAID md0"),
    ({"/sys/block/sda/holders/dm-3": "x", "/sys/block/dm-3/dm/uuid": "mpath-36", "/sys/block/dm-3/dm/name": "mpatha",
      "/sys/block/dm-3/dev": "253:3"}, "the multipath device mpatha"),
    ({"/sys/block/sda/holders/dm-4": "x", "/sys/block/dm-4/dm/uuid": "CRYPT-LUKS2-1-x", "/sys/block/dm-4/dm/name": "x",
      "/sys/block/dm-4/dev": "253:4"}, "the opened LUKS device"),
])
def test_member_of_something_active(files: dict[str, str], why: str) -> None:
    """By what /sys says: there is no device-mapper on every machine that runs this."""
    disk = next(one for one in disks(SDA | files) if one.name == "sda")
    found = targets.TargetDisk(device="/dev/sda", disk=disk, contents=contents(lambda _, length: bytes(length), disk),
                               refused=disk.used)
    with pytest.raises(RefusedError, match=why):
        targets.require(tuple(targets.problems(found, wipe=True)))


@contextmanager
def stale(place: Path, kind: str) -> Iterator[Path]:
    """A disk that has belonged to something, which is not active."""
    with physical(place, 80 * MIB) as device:
        if kind == "LVM2 physical volume":
            with device.open("r+b") as file:
                file.write(bytes(512) + b"LABELONE")
        elif kind == "ZFS":
            with device.open("r+b") as file:
                file.seek(128 << 10)
                file.write(bytes.fromhex("0cb1ba0000000000"))
        elif kind == "in a partition":
            tool("sgdisk", "--new=1:2048:+40M", device)
            with device.open("r+b") as file:
                file.seek(MIB + 512)
                file.write(b"LABELONE")
        else:
            with device.open("r+b") as file:
                file.seek({"Linux RAID (1.2)": 4096, "Linux RAID (1.0)": 80 * MIB - 8192}[kind])
                file.write(bytes.fromhex("fc4e2ba9"))
        yield device


@pytest.mark.parametrize(("looks", "using"), [
    ([{}], {}), ([{"7": "losetup"}, {}], {}), ([{"7": "losetup"}, {"8": "blkid"}], {}), ([{"7": "systemd-udevd"}], {}),
    ([{"7": "dd", "8": "blkid"}, {"7": "dd"}, {"7": "dd", "9": "losetup"}], {"7": "dd"}),
])
def test_who_only_looks_at_all_disks_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch, looks: list[dict[str, str]],
                                                       using: dict[str, str]) -> None:
    monkeypatch.setattr(targets, "BETWEEN", 0)
    answers = iter(looks)
    wire: Any = SimpleNamespace(call=lambda *_, **__: ({"openers": next(answers)}, b""))
    assert targets._openers(wire, PhysicalDisk(name="sdq", size=4096)) == using
    assert list(answers) == []


@pytest.mark.parametrize("kind", ["LVM2 physical volume", "ZFS", "Linux RAID (1.2)", "Linux RAID (1.0)", "in a partition"])
def test_a_stale_signature_needs_wipe(tmp_path: Path, kind: str) -> None:
    with stale(tmp_path, kind) as device:
        source = image(tmp_path)
        refused(source, device, "LVM2 physical volume" if kind == "in a partition" else kind)
        assert v2p(source, device, "--wipe").returncode == 0
        assert v2p(source, device).returncode == 0, "and then it is gone"


def test_without_confirmation_it_is_shown_and_refused(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        gpt_disk = gpt(tmp_path / "old", 80 * MIB, "2048:+40M")
        tool("mkfs.ext4", "-q", "-L", "payroll", "-E", f"offset={MIB}", gpt_disk, "40m")
        device.write_bytes(gpt_disk.read_bytes())
        before, source = written(device), image(tmp_path)
        for words in ((), ("--yes-write-to", "WD-OTHER"), ("--yes-write-to", device)):
            done = v2p(source, device, *words, yes=False)
            assert done.returncode == 4
            assert "label payroll" in done.stderr
            assert f"--yes-write-to {serial(device)}" in done.stderr
        assert written(device) == before


@pytest.mark.parametrize(("typed", "code"), [("right", 0), ("wrong", 4), ("\n/dev/sda", 4)])
def test_the_serial_is_typed_on_a_terminal(tmp_path: Path, typed: str, code: int) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        source, before = image(tmp_path), written(device)
        word = serial(device) if typed == "right" else typed
        master, slave = pty.openpty()
        argv = [sys.executable, "-m", "imgtool", "v2p", source, "--disk", f"0={device}", "--no-adapt", "--progress", "none"]
        with subprocess.Popen(argv, env=ENVIRONMENT, stdin=slave, stderr=slave, stdout=subprocess.DEVNULL) as process:
            os.close(slave)
            os.write(master, f"{word}\n".encode())
            said = all_of(master)
            assert process.wait() == code, said
        os.close(master)
        assert b"to go on" in said
        assert (written(device) > before) == (code == 0)


def all_of(terminal: int) -> bytes:
    """What is said until nobody has its other end."""
    said = b""
    with suppress(OSError):
        while piece := os.read(terminal, 4096):
            said += piece
    return said


def test_a_partition_or_a_file_is_no_disk(tmp_path: Path) -> None:
    with physical(tmp_path, 80 * MIB) as device:
        tool("sgdisk", "--new=1:2048:+40M", device)
    with partitioned(tmp_path / "physical") as part:
        device = Path(str(part).removesuffix("p1"))
        done = imgtool("v2p", image(tmp_path), "--disk", f"0={part}", "--no-adapt", "--yes-write-to", serial(device))
        assert (done.returncode, "is a partition of" in done.stderr) == (4, True), done.stderr
    for path, code in (("/dev/null", 4), ("/dev/none", 2), (str(tmp_path / "physical"), 2)):
        done = imgtool("v2p", tmp_path / "image.raw", "--disk", f"0={path}", "--no-adapt", "--wipe")
        assert done.returncode == code, done.stderr


def test_it_is_looked_at_again_before_the_first_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question and the first write a signature, a mount, another disk may have come."""
    from imgtool.endpoints.far import connected
    from imgtool.model.endpoint import Uri

    with physical(tmp_path, 80 * MIB) as device, connected(Uri(scheme="metal"), Stop()) as wire:
        planned = targets.look(wire, str(device))
        assert not list(targets.problems(planned, wipe=False))
        with device.open("r+b") as file:
            file.write(bytes(512) + b"LABELONE")
        held_again(wire, planned, "LVM2")
        other = targets._find
        monkeypatch.setattr(targets, "_find", lambda *words: replace(other(*words), serial="X"))
        held_again(wire, planned, "no longer the disk")


def held_again(wire: Wire, planned: targets.TargetDisk, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        targets.hold(wire, planned, wipe=False)


def test_while_it_is_held_nobody_else_gets_it(tmp_path: Path) -> None:
    from imgtool.endpoints.far import connected
    from imgtool.model.endpoint import Uri

    with physical(tmp_path, 80 * MIB) as device, connected(Uri(scheme="metal"), Stop()) as wire:
        file = targets.hold(wire, targets.look(wire, str(device)), wipe=False)
        with pytest.raises(OSError, match="busy"):
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        file.close()
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


def test_two_disks_cannot_be_one(tmp_path: Path) -> None:
    """By whatever name."""
    link = Path(f"/dev/shm/imgtool-{os.getpid()}")
    with physical(tmp_path, 80 * MIB) as device:
        source, before = two_disks(tmp_path), written(device)
        link.symlink_to(device)
        try:
            for name, place, why in (("vdb", device, "are one disk"), ("1", link, "are one disk"),
                                     ("vda", device, "is named twice"), ("vdc", device, "has no disk 'vdc'")):
                choices = (DiskChoice(source="vda", device=str(device)), DiskChoice(source=name, device=str(place)))
                wanted = V2pRequest(name=str(source), disks=choices, adapt=False, wipe=True, confirmed=(serial(device),))
                with pytest.raises(UsageError, match=why):
                    write_v2p(wanted, Control())
        finally:
            link.unlink()
        assert written(device) == before


def two_disks(place: Path) -> Path:
    one, other = image(place, "a.raw"), image(place, "b.raw")
    (place / "m.xml").write_text(domain("m", libvirt_disk(one, form="raw"), libvirt_disk(other, form="raw", device="vdb")))
    return place / "m.xml"


@pytest.mark.parametrize(("how", "why"), [
    ({"disks": ()}, "no disk is named"), ({"target": "metal:///dev/sda"}, "not the address of a machine with disks"),
    ({"target": "qemu:///system"}, "not the address of a machine with disks")])
def test_what_is_not_said(tmp_path: Path, how: dict[str, object], why: str) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(MIB))
    choice = DiskChoice(source="0", device="/dev/null")
    with pytest.raises(UsageError, match=why):
        prepare(replace(V2pRequest(name=str(tmp_path / "a.raw"), disks=(choice,), adapt=False), **how), Control())
    assert not list(tmp_path.glob("state/v2p/*"))


def test_nothing_grows_onto_sectors_of_another_size(tmp_path: Path) -> None:
    """The table's numbers are of sectors: a file system that grew by them would be elsewhere."""
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB, "--sector-size=4096") as device:
        done = v2p(source, device, "--grow", "--dry-run", "--json")
        assert (done.returncode, "--grow cannot be combined with sectors of" in done.stderr) == (4, True), done.stderr


def test_a_block_device_that_is_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CD drive, a disk without a medium, a mapped device: whatever /sys does not show as a disk."""
    wire: Any = SimpleNamespace(call=lambda what, **_how: ({"block": True, "name": "sr0", "files": SDA}, b""))
    with pytest.raises(RefusedError, match="/dev/sr0 is no disk that can be written"):
        targets._find(wire, "/dev/sr0")  # type: ignore[arg-type]


@pytest.mark.parametrize(("disk", "typed"), [
    ({"serial": "S1", "ids": ("ata-X_S1", "wwn-0x5")}, "S1"), ({"ids": ("lvm-pv-uuid-a", "ata-X")}, "ata-X"),
    ({"wwid": "naa.5"}, "naa.5"), ({}, "sdq-4096"), ({"ids": ("lvm-pv-uuid-a",)}, "sdq-4096")])
def test_what_is_to_be_typed(disk: dict[str, object], typed: str) -> None:
    """Never a name that udev makes of what is on the disk: it goes when the disk is written over."""
    found = PhysicalDisk(name="sdq", size=4096, **disk)
    target = targets.TargetDisk(device="/dev/sdq", disk=found, contents=Contents(lines=(), members=()), refused=())
    assert targets.confirmation(found) == typed
    assert targets.is_confirmed(target, (typed,))
    assert not targets.is_confirmed(target, ("sdq", "/dev/sdq", "", "lvm-pv-uuid-a"))
    bare = replace(found, ids=tuple(name for name in found.ids if "lvm" not in name))
    assert targets.identity(found) == targets.identity(bare)
