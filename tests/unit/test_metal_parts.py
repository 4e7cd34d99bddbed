"""Parts of physical machines with a far end that is made up: what need not be read, what cannot, and what is refused."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool import endpoints
from imgtool.endpoints.far.wire import FarError
from imgtool.endpoints.metal import Metal, describe, disks, free, live, lvm, packing, rescue, served
from imgtool.endpoints.metal.contents import contents
from imgtool.endpoints.metal.free import Map
from imgtool.endpoints.metal.nbd import BLOCK
from imgtool.endpoints.metal.packing import Packing
from imgtool.endpoints.metal.reader import MetalReader
from imgtool.endpoints.ranges import Ranges
from imgtool.endpoints.uri import parse
from imgtool.errors import DamagedError, ImgtoolError, MissingToolError, RefusedError, StoppedError, UsageError
from imgtool.journal import digest
from imgtool.model.endpoint import Credentials
from imgtool.model.metal import Mounted, Pass, PhysicalDisk, Reading
from imgtool.progress import Control, Stop
from tests.oracle import tool
from tests.unit.test_metal import LVM, SDA, only

KIB, MIB = 1 << 10, 1 << 20
ROOT_DISK = PhysicalDisk(name="sda", size=64 * MIB)


def bad(number: int = errno.EIO) -> FarError:
    error = FarError("cannot be read")
    error.errno = number
    return error


class File:
    """A far disk; reading what ``errors`` has in it fails, by itself or with others."""

    sector, path = 512, "/dev/sda"

    def __init__(self, data: bytes, errors: Mapping[int, FarError] | None = None) -> None:
        self.data, self.size, self.errors = data, len(data), errors or {}

    def read(self, offset: int, length: int) -> bytes:
        for at, error in self.errors.items():
            if offset <= at < offset + length:
                raise error
        return self.data[offset:offset + length]

    def ask_read(self, offset: int, length: int, _codec: str | None = None) -> Future[tuple[dict[str, object], bytes]]:
        answer: Future[tuple[dict[str, object], bytes]] = Future()
        try:
            answer.set_result(({}, self.read(offset, length)))
        except FarError as error:
            answer.set_exception(error)
        return answer

    def hashes(self, offset: int, length: int, chunk: int) -> list[bytes]:
        return [digest(self.read(at, min(chunk, offset + length - at))) for at in range(offset, offset + length, chunk)]

    def hash_of(self, offset: int, length: int, wanted: Sequence[tuple[int, int]]) -> bytes:
        data = bytearray(length)
        for start, end in wanted:
            data[start - offset:end - offset] = self.read(start, end - start)
        return digest(bytes(data))


def reader(file: File, *, reading: Reading | None = None, disk: PhysicalDisk = ROOT_DISK) -> MetalReader:
    anything: Any = file
    return MetalReader(anything, disk, reading or Reading(), packing=Packing(None), mapped=lambda: Map(Ranges(), {}),
                       refresh=lambda: disk)


def test_a_chunk_with_bad_sectors_is_compared_as_the_copy_has_it(tmp_path: Path) -> None:
    """With zeros for them, and for what is free. Without --rescue it is an error, with the place; a cut line is always one."""
    data = bytes(range(256)) * (3 * MIB // 256)
    file = File(data, {MIB + 512: bad()})
    want = bytearray(data[MIB:2 * MIB])
    want[512:1024] = bytes(512)
    want[512 * KIB:] = bytes(512 * KIB)
    used = [(MIB, MIB + 512 * KIB)]
    found = reader(file, reading=Reading(rescue=str(tmp_path)))
    assert found.digest(MIB, 2 * MIB, used) == digest(bytes(want))
    assert list(found.bad or ()) == [(MIB + 512, MIB + 1024)]
    busy = PhysicalDisk(name="sda", size=64 * MIB, busy=("mounted",))
    with pytest.raises(ImgtoolError, match=f"cannot be read at byte {MIB + 512}"):
        reader(file, disk=busy).digest(MIB, 2 * MIB, used)
    file.errors = {MIB + 512: bad(errno.EPERM)}
    for wanted in (lambda: found.digest(MIB, 2 * MIB, used), lambda: found._get(MIB, 2 * MIB)):
        with pytest.raises(FarError, match="cannot be read"):
            wanted()


def test_what_is_no_bad_sector_is_not_zeros(tmp_path: Path) -> None:
    """A disk that is gone, a far end that has no memory: nothing of it may be written down as unreadable."""
    found = rescue.BadSectors(str(tmp_path / "map"), 64 * MIB, 512)
    with pytest.raises(FarError):
        found.read(0, MIB, File(bytes(64 * MIB), {0: bad(errno.ENOMEM)}).read)
    assert list(found) == []
    with pytest.raises(ImgtoolError, match="writing"):
        rescue.BadSectors(str(tmp_path / "missing" / "map"), MIB, 512).read(0, MIB, File(bytes(MIB), {0: bad()}).read)


class Asked:
    """A far end with these answers, by operation; it notes what it was asked."""

    def __init__(self, **answers: Callable[..., dict[str, object]]) -> None:
        self.answers, self.asked = answers, list[str]()

    def call(self, op: str, **details: object) -> tuple[dict[str, object], bytes]:
        self.asked.append(op)
        return self.answers[op](**details), b""

    ask = call


def test_what_is_free_of_a_disk_in_use() -> None:
    """Who does not say it is read whole; what another mount hides, too; of swap the head is read. Nothing beyond a partition."""
    places = (Mounted(start=0, size=8 * MIB, device="8:1"),
              Mounted(start=8 * MIB, size=8 * MIB, mount="/", device="8:2"),
              Mounted(start=16 * MIB, size=8 * MIB, mount="/btrfs", device="8:3"),
              Mounted(start=24 * MIB, size=8 * MIB, mount="/hidden", device="8:4"),
              Mounted(start=32 * MIB, size=32 * KIB, device="8:5"))

    def said(mount: str) -> dict[str, object]:
        if mount == "/btrfs":
            raise FarError("Inappropriate ioctl")
        ranges = [[MIB, 2 * MIB], [7 * MIB, 9 * MIB], [5, 5], [-4096, 4096]]
        return {"device": {"/": "8:2", "/hidden": "0:50"}[mount], "ranges": ranges}

    found = free.in_use(SimpleNamespace(wire=Asked(free=said)), PhysicalDisk(name="sda", size=64 * MIB, places=places))  # type: ignore[arg-type]
    assert list(found.free) == [(free.SWAP_HEAD, 8 * MIB), (9 * MIB, 10 * MIB)]
    assert [words.split(" is read whole: ")[0] for words in found.warnings] == ["/btrfs", "/hidden"]


@pytest.mark.parametrize("at", [None, 0, 2 * BLOCK + 5, 3 * BLOCK])
def test_a_map_holds_while_no_block_of_it_has_changed(at: int | None) -> None:
    """A disk whose file systems were written to since would be copied with holes in new files."""
    data = bytearray(3 * BLOCK + 512)
    known = Map(Ranges(), {number: digest(bytes(min(BLOCK, len(data) - number * BLOCK))) for number in (0, 2, 3)})
    data[BLOCK] = 1  # was not looked at
    if at is not None:
        data[at] = 1
    file: Any = File(bytes(data))
    assert known.holds(file, Stop()) == (at is None)


def at_rest(monkeypatch: pytest.MonkeyPatch, error: ImgtoolError, stop: Stop) -> list[Map]:
    def unused(*_: object) -> None:
        raise error

    monkeypatch.setattr("imgtool.guests.used.unused", unused)
    file: Any = File(bytes(MIB))
    return free.at_rest([file], stop)


def test_a_disk_that_the_appliance_does_not_understand(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read whole. But who stops imgtool, or has no appliance, is told."""
    stop = Stop()
    (found,) = at_rest(monkeypatch, ImgtoolError("no file system"), stop)
    assert (list(found.free), found.warnings) == ([], ("/dev/sda is read whole: no file system",))
    with pytest.raises(MissingToolError) as caught:
        at_rest(monkeypatch, MissingToolError("no guestfs", "apt-get install x"), stop)
    assert caught.value.hint == "apt-get install x; or --whole reads every byte"
    stop.set()
    with pytest.raises(StoppedError):
        at_rest(monkeypatch, StoppedError(15), stop)


def live_reader(reading: Reading, **more: object) -> Any:
    return SimpleNamespace(reading=reading, physical=ROOT_DISK, warnings=[], **more)


@pytest.mark.parametrize(("busy", "reading", "words"), [
    ("/dev/sda1 is mounted at /", Reading(), "in use"), ("/dev/sda1 is mounted at /", Reading(lvm=True), "in use"),
    (f"/dev/dm-0{disks.ACTIVE}a volume)", Reading(live=True), "cannot be frozen"),
    (f"/dev/dm-0{disks.ACTIVE}a volume)", Reading(frozen=True), "cannot be frozen")])
def test_what_is_not_copied_while_it_is_in_use(busy: str, reading: Reading, words: str) -> None:
    asked: Any = live_reader(reading)
    asked.physical = PhysicalDisk(name="sda", size=MIB, busy=(busy,))
    with pytest.raises(RefusedError, match=words):
        live.fill(asked, asked, Control())


def test_a_pass_that_takes_longer_than_the_freeze() -> None:
    slow = live_reader(Reading(live=True, freeze_seconds=10))
    live._refuse_slow(slow, Pass(name="pass 2", bytes_read=1, seconds=6.9))
    with pytest.raises(RefusedError, match="a pass takes 8 s") as caught:
        live._refuse_slow(slow, Pass(name="pass 2", bytes_read=1, seconds=7.6))
    assert "--freeze-seconds 16" in (caught.value.hint or "")


def test_the_whole_of_a_disk_in_use() -> None:
    assert list(live._unused(live_reader(Reading(live=True, whole=True)))) == []


@pytest.mark.parametrize("error", [ImgtoolError("no space"), KeyboardInterrupt()])
def test_it_thaws_when_the_last_pass_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Its services would stand still for a minute."""
    wire = Asked(freeze=lambda **_: {"handle": 7}, thaw=lambda handle: {"was_frozen": True, "handle": handle})
    monkeypatch.setattr(live, "_there", lambda _reader: SimpleNamespace(wire=wire))
    with pytest.raises(type(error)), live._frozen(live_reader(Reading(frozen=True)), ["/"]):
        raise error
    assert wire.asked == ["freeze", "thaw"]


@pytest.mark.parametrize("changed", [True, False])
def test_what_is_not_frozen_must_stand_still(monkeypatch: pytest.MonkeyPatch, changed: bool) -> None:
    """FAT of EFI: its chunks are hashed once more, after all was read."""
    old, new = digest(b"old"), digest(b"new")
    asked: list[int] = []

    class Disk(SimpleNamespace):
        def digest(self, start: int, _end: int, _used: object) -> bytes:
            asked.append(start)
            return new if changed and start == 2 * MIB else old

    class Blocks(dict[int, bytes]):
        chunk, size = MIB, 64 * MIB
        digest_of = dict.__getitem__

    monkeypatch.setattr(live, "_unused", lambda _reader: Ranges())
    receiver: Any = SimpleNamespace(blocks=Blocks(dict.fromkeys(range(64), old)))
    places = [Mounted(start=MIB + 512, size=MIB, mount="/boot/efi")]
    if changed:
        with pytest.raises(RefusedError, match="/boot/efi cannot be frozen, and is being written to"):
            live._still(Disk(), receiver, places, Control())  # type: ignore[arg-type]
    else:
        live._still(Disk(), receiver, places, Control())  # type: ignore[arg-type]
        live._still(Disk(), receiver, [], Control())  # type: ignore[arg-type]
    assert sorted(asked) == [MIB, 2 * MIB]


@pytest.mark.parametrize("said", [
    "", "{}", "[]", '{"report": []}', '{"report": [{"pv": 5, "seg": 5}]}', '{"report": [{"pv": [{"vg_name": "a"}], "seg": []}]}',
    '{"report": [{"pv": [{"vg_name": "a", "pv_name": "/a", "pe_start": "x", "vg_extent_size": "1"}], "seg": []}]}',
    '{"report": [{"pv": [], "seg": [{"lv_active": "active"}]}]}'])
def test_what_lvm_says_that_is_no_report(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(lvm.tunnel, "run", lambda *_words, **_options: said)
    with pytest.raises(DamagedError, match="cannot be understood") as caught:
        lvm.layout(parse("metal+ssh://root@h/"), Stop())
    assert "LVM 2.02.158" in (caught.value.hint or "")


def test_lvm_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pvs", "lvs"):
        (tmp_path / name).write_text('#!/bin/sh\n[ ! -e "${0%/*}/fails" ] || { echo first; echo last >&2; exit 5; }\n'
                                     'echo \'{"report": [{"pv": [], "seg": []}]}\'\n')
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert lvm.layout(parse("metal:///"), Stop()) == lvm.Layout((), {})
    (tmp_path / "fails").touch()
    with pytest.raises(ImgtoolError, match=r"^pvs: last$"):
        lvm.layout(parse("metal:///"), Stop())


def test_a_physical_volume_of_another_disk_is_not_put_into_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two disks, a volume on both: each gets what lies on it."""
    found: Any = object.__new__(lvm.Snapshots)
    found._wire, found._path = None, lambda volume: f"/dev/{volume}"
    found._heads = {"/dev/sda1": b"a" * 512, "/dev/sdb": b"b" * 1024}
    found._segments = [lvm.Segment("vg/root", 0, "/dev/sda1", 512, 4096), lvm.Segment("vg/root", 4096, "/dev/sdb", 1024, 8192)]
    monkeypatch.setattr(lvm, "FarFile", lambda _wire, path: SimpleNamespace(path=path))
    monkeypatch.setattr(lvm, "Composed", lambda base, parts: (base.path, parts))
    base, parts = found.opened(PhysicalDisk(name="sdb", size=MIB))
    assert base == "/dev/sdb"
    assert [(one.start, one.end) for one in parts] == [(0, 1024), (1024, 1024 + 8192)]


def test_no_volumes_no_snapshots() -> None:
    """Of a machine at rest: nothing is made."""
    with lvm.held(parse("metal:///"), []) as path:
        assert path("vg/root") == "/dev/vg/root"


def test_packing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and data change."""
    found = Packing("zstd")
    for codec in (None, "zstd"):
        assert found.codec == codec
        found.came(packing.TRIAL, codec)
    best = found.codec
    found.came(packing.AGAIN - 1, best)
    assert found._trying == []
    found.came(1, best)
    assert found._trying == [None, "zstd"]


@pytest.mark.parametrize(("zstd", "codec"), [(True, "zstd"), (False, "zlib")])
def test_what_both_ends_can_pack(zstd: bool, codec: str) -> None:
    wire: Any = Asked(hello=lambda: {"zstd": zstd})
    assert packing.best_codec(wire) == codec


def test_a_served_disk_is_hashed_as_the_far_end_would(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(250)) * 10
    far = SimpleNamespace(size=len(data), pread=lambda start, end, _stop: data[start:end])
    monkeypatch.setattr(served, "FarDisk", lambda *_words, **_options: far)
    file = served.ServedFile(parse("metal+ssh://root@h/"), ROOT_DISK, Control())
    assert file.hashes(500, 2000, 900) == File(data).hashes(500, 2000, 900)
    assert file.hash_of(500, 900, [(600, 700)]) == File(data).hash_of(500, 900, [(600, 700)])


MAKE = {"xfs": ("mkfs.xfs", "-q", "-L", "daten", "{}"), "btrfs": ("mkfs.btrfs", "-q", "-L", "daten", "{}"),
        "fat": ("mkfs.vfat", "-F", "32", "-n", "DATEN", "{}"), "fat16": ("mkfs.vfat", "-F", "16", "-n", "DATEN", "{}"),
        "fat-unnamed": ("mkfs.vfat", "-F", "16", "{}"), "swap": ("mkswap", "-L", "daten", "{}"),
        "ntfs": ("mkfs.ntfs", "-q", "-F", "-L", "daten", "{}")}


@pytest.mark.parametrize(("fs", "words"), [
    ("xfs", "label daten"), ("btrfs", "label daten"), ("fat", "FAT, label DATEN"), ("fat16", "FAT, label DATEN"),
    ("fat-unnamed", "FAT"), ("swap", "swap, label daten"),
    ("ntfs", "NTFS")])
def test_the_name_of_what_would_be_lost(tmp_path: Path, fs: str, words: str) -> None:
    """It is shown before a disk is written: somebody may know it by its label."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(320 * MIB)
    tool(*(word.format(path) for word in MAKE[fs]))

    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    (line,) = contents(read, PhysicalDisk(name="sda", size=320 * MIB)).lines
    assert line.endswith(f", {words}")


def test_what_is_no_disk_is_not_described() -> None:
    assert describe.physical("/dev/null", Stop()) is None


@pytest.mark.parametrize(("said", "passed"), [('{"smart_status": {"passed": false}}', False), ("no such device", None)])
def test_health_of_smartctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, passed: bool | None) -> None:
    """Of a failing disk its exit code has bits set: that is what we want to hear."""
    (tmp_path / "smartctl").write_text(f"#!/bin/sh\n[ \"$*\" = '-j -H -A /dev/sda' ] && echo '{said}'\nexit 8\n")
    (tmp_path / "smartctl").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    found = describe._health("/dev/sda", Stop())
    assert (found.passed if found else None) is passed


def test_devices_that_stand_on_each_other() -> None:
    """A RAID of two partitions of one disk is found by both; a circle, that only a liar tells of, has an end."""
    raid = {f"/sys/block/sda/{part}/holders/md0": "x" for part in ("sda1", "sda10")}
    disk = only(SDA | raid | {"/sys/block/md0/md/level": "raid1", "/sys/block/md0/dev": "9:0"})
    assert disk.used == ("/dev/sda1 is part of the RAID md0", "/dev/sda10 is part of the RAID md0")
    circle = {"/sys/block/sda/sda1/holders/dm-0": "x", "/sys/block/dm-0/dev": "253:0", "/sys/block/dm-0/holders/dm-0": "x",
              "/sys/block/dm-0/dm/uuid": "ODD-1", "/sys/block/dm-0/dm/name": "odd"}
    assert only(SDA | circle).used == ("/dev/sda1 is part of /dev/dm-0 (odd)", "/dev/dm-0 (on sda1) is part of /dev/dm-0 (odd)")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Metal]]:
    """This machine, with other disks."""
    made: list[Metal] = []

    def make(files: Mapping[str, str], address: str = "metal:///", reading: Reading | None = None) -> Metal:
        made.append(Metal(parse(address), Stop()))
        monkeypatch.setattr(made[-1], "_files", lambda _patterns: files)
        monkeypatch.setattr("imgtool.endpoints.metal._is_claimed", lambda _wire, _path: False)
        made[-1].reading = reading or Reading()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(("reading", "fatal", "hint"), [
    (Reading(whole=True), True, "deactivate what is not mounted"),
    (Reading(whole=True, live=True), True, "deactivate what is not mounted"),
    (Reading(whole=True, lvm=True), False, "read from snapshots")])
def test_an_active_volume(machine: Callable[..., Metal], reading: Reading, fatal: bool, hint: str) -> None:
    there = machine(SDA | LVM, reading=reading)
    (problem,) = there.look(there.machines()[0], Control()).parsed.problems
    assert "/dev/dm-0 (on sda10) is active" in problem.what
    assert (problem.fatal, hint in (problem.hint or "")) == (fatal, True)


def test_a_disk_at_rest_beside_snapshots(machine: Callable[..., Metal]) -> None:
    """Nobody looks for free blocks of it: the appliance would see volumes that are in use."""
    there = machine(SDA, reading=Reading(lvm=True))
    seen = there.look(there.machines()[0], Control())
    assert (seen.state.disks[0].data, seen.state.can_resume) == (None, False)


@pytest.mark.parametrize(("files", "address", "words"), [
    ({}, "metal:///", "has no fixed disk"), (SDA, "metal:///dev/sda,/dev/disk/by-id/wwn-0x5000", "/dev/sda stands twice")])
def test_which_disks(machine: Callable[..., Metal], files: Mapping[str, str], address: str, words: str) -> None:
    there = machine(files, address)
    with pytest.raises(UsageError, match=words):
        there.look(there.machines()[0], Control())


def test_a_password_for_ssh() -> None:
    with pytest.raises(UsageError, match="ssh takes no password"):
        endpoints.source(parse("metal+ssh://root@h/"), Credentials(password_file="/p"))
