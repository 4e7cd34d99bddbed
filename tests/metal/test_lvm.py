"""``--snapshot lvm``. Physical volume, group, ``pvs`` and ``lvs`` are LVM's own. There is no device-mapper here:
``lvs`` cannot say whether a volume is active, and ``lvcreate --snapshot`` is a copy of its bytes on a loop device, after which
somebody writes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.sshd import Sshd, sshd
from imgtool.endpoints.metal import lvm
from imgtool.endpoints.metal.composed import Composed, Part
from imgtool.endpoints.uri import parse
from imgtool.errors import ImgtoolError, RefusedError
from imgtool.journal import digest
from imgtool.model.metal import PhysicalDisk, Reading
from tests.metal.copies import CONTROL, copied, disk, metal
from tests.oracle import tool
from tests.program import imgtool
from tests.shells import unheard

MIB = 1 << 20
PV, EXTENT = MIB, 4 * MIB
SIZE = 60 * MIB
"""Of the disk. The volume ``root`` has the physical extents 0 to 3 and 8 to 9, ``data`` 4 to 7."""
LVM = """#!/bin/sh
name=${0##*/}
"/usr/sbin/$name" --driverloaded n --nolocking --config 'devices { use_devicesfile=0 filter=["a|^DEVICE$|","r|.*|"] }' "$@" |
    sed 's/"segtype":"linear"/"segtype":"'"$(cat FOLDER/segtype)"'"/'
"""
LVCREATE = """#!/bin/sh -e
echo "create $*" >>FOLDER/log
[ ! -e FOLDER/full ] || [ ! -e FOLDER/first ] || { echo "insufficient free space: 0 extents, but 1 required" >&2; exit 5; }
touch FOLDER/first
mkdir -p /dev/GROUP
for word in "$@"; do was=$name name=$word; done
of=${name#*/} name=$was
case $of in
  root) dd if=DEVICE bs=4M skip=1M_AND_0 count=4 iflag=skip_bytes; dd if=DEVICE bs=4M skip=1M_AND_8 count=2 iflag=skip_bytes ;;
  *) dd if=DEVICE bs=4M skip=1M_AND_4 count=4 iflag=skip_bytes ;;
esac >FOLDER/$name 2>/dev/null
ln -s "$(losetup --find --show FOLDER/$name)" /dev/GROUP/$name
[ "$of" = root ] || exit 0  # the last one
for at in PLACES; do dd if=/dev/urandom of=DEVICE bs=64K count=1 seek=$at oflag=seek_bytes conv=notrunc 2>/dev/null; done
sync
"""
LVREMOVE = """#!/bin/sh
for name in "$@"; do :; done
losetup --detach "$(readlink /dev/$name)"
rm /dev/$name FOLDER/${name#*/}
rmdir --ignore-fail-on-non-empty /dev/GROUP
echo "remove $name" >>FOLDER/log
"""


class Machine:
    def __init__(self, folder: Path, device: Path, server: Sshd, group: str) -> None:
        self.folder, self.device, self.server, self.group = folder, device, server, group
        self.uri = parse(server.uri("metal+ssh", str(device)))

    def log(self) -> list[str]:
        path = self.folder / "log"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    path, group = tmp_path / "disk", f"vg{os.getpid()}"
    with path.open("wb") as file:
        file.write(random.Random(7).randbytes(SIZE))
    tool("sgdisk", "--clear", "--new=1:2048:+50M", path)
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "segtype").write_text("linear")
    with disk(path) as device, sshd(tmp_path / "sshd", tools=["sed", "dd", "losetup", "ln", "rmdir", "touch",
                                                              "readlink", "sync", "setsid"]) as server:
        (server.folder / "bin" / "python3").symlink_to("/usr/bin/python3")
        for name, text in {"lvs": LVM, "pvs": LVM, "lvcreate": LVCREATE, "lvremove": LVREMOVE}.items():
            for word, value in _words(folder, device, group).items():
                text = text.replace(word, value)  # noqa: PLW2901
            (server.folder / "bin" / name).write_text(text)
            (server.folder / "bin" / name).chmod(0o755)
        for command in (("pvcreate", f"{device}p1"), ("vgcreate", group, f"{device}p1"),
                        ("lvcreate", "-an", "-Zn", "-Wn", "-l", "4", "-n", "root", group),
                        ("lvcreate", "-an", "-Zn", "-Wn", "-l", "4", "-n", "data", group),
                        ("lvextend", "-l", "+2", f"{group}/root")):
            tool(command[0], "-q", "--driverloaded", "n", "--nolocking", "--config",
                 f'devices {{ use_devicesfile=0 filter=["a|^{device}p1$|","r|.*|"] }}', *command[1:])
        made = Machine(folder, device, server, group)
        try:
            yield made
        finally:
            server.cut()
            until(lambda: made.log().count("create") <= made.log().count("remove") + (folder / "full").exists())


def _words(folder: Path, device: Path, group: str) -> dict[str, str]:
    """Somebody writes into both volumes, and LVM into its metadata."""
    begin = PV + MIB
    places = [PV + 64 * 1024, begin + 3 * EXTENT, begin + 5 * EXTENT + 4096, begin + 9 * EXTENT]
    return {"DEVICE$": f"{device}p1$", "FOLDER": str(folder), "GROUP": group, "DEVICE": str(device),
            "PLACES": " ".join(map(str, places)),
            **{f"1M_AND_{number}": str(begin + number * EXTENT) for number in (0, 4, 8)}}


def until(true: object) -> None:
    end = time.monotonic() + 30
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_volumes_of_one_moment(machine: Machine, tmp_path: Path) -> None:
    """And the group as it was before there were snapshots."""
    want = (tmp_path / "disk").read_bytes()
    copied(machine.device, tmp_path / "copy", reading=Reading(lvm=True, whole=True), uri=machine.uri)
    assert (tmp_path / "copy").read_bytes() == want
    assert (tmp_path / "disk").read_bytes() != want, "nobody has written meanwhile: this shows nothing"
    assert machine.log() == ["create", "create", "remove", "remove"]
    assert not Path(f"/dev/{machine.group}").exists()


@pytest.mark.long
def test_only_what_its_file_systems_use(machine: Machine, tmp_path: Path) -> None:
    """Found in the disk as it is put together: the group is there, the snapshots are not."""
    begin, size = PV + MIB + 4 * EXTENT, 4 * EXTENT
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_bytes(random.Random(2).randbytes(5 * MIB))
    tool("mkfs.ext4", "-q", "-d", tmp_path / "files", "-E", f"offset={begin}", tmp_path / "disk", str(size // 1024))
    tool("blockdev", "--flushbufs", machine.device)
    reader = copied(machine.device, tmp_path / "copy", reading=Reading(lvm=True), uri=machine.uri)
    assert 30 * MIB < reader.bytes_read < SIZE - 8 * MIB, "the other volume is read whole, it has no file system"
    with (tmp_path / "copy").open("rb") as copy:
        copy.seek(begin)
        (tmp_path / "fs").write_bytes(copy.read(size))
    tool("e2fsck", "-fn", tmp_path / "fs")
    said = tool("debugfs", "-R", f"dump /one {tmp_path}/got", tmp_path / "fs")
    assert (tmp_path / "got").read_bytes() == (tmp_path / "files" / "one").read_bytes(), said.stderr


def test_a_group_without_room(machine: Machine, tmp_path: Path) -> None:
    """What was made is removed, and what failed, too: it may be there."""
    (machine.folder / "full").touch()
    with pytest.raises(ImgtoolError, match="no snapshot could be made: insufficient free space"):
        copied(machine.device, tmp_path / "copy", reading=Reading(lvm=True, whole=True), uri=machine.uri)
    until(lambda: machine.log() == ["create", "create", "remove", "remove"])


def test_volumes_that_are_not_just_pieces(machine: Machine, tmp_path: Path) -> None:
    (machine.folder / "segtype").write_text("raid1")
    with pytest.raises(RefusedError, match="is raid1: its bytes do not lie on the disk"):
        copied(machine.device, tmp_path / "copy", reading=Reading(lvm=True, whole=True), uri=machine.uri)
    assert machine.log() == []


def test_removed_whoever_dies(machine: Machine) -> None:
    with metal(uri=machine.uri, reading=Reading(lvm=True, whole=True)) as source:
        seen = source.look(source.machines()[0], CONTROL)
        assert not seen.state.can_resume
        with suppress(ImgtoolError), source.reader(seen, 0, CONTROL):
            assert machine.log() == ["create", "create"]
            assert machine.server.cut()
            until(lambda: machine.log() == ["create", "create", "remove", "remove"])


def test_here_they_are_removed_when_imgtool_is_killed(tmp_path: Path) -> None:
    """The shell that holds them is not in our session."""
    script = lvm.HOLD.replace("lvremove", f"echo lvremove >>{tmp_path}/log; true").replace("lvcreate", "true")
    child = os.fork()
    if not child:
        from imgtool.model.endpoint import Uri

        lvm.HOLD = script
        with lvm.held(Uri(scheme="metal"), ["vg/a", "vg/b"]):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().count("lvremove") == 2)


@pytest.mark.parametrize("breaks", ["true", "kill -PIPE $$"], ids=["while it says so", "in the middle"])
def test_removed_where_nobody_hears_that_they_are_made(tmp_path: Path, breaks: str) -> None:
    """The way was cut meanwhile: what the shell says kills it, or what lvcreate says kills that, when the volume is there."""
    script = lvm.HOLD.replace("lvremove", f"echo lvremove >>{tmp_path}/log; true").replace("lvcreate", f"sh -c '{breaks}'")
    assert unheard(script, "mark", "vg/a")
    assert (tmp_path / "log").read_text() == "lvremove\n"


def test_what_no_snapshot_holds_still_is_refused() -> None:
    busy = PhysicalDisk(name="sda", size=MIB, busy=("/dev/sda1 is mounted at /",), used=("/dev/sda1 is mounted at /",))
    with pytest.raises(RefusedError, match="no active logical volume lies on /dev/sda"):
        lvm.refuse_others(busy, lvm.Layout((), {}))
    raid = PhysicalDisk(name="sda", size=MIB, used=("/dev/sda1 is part of the RAID md0",))
    with pytest.raises(RefusedError, match="RAID md0"):
        lvm.refuse_others(raid, lvm.Layout((), {}))


def test_by_hashes_too(tmp_path: Path) -> None:
    """Of any range, over the borders of what it is made of."""
    (tmp_path / "disk").write_bytes(random.Random(1).randbytes(5 * MIB))
    with disk(tmp_path / "disk") as device, metal(device, reading=Reading(whole=True)) as source, \
            source.reader(source.look(source.machines()[0], CONTROL), 0, CONTROL) as reader:
        file = reader.file  # type: ignore[union-attr]
        data = bytearray(file.read(0, 4 * MIB))
        made = Composed(file, [Part(4096, 12288, b"x" * 8192), Part(MIB, 2 * MIB, file, 2 * MIB)])  # type: ignore[arg-type]
        data[4096:12288] = b"x" * 8192
        data[MIB:2 * MIB] = data[2 * MIB:3 * MIB]
        for start, end in ((0, 4 * MIB), (MIB, 2 * MIB), (MIB + 512, MIB + 1024), (8192, 20480), (3 * MIB, 4 * MIB), (0, 4096)):
            assert made.read(start, end - start) == data[start:end]
            assert made.hash_of(start, end - start, [(start, end)]) == digest(bytes(data[start:end]))
            half = (start + end) // 2
            assert made.hash_of(start, end - start, [(half, end)]) == digest(bytes(half - start) + data[half:end])
        assert made.hashes(0, 4 * MIB, MIB) == [digest(bytes(data[at:at + MIB])) for at in range(0, 4 * MIB, MIB)]


@pytest.mark.parametrize(("words", "why"), [(("--snapshot", "btrfs"), "no disk that can be copied"),
                                            (("--snapshot", "lvm", "--live"), "exclude each other")])
def test_wrong_use(tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    done = imgtool("p2v", "--from", "metal:///dev/sda", "--to", tmp_path / "x", *words)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
