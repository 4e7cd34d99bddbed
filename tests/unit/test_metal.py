"""Physical disks: what /sys says of them, what stands on them, the far end over two pipes, and its disk as NBD."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool.endpoints import ranges
from imgtool.endpoints.far import program as far
from imgtool.endpoints.far.wire import FarError, Wire
from imgtool.endpoints.metal import disks, hardware, live
from imgtool.endpoints.metal.describe import health_of
from imgtool.endpoints.metal.nbd import served
from imgtool.endpoints.metal.rescue import BadSectors
from imgtool.endpoints.metal.signatures import SEEN, signatures
from imgtool.endpoints.ranges import Ranges
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, RefusedError, UnreachableError, UsageError
from imgtool.journal import digest
from imgtool.model.machine import FirmwareKind, Topology
from imgtool.model.metal import Pass
from imgtool.progress import Control

SDA = {
    "/sys/block/sda/size": "2000000\n", "/sys/block/sda/ro": "0", "/sys/block/sda/removable": "0", "/sys/block/sda/dev": "8:0\n",
    "/sys/block/sda/queue/logical_block_size": "512", "/sys/block/sda/queue/physical_block_size": "4096",
    "/sys/block/sda/queue/rotational": "1", "/sys/block/sda/device/vendor": "ATA     ",
    "/sys/block/sda/device/model": "ST1000NM0008 ",
    "/sys/block/sda/device/vpd_pg80": "\x00\x80\x00\x08ZDE1ABCD", "/sys/block/sda/sda1/partition": "1",
    "/sys/block/sda/sda1/start": "2048", "/sys/block/sda/sda1/size": "997952", "/sys/block/sda/sda1/dev": "8:1",
    "/sys/block/sda/sda10/partition": "10", "/sys/block/sda/sda10/start": "1000000", "/sys/block/sda/sda10/size": "1000",
    "/sys/block/sda/sda10/dev": "8:10", "/dev/disk/by-id/wwn-0x5000": "/dev/sda",
    "/dev/disk/by-id/ata-ST1000_ZDE1ABCD": "/dev/sda",
    "/dev/disk/by-id/ata-ST1000_ZDE1ABCD-part1": "/dev/sda1",
}
LVM = {
    "/sys/block/sda/sda10/holders/dm-0": "/sys/devices/virtual/block/dm-0", "/sys/block/dm-0/dev": "253:0",
    "/sys/block/dm-0/size": "800",
    "/sys/block/dm-0/dm/name": "vg0-root", "/sys/block/dm-0/dm/uuid": "LVM-abc",
}

MD = struct.pack("<I", 0xA92B4EFC)


def only(files: dict[str, str]):
    return next(disk for disk in disks.disks(files) if disk.name == "sda")


def test_a_disk_is_described() -> None:
    disk = only(SDA)
    assert (disk.path, disk.size, disk.sector, disk.physical_sector) == ("/dev/sda", 1_024_000_000, 512, 4096)
    assert (disk.model, disk.identity, disk.rotational) == ("ST1000NM0008", "ZDE1ABCD", True)
    assert disk.ids == ("ata-ST1000_ZDE1ABCD", "wwn-0x5000")
    assert [(part.name, part.start) for part in disk.partitions] == [("sda1", 1 << 20), ("sda10", 512_000_000)]
    assert disk.used == ()


@pytest.mark.parametrize(("more", "why"), [
    ({"/proc/self/mountinfo": "1 1 8:1 / /srv/my\\040data rw,noatime shared:1 - ext4 /dev/sda1 rw\n"}, "mounted at /srv/my data"),
    ({"/proc/self/mountinfo": "1 1 0:42 / /data rw - btrfs /dev/sda1 rw\n"}, "/dev/sda1 is mounted at /data"),
    ({"/proc/swaps": "Filename Type\n/dev/sda10 partition 1 0 -2\n"}, "/dev/sda10 is swap in use"),
    (LVM, "/dev/sda10 is part of the volume group of vg0-root"),
    (LVM | {"/proc/self/mountinfo": "1 1 253:0 / / rw - ext4 /dev/mapper/vg0-root rw"}, "/dev/dm-0 (on sda10) is mounted at /"),
    ({"/sys/block/sda/holders/md0": "x", "/sys/block/md0/md/level": "raid1", "/sys/block/md0/dev": "9:0"},
     "part of the RAID md0"),
])
def test_a_disk_in_use_says_why(more: dict[str, str], why: str) -> None:
    assert why in "\n".join(only(SDA | more).used)


def test_a_read_only_mount_is_in_use_but_not_written() -> None:
    disk = only(SDA | {"/proc/self/mountinfo": "1 1 8:1 / /srv ro - ext4 /dev/sda1 ro"})
    assert (len(disk.used), disk.mounts) == (1, ())
    assert only(SDA | {"/proc/self/mountinfo": "1 1 8:1 / /srv rw - ext4 /dev/sda1 rw"}).mounts == ("/srv",)


def test_this_machines_disks_are_found() -> None:
    files = far.Server(None, None).op_files({"patterns": disks.PATTERNS}, b"")["files"]
    assert any("is mounted at /" in why for disk in disks.disks(files) for why in disk.used)


def test_a_machine_is_described() -> None:
    cpus = {f"/sys/devices/system/cpu/cpu{number}/topology/{key}": text for number in range(8)
            for key, text in (("physical_package_id", str(number // 4)), ("core_id", str(number // 2 % 2)))}
    files = cpus | {
        "/proc/sys/kernel/hostname": "old-server.example.org\n", "/proc/meminfo": "MemTotal:  16314248 kB\n",
        "/sys/devices/system/cpu/online": "0-7\n", "/sys/firmware/efi/fw_platform_size": "64",
        "/sys/firmware/efi/efivars/SecureBoot-8be4": "\x06\0\0\0\x01", "/sys/class/tpm/tpm0/tpm_version_major": "2\n",
        "/sys/class/net/eno1/address": "AC:1F:6B:00:00:01\n", "/sys/class/net/eno1/type": "1",
        "/sys/class/net/eno1/device": "/sys/x",
        "/sys/class/net/eno1/operstate": "up", "/sys/class/net/br0/address": "ac:1f:6b:00:00:01", "/sys/class/net/br0/type": "1",
        "/sys/bus/pci/devices/0000:3b:00.0/class": "0x030200", "/sys/bus/pci/devices/0000:3b:00.0/vendor": "0x10de",
        "/sys/bus/pci/devices/0000:3b:00.0/device": "0x20b5", "/sys/bus/pci/devices/0000:00:1f.2/class": "0x010601",
    }
    machine, problems = hardware.machine(files, disks.disks(SDA))
    assert (machine.name, machine.memory.size, machine.cpu.count) == ("old-server", 16 << 30, 8)
    assert machine.cpu.topology == Topology(sockets=2, cores=2, threads=2)
    assert (machine.firmware.kind, machine.firmware.secure_boot) == (FirmwareKind.UEFI, True)
    assert [nic.mac for nic in machine.nics] == ["ac:1f:6b:00:00:01"]
    assert [disk.path for disk in machine.disks] == ["/dev/sda"]
    assert "graphics processor at 0000:3b:00.0" in problems[0].what
    assert "TPM" in problems[1].what


@pytest.mark.parametrize(("place", "magic", "name", "member"), [
    (512, b"LABELONE", "LVM2 physical volume", True), (4096, MD, "Linux RAID (1.2)", True),
    (-8192, MD, "Linux RAID (1.0)", True), (-65536, MD, "Linux RAID (0.90)", True),
    (-1024, b"Intel Raid ISM Cfg Sig. ", "Intel RAID (IMSM)", True), (0, b"LUKS\xba\xbe", "LUKS", False),
    (512, b"EFI PART", "GPT", False), (-512, b"EFI PART", "backup GPT", False), (1080, b"\x53\xef", "ext2/3/4", False),
])
def test_signatures(place: int, magic: bytes, name: str, member: bool) -> None:
    size = 8 << 20
    disk = bytearray(size)
    start = place if place >= 0 else size + place
    disk[start:start + len(magic)] = magic
    found = list(signatures(bytes(disk[:SEEN]), bytes(disk[-SEEN:]), size))
    assert [(one.name, one.offset, one.member) for one in found] == [(name, start, member)]
    assert not list(signatures(bytes(SEEN), bytes(SEEN), size))


@pytest.fixture
def wire() -> Iterator[Wire]:
    """The far end in a process of its own, as ssh would start it."""
    text = Path(far.__file__).read_bytes()
    start = f"import sys;exec(compile(sys.stdin.buffer.read({len(text)}),'far','exec'))"
    with subprocess.Popen([sys.executable, "-I", "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(text)
        yield Wire(child.stdin, child.stdout, "far")
        child.stdin.close()
        assert child.wait(10) == 0


def test_the_far_end_reads_writes_and_hashes(wire: Wire, tmp_path: Path) -> None:
    data = bytearray(random.Random(3).randbytes(3 << 20) + bytes(2 << 20) + b"end" * 512)
    path = tmp_path / "disk"
    path.write_bytes(data)
    handle = wire.call("open", path=str(path), write=True)[0]["handle"]
    pieces = [(start, min(1 << 20, len(data) - start)) for start in range(0, len(data), 1 << 20)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda piece: wire.call("read", handle=handle, offset=piece[0], length=piece[1]), pieces))
    got = [bytes(length) if answer.get("zero") else payload
           for (answer, payload), (_, length) in zip(answers, pieces, strict=True)]
    assert b"".join(got) == data
    assert [bool(answer.get("zero")) for answer, _ in answers] == [False] * 3 + [True] * 2 + [False]
    wire.call("write", b"x" * 700, handle=handle, offset=999)
    wire.call("zero", handle=handle, offset=1 << 20, length=5000)
    wire.call("flush", handle=handle)
    data[999:1699], data[1 << 20:(1 << 20) + 5000] = b"x" * 700, bytes(5000)
    assert path.read_bytes() == data
    sums = wire.call("hash", handle=handle, offset=0, length=len(data), chunk=1 << 20)[1]
    assert sums == b"".join(digest(bytes(data[start:start + length])) for start, length in pieces)


def test_the_far_end_says_what_went_wrong(wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(ImgtoolError, match="No such file"):
        wire.call("open", path=str(tmp_path / "none"))
    (tmp_path / "short").write_bytes(b"1" * 8192)
    handle = wire.call("open", path=str(tmp_path / "short"))[0]["handle"]
    with pytest.raises(ImgtoolError, match="ends at byte 8192"):
        wire.call("read", handle=handle, offset=4096, length=8192)
    with pytest.raises(ImgtoolError, match="op_nonsense"):
        wire.call("nonsense")


def test_a_name_that_is_taken_there(wire: Wire, tmp_path: Path) -> None:
    """By somebody who came meanwhile: nothing is overwritten."""
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_text("new")
    old.write_text("old")
    with pytest.raises(RefusedError, match="File exists"):
        wire.call("rename", path=str(new), to=str(old))
    assert (new.read_text(), old.read_text()) == ("new", "old")


def test_who_asks_when_the_far_end_is_gone_is_told() -> None:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        wire = Wire(child.stdin, child.stdout, "far")
        waiting = wire.ask("hello")
        child.kill()
        with pytest.raises(UnreachableError, match="the connection ended"):
            waiting.result(10)
        with pytest.raises(UnreachableError):
            wire.ask("hello")


@pytest.mark.parametrize("words", [
    b"[1]", b"7", b'"id"', b"{}", b'{"id": [1]}', b'{"id": null}', b'{"id": true}', b"[" * 20000, b"{", b"\xff",
    b'{"id": 1, "size": "1"}', b'{"id": 1, "size": -1}', b'{"id": 1, "size": NaN}', b'{"id": 1, "sector": 0}',
    b'{"id": 1, "sector": 513}', b'{"id": 1, "ranges": 5}', b'{"id": 1, "ranges": [[1]]}', b'{"id": 1, "ranges": [[-1, 4096]]}',
    b'{"id": 1, "files": {"/proc/swaps": null}}', b'{"id": 1, "error": {}}', b'{"id": 1, "device": []}'])
def test_a_far_end_that_says_nonsense_is_gone(words: bytes) -> None:
    """Who waits for it is told: no thread dies silently."""
    near, other = socket.socketpair()
    with near, other, near.makefile("rwb") as pipe:
        wire = Wire(pipe, pipe, "far")  # type: ignore[arg-type]
        waiting = wire.ask("hello")
        other.sendall(struct.pack(">II", len(words), 0) + words)
        with pytest.raises(UnreachableError, match="something else than answers"):
            waiting.result(10)
        other.close()


def test_a_far_end_cannot_fill_the_memory() -> None:
    near, other = socket.socketpair()
    with near, other, near.makefile("rwb") as pipe:
        wire = Wire(pipe, pipe, "far")  # type: ignore[arg-type]
        waiting = wire.ask("hello")
        other.sendall(struct.pack(">II", 9, 0xFFFFFFFF) + b'{"id": 1}')
        other.close()
        with pytest.raises(UnreachableError, match="something else than answers"):
            waiting.result(10)


@pytest.mark.parametrize(("number", "error"), [
    (errno.ENOSPC, NoSpaceError), (errno.EDQUOT, NoSpaceError), (errno.EROFS, RefusedError), (errno.EIO, FarError)])
def test_what_the_far_end_cannot_do_has_its_exit_code(number: int, error: type[ImgtoolError]) -> None:
    near, other = socket.socketpair()
    with near, other, near.makefile("rwb") as pipe:
        wire = Wire(pipe, pipe, "far")  # type: ignore[arg-type]
        waiting = wire.ask("write")
        words = b'{"id": 1, "error": "no", "errno": %d}' % number
        other.sendall(struct.pack(">II", len(words), 0) + words)
        told = waiting.exception(10)
        other.close()
    assert type(told) is error


def test_what_the_far_end_leaves_out_is_damage() -> None:
    near, other = socket.socketpair()
    with near, other, near.makefile("rwb") as pipe:
        wire = Wire(pipe, pipe, "far")  # type: ignore[arg-type]
        waiting = wire.ask("open")
        words = b'{"id": 1, "size": 512, "errno": [5]}'
        other.sendall(struct.pack(">II", len(words), 0) + words)
        said, _ = waiting.result(10)
        assert said["size"] == 512
        with pytest.raises(DamagedError, match="has no 'sector'"):
            said["sector"]
        other.close()


@pytest.mark.parametrize(("said", "bad"), [
    ({"ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 3}}, {"id": 9, "raw": {"value": 1}}]}}, {"reallocated": 3}),
    ({"nvme_smart_health_information_log": {"media_errors": 2}}, {"uncorrectable": 2}),
    ({"ata_smart_attributes": {"table": [{"id": 5, "raw": {}}, {"id": [], "raw": {"value": 1}}, 7, {"id": 197}]}}, {}),
    ({"ata_smart_attributes": {"table": 5}, "nvme_smart_health_information_log": {"media_errors": float("inf")}}, {}),
    ({"nvme_smart_health_information_log": [], "temperature": 5, "power_on_time": {"hours": "x"}}, {})])
def test_what_smartctl_says_of_bad_sectors(said: dict[str, object], bad: dict[str, int]) -> None:
    found = health_of({"smart_status": {"passed": True}, **said})
    assert found
    assert found.bad_sectors == bad


def test_a_disk_is_offered_as_nbd(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3_000_320)
    (tmp_path / "raw").write_bytes(data)
    asked: list[int] = []

    def read(offset: int, length: int) -> bytes:
        asked.append(offset)
        if not length:
            raise ImgtoolError("nothing")
        return data[offset:offset + length]

    with served(read, len(data)) as socket:
        uri = f"nbd+unix:///?socket={socket}"
        same = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "raw", uri],
                              capture_output=True, text=True, check=False)
        assert "identical" in same.stdout, same.stderr
        write = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 512", uri], capture_output=True, text=True, check=False)
        assert write.returncode != 0
    assert len(asked) == len(set(asked)) == 3


def test_a_bad_sector_behind_nbd(tmp_path: Path) -> None:
    """It is an error there, never zeros; what lies elsewhere can be read."""
    def read(offset: int, _length: int) -> bytes:
        if offset:
            raise FarError("cannot be read")
        return b"x" * (1 << 20)

    with served(read, 4 << 20) as socket:
        for at, good in ((2 << 20, False), (0, True)):
            done = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", f"read -P 120 {at} 512", f"nbd+unix:///?socket={socket}"],
                                  capture_output=True, text=True, check=False)
            assert (done.returncode == 0) == good, done.stdout
            assert good or "Input/output error" in done.stdout + done.stderr


def block(name: str, **more: str) -> dict[str, str]:
    """A disk as /sys shows it; ``dm__uuid`` is ``dm/uuid``."""
    said = {"size": "2048", "dev": f"8:{len(name)}{ord(name[-1])}", **more}
    return {f"/sys/block/{name}/{key.replace('__', '/')}": text for key, text in said.items()}


def test_the_disks_of_the_machine_itself() -> None:
    """Not what is removable, virtual, a path of a multipath disk, or made of others."""
    mpath = {"dm__uuid": "mpath-3600", "dm__name": "mpatha"}
    files = (block("sda") | block("sdb", removable="1") | block("loop0") | block("zram0") | block("sr0") | block("md0")
             | block("nbd0") | block("nvme0n1") | block("mmcblk0") | block("mmcblk0boot0") | block("dm-0", **mpath)
             | block("dm-1", dm__uuid="LVM-x", dm__name="vg-lv") | block("sdc", **{"holders__dm-0": "x"})
             | block("sdd", **{"holders__dm-0": "x"}))
    assert [disk.name for disk in disks.fixed(files)] == ["dm-0", "mmcblk0", "nvme0n1", "sda"]


@pytest.mark.parametrize(("more", "busy"), [
    ({}, []),
    (LVM, ["/dev/dm-0 (on sda10) is active (the volume group of vg0-root)"]),
    (LVM | {"/proc/self/mountinfo": "1 1 253:0 / / ro - ext4 /dev/mapper/vg0-root ro"}, []),
    (LVM | {"/proc/self/mountinfo": "1 1 253:0 / / rw - ext4 /dev/mapper/vg0-root rw"},
     ["/dev/dm-0 (on sda10) is mounted at /"]),
    ({"/proc/self/mountinfo": "1 1 8:1 / /a ro - ext4 /dev/sda1 rw\n1 1 8:1 / /b rw - ext4 /dev/sda1 rw"},
     ["/dev/sda1 is mounted at /a", "/dev/sda1 is mounted at /b"]),
])
def test_what_may_change_while_it_is_read(more: dict[str, str], busy: list[str]) -> None:
    disk = only(SDA | more)
    assert list(disk.busy) == busy
    assert bool(disks.not_mounted(disk)) == any("is active" in why for why in busy)


def test_one_place_of_each_file_system_is_frozen() -> None:
    """Bind mounts and subvolumes are the same file system; the mount of the whole of it comes first."""
    mounts = ("1 1 8:1 /lib /var/lib rw - ext4 /dev/sda1 rw\n1 1 8:1 / /srv rw - ext4 /dev/sda1 rw\n"
              "1 1 8:10 / /data rw - xfs /dev/sda10 rw\n")
    disk = only(SDA | {"/proc/self/mountinfo": mounts})
    assert disk.mounts == ("/srv", "/data")
    assert [(place.start, place.mount, place.device) for place in disk.places] == [
        (1 << 20, "/srv", "8:1"), (512_000_000, "/data", "8:10")]


def test_what_cannot_be_frozen_is_looked_at_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT: on a partition its place is compared once more, on a volume nobody knows its place."""
    @contextmanager
    def frozen(_reader: object, mounts: list[str]) -> Iterator[list[str]]:
        yield [one for one in mounts if one.startswith("/fat")]

    looked: list[str | None] = []
    monkeypatch.setattr(live, "_frozen", frozen)
    monkeypatch.setattr(live, "_refuse_hidden", lambda *_: None)
    monkeypatch.setattr(live, "_pass", lambda *_: Pass(name="frozen", bytes_read=0, seconds=0))
    monkeypatch.setattr(live, "_still", lambda _reader, _receiver, places, _control: looked.extend(
        place.mount for place in places))
    on_a_part = "1 1 8:1 / /fat rw - vfat /dev/sda1 rw\n1 1 253:0 / / rw - ext4 /dev/mapper/vg0-root rw\n"
    on_a_volume = "1 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n1 1 253:0 / /fat rw - vfat /dev/mapper/vg0-root rw\n"
    reader: Any = SimpleNamespace(refresh=lambda: only(SDA | LVM | {"/proc/self/mountinfo": on_a_part}))
    live._last(reader, reader, Control())
    assert looked == ["/fat"]
    reader.refresh = lambda: only(SDA | LVM | {"/proc/self/mountinfo": on_a_volume})
    with pytest.raises(RefusedError, match=r"/fat cannot be frozen"):
        live._last(reader, reader, Control())


@pytest.mark.parametrize(("there", "hidden"), [
    ({"/a": (8, 1), "/vol": (253, 0)}, ""), ({"/a": (8, 1), "/vol": (0, 40)}, ""),  # btrfs
    ({"/a": (8, 1), "/vol": (253, 7)}, "/vol"), ({"/a": (8, 1)}, "/vol"), ({"/a": (8, 2), "/vol": (253, 0)}, "/a")])
def test_what_another_mount_hides_is_not_frozen(monkeypatch: pytest.MonkeyPatch, there: dict[str, tuple[int, int]],
                                                hidden: str) -> None:
    """Neither a partition nor a volume: another file system would be frozen."""
    class Asked:
        def call(self, op: str, *, path: str) -> tuple[dict[str, object], bytes]:
            assert op == "stat"
            return {"found": path in there, "device": os.makedev(*there.get(path, (0, 0)))}, b""

    mounts = "1 1 8:1 / /a rw - ext4 /dev/sda1 rw\n1 1 253:0 / /vol rw - ext4 /dev/mapper/vg0-root rw\n"
    reader: Any = SimpleNamespace(refresh=lambda: only(SDA | LVM | {"/proc/self/mountinfo": mounts}))
    frozen: list[str] = []
    monkeypatch.setattr(live, "_there", lambda _reader: SimpleNamespace(wire=Asked()))
    monkeypatch.setattr(live, "_frozen", lambda _reader, mounts: frozen.extend(mounts) or nullcontext(()))
    monkeypatch.setattr(live, "_pass", lambda *_: Pass(name="frozen", bytes_read=0, seconds=0))
    monkeypatch.setattr(live, "_still", lambda *_: None)
    if hidden:
        with pytest.raises(RefusedError, match=f"{hidden} is hidden by another mount"):
            live._last(reader, reader, Control())
        assert frozen == []
    else:
        live._last(reader, reader, Control())
        assert sorted(frozen) == ["/a", "/vol"]


@pytest.mark.parametrize("over", ["/srv/a", "/srv"])
def test_a_mount_that_another_hides_comes_last(over: str) -> None:
    mounts = ("1 1 8:1 / /srv/a rw - ext4 /dev/sda1 rw\n1 1 8:1 / /other rw - ext4 /dev/sda1 rw\n"
              f"1 1 0:50 / {over} rw - tmpfs tmpfs rw\n")
    assert only(SDA | {"/proc/self/mountinfo": mounts}).mounts == ("/other",)


@pytest.mark.parametrize("number", ["9" * 5000, "\u00b2", "-1", "0x10", " "])
def test_numbers_of_sys_that_are_none(number: str) -> None:
    """They come from another machine."""
    disk = only(SDA | {"/sys/block/sda/sda1/start": number, "/sys/block/sda/queue/logical_block_size": number})
    assert (disk.sector, [part.start for part in disk.partitions]) == (512, [0, 512_000_000])
    files = {"/sys/devices/system/cpu/online": f"0-3,{number}", "/proc/meminfo": f"MemTotal: {number} kB\n"}
    assert hardware.machine(files, [])[0].cpu.count == 4


def test_a_bad_place_of_no_length_in_a_map_is_none(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("0x0 + 1\n0x0 0x0 -\n0x0 0x200 -\n0x200 0x0 ?\n0x200 0xE00 +\n")
    assert list(BadSectors(str(path), 4096, 512)) == [(0, 512)]


def test_processors_without_end() -> None:
    files = {"/sys/devices/system/cpu/online": ",".join(["0-999999"] * 1000)}
    assert hardware.machine(files, [])[0].cpu.count == 8192


def test_disks_by_any_of_their_names() -> None:
    assert disks.named(SDA, "/dev/sda").name == "sda"
    assert disks.named(SDA, "/dev/disk/by-id/wwn-0x5000").name == "sda"
    with pytest.raises(UsageError, match="is a partition"):
        disks.named(SDA, "/dev/disk/by-id/ata-ST1000_ZDE1ABCD-part1")
    with pytest.raises(UsageError, match="is no disk") as caught:
        disks.named(SDA, "/dev/sdz")
    assert "/dev/sda" in str(caught.value.hint)


def test_ranges() -> None:
    some = Ranges([(30, 40), (0, 10), (10, 12), (35, 50)])
    assert list(some) == [(0, 12), (30, 50)]
    assert some.bytes == 32
    assert list(some.within(5, 35)) == [(5, 12), (30, 35)]
    assert list(some.outside(5, 60)) == [(12, 30), (50, 60)]
    assert list(some.outside(31, 49)) == []
    assert list(Ranges().outside(3, 4)) == [(3, 4)]
    assert list(ranges.inward([(1, 9), (4, 8), (5, 7)], 4)) == [(4, 8), (4, 8)]
    assert list(ranges.pieces([(3, 9), (9, 10)], 4)) == [(3, 4), (4, 8), (8, 9), (9, 10)]
    assert ranges.spread(list(range(10)), 4) == [0, 3, 6, 9]
