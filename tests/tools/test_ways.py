"""Every way in which ranges are copied: cloned, by the kernel, past the page cache, through a buffer; also where the kernel
suddenly refuses one."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.disks import fragmented
from fixtures import patterns, vmdk_kinds
from imgtool import storage
from imgtool.copying import choose, direct, native
from imgtool.copying.buffers import buffer
from imgtool.copying.compare import compare
from imgtool.copying.native import FICLONERANGE
from imgtool.copying.writeback import Writeback
from imgtool.errors import ImgtoolError, StoppedError
from imgtool.formats import target
from imgtool.formats.disk import open_disk
from imgtool.formats.vmdk.write import VmdkTarget
from imgtool.model import AllocateRequest, Allocation, ConvertResult, Kind
from imgtool.progress import Control, Rate, Stop
from imgtool.steps.allocate import allocate
from imgtool.steps.convert import convert
from tests import mounts, oracle, targets
from tests.images import READABLE, SMALL, Source
from tests.loops import mounted
from tests.oracle import tool
from tests.targets import VARIANTS, WRITABLE, Goal

GOALS = {**WRITABLE, **VARIANTS}
FROM = ("raw", "qcow2-1.1", "qcow2-512", "qcow2-chain", "vmdk-monolithicSparse", "vmdk-twoGbMaxExtentSparse-1M", "vmdk-vmfs",
        "chain-vmfsSparse")
TO = ("raw-thin", "qcow2-thin", "monolithicSparse-thin", "qcow2-512-thin")
ALIGNED = {"raw", "qcow2-1.1", "vmdk-vmfs"}
"""Sources whose payload lies at whole blocks of 4096 bytes, as the targets' does."""
ODD = "3k:A 61k:b 1M:- 200k:b 512:- 130560:0 512:C 130k:- 7k:D 2M:- 300k:a 1536:B"
"""Pieces that end in the middle of a block."""


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("xfs"), "xfs", 400 << 20) as point:
        yield point


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("ext4"), "ext4", 200 << 20) as point:
        yield point


@pytest.fixture
def folder() -> Iterator[Callable[[Path], Path]]:
    """Makes room for one test on a file system, and empties it afterwards."""
    used: list[Path] = []

    def make(system: Path) -> Path:
        for part in ("x", "y"):
            used.append(system / part)
            used[-1].mkdir()
        return system

    yield make
    for path in used:
        shutil.rmtree(path)


Folder = Callable[[Path], Path]


@pytest.fixture
def never_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No range is long enough to go past the page cache."""
    monkeypatch.setattr(direct, "WORTH", 1 << 60)


@pytest.fixture
def always_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each whole block is, also of a copy that will be compared."""
    monkeypatch.setattr(direct, "WORTH", direct.BLOCK)
    monkeypatch.setattr(choose, "memory", lambda: 0)


def forget(path: Path) -> None:
    """What is read from it next comes from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copied(source: Source, wanted: Goal, here: Path, *, rate: Rate | None = None, short: int = 0, **how: Any) -> ConvertResult:
    """Converted in this process, judged by qemu-img; the numbers add up. ``short``: bytes of data that the file does not hold."""
    request = replace(targets.request(source, wanted, here / "y"), **how)
    before = oracle.state(here / "x")
    made = convert(request, Control(rate=rate) if rate else Control())
    assert oracle.state(here / "x") == before
    for name in made.files:
        forget(Path(name))
    raw = targets.seen(source, here / "y" / "wanted.raw")
    oracle.same(Path(made.destination), wanted.format, raw, "raw")
    oracle.clean(Path(made.destination), wanted.format)
    moved, data = made.bytes_cloned + made.bytes_written, sum(piece.length for piece in source.pieces if piece.is_data)
    assert data <= moved, "data that nobody moved"
    if made.detected_zeroes:
        assert moved <= made.bytes_read
    else:
        assert moved == made.bytes_read - short, "more or less was moved than there is"
    assert made.verified
    return made


@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("kind", FROM)
def test_clone(xfs: Path, folder: Folder, kind: str, to: str) -> None:
    """Ranges that are not whole blocks are copied, the others cloned."""
    here = folder(xfs)
    source = READABLE[kind](here / "x", ODD)
    made = copied(source, GOALS[to], here)
    if kind in ALIGNED and to != "qcow2-512-thin":
        assert made.engine == "clone"
        assert made.bytes_cloned >= 500 << 10
    shared = any(oracle.space(path).flagged("shared") for path in targets.payload(made.files))
    assert shared == bool(made.bytes_cloned)


@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin", "qcow2-thick"])
def test_neighbours_in_both_files_are_one_piece(xfs: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """Clusters with data and holes by turns, which follow each other in the source; zeros behind them."""
    here, calls, plain = folder(xfs), [], fcntl.ioctl
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, code, *rest: (calls.append(code), plain(fd, code, *rest))[1])
    image = fragmented(here / "x" / "fragmented.qcow2", 32 << 20, 8 << 20)
    with open_disk(str(image)) as disk:
        content, said = list(disk.content()), list(disk.extents())
    assert [(extent.start, extent.length) for extent in content if extent.kind == Kind.DATA] == [
        (start, 64 << 10) for start in range(0, 8 << 20, 128 << 10)]
    assert (len(content), {extent.kind for extent in content}) == (128, {Kind.DATA, Kind.ZERO})
    assert (len(said), {extent.kind for extent in said}) == (512, set(Kind))
    made = convert(targets.request(Source(image, "qcow2", ()), GOALS[to], here / "y"), Control())
    oracle.same(Path(made.destination), made.format, image, "qcow2")
    oracle.clean(Path(made.destination), made.format)
    clones = calls.count(FICLONERANGE)
    assert clones == {"raw-thin": 64, "qcow2-thin": 1, "qcow2-thick": 0}[to]


ANY_ORDER = {"raw-thin": 128, "qcow2-thin": 1, "monolithicSparse-thin": 1, "twoGbMaxExtentSparse-thin": 1, "vmfs-thin": 128}


@pytest.mark.parametrize("to", ANY_ORDER)
def test_clusters_in_any_order(xfs: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """As ``qemu-img convert -W`` leaves them: each range that is shared waits for the one before."""
    here, calls, plain = folder(xfs), [], fcntl.ioctl
    image, numbers = here / "x" / "any.qcow2", list(range(0, 256, 2))
    random.Random(5).shuffle(numbers)
    tool("qemu-img", "create", "-q", "-f", "qcow2", image, "16M")
    tool("qemu-io", "-f", "qcow2", *(word for at, number in enumerate(numbers) for word in (
        "-c", f"write -q -P {at % 255 + 1} {number * 64}k 64k")), image)
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, code, *rest: (calls.append(code), plain(fd, code, *rest))[1])
    made = convert(targets.request(Source(image, "qcow2", ()), GOALS[to], here / "y"), Control())
    oracle.same(Path(made.destination), made.format, image, "qcow2")
    oracle.clean(Path(made.destination), made.format)
    assert calls.count(FICLONERANGE) == ANY_ORDER[to]


@pytest.mark.usefixtures("never_direct")
@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("kind", FROM)
def test_kernel(ext4: Path, folder: Folder, kind: str, to: str) -> None:
    here = folder(ext4)
    made = copied(READABLE[kind](here / "x", ODD), GOALS[to], here)
    assert (made.engine, made.bytes_cloned, made.detected_zeroes) == ("kernel", 0, False)


@pytest.mark.usefixtures("always_direct")
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("kind", FROM)
def test_direct(ext4: Path, folder: Folder, kind: str, to: str, cached: bool) -> None:
    """Whole blocks past the page cache, the ends of the ranges through it, on both sides."""
    here = folder(ext4)
    source = READABLE[kind](here / "x", ODD)
    for path in () if cached else (here / "x").iterdir():
        tool("sync", path)
        forget(path)
    made = copied(source, GOALS[to], here)
    assert (made.engine, made.bytes_cloned, made.detected_zeroes) == ("direct", 0, False)


@pytest.mark.usefixtures("always_direct")
@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin"])
def test_unpacked_and_plain_ranges_by_turns(ext4: Path, folder: Folder, to: str) -> None:
    """Each worker holds what it unpacked while it passes other bytes through."""
    here = folder(ext4)
    copied(READABLE["chain-on-streamOptimized"](here / "x", ODD), GOALS[to], here)


@pytest.mark.usefixtures("always_direct")
@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("kind", FROM)
def test_buffer(ext4: Path, folder: Folder, kind: str, to: str) -> None:
    here = folder(ext4)
    made = copied(READABLE[kind](here / "x", ODD), GOALS[to], here, detect_zeroes=True)
    assert (made.engine, made.bytes_cloned, made.detected_zeroes) == ("buffer", 0, True)
    assert made.bytes_written < made.bytes_read, "the zeros of the pattern were not left out"


@pytest.mark.parametrize("how", ["clone", "kernel", "direct", "buffer"])
@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin"])
def test_rate_limited(xfs: Path, ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, how: str, to: str) -> None:
    monkeypatch.setattr(direct, "WORTH", 4096 if how == "direct" else 1 << 60)
    monkeypatch.setattr(choose, "memory", lambda: 0)
    here = folder(xfs if how == "clone" else ext4)
    source = READABLE["qcow2-1.1"](here / "x", SMALL)
    made = copied(source, GOALS[to], here, rate=Rate(16 << 20), detect_zeroes=True if how == "buffer" else None)
    assert made.engine == how


def _refuses(code: int, after: int) -> Callable[..., int]:
    real, calls = os.copy_file_range, [0]

    def call(*args: Any, **words: Any) -> int:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(code, os.strerror(code))
        return real(*args, **words)

    return call


def _short(at_most: int, every: int = 0) -> Callable[..., int]:
    """Copies little at once, and (each so many calls) nothing."""
    real, calls = os.copy_file_range, [0]

    def call(source: int, target: int, count: int, *offsets: int) -> int:
        calls[0] += 1
        return 0 if every and calls[0] % every == 0 else real(source, target, min(count, at_most), *offsets)

    return call


@pytest.mark.usefixtures("never_direct")
@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin", "monolithicSparse-thin"])
@pytest.mark.parametrize(("code", "after"), [(errno.EXDEV, 0), (errno.EINVAL, 0), (errno.EOPNOTSUPP, 2), (errno.ENOSYS, 1)])
def test_copy_file_range_is_refused(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, code: int, after: int,
                                    to: str) -> None:
    here = folder(ext4)
    source = READABLE["raw"](here / "x", ODD)
    monkeypatch.setattr(os, "copy_file_range", _refuses(code, after))
    made = copied(source, GOALS[to], here)
    assert made.bytes_cloned == 0
    if not after:
        assert made.engine == "buffer"


@pytest.mark.usefixtures("never_direct")
def test_a_stop_is_heard_while_the_kernel_copies(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker may finish the call that it is in, and begins no other."""
    here, stop, calls = folder(ext4), Stop(), [0]
    source = READABLE["raw"](here / "x", "64M:a")
    real = os.copy_file_range

    def stopped(source: int, to: int, count: int, *offsets: int) -> int:
        calls[0] += 1
        stop.set()
        return real(source, to, min(count, 4096), *offsets)

    monkeypatch.setattr(os, "copy_file_range", stopped)
    with pytest.raises(StoppedError):
        convert(targets.request(source, GOALS["raw-thin"], here / "y"), Control(stop=stop))
    assert 1 <= calls[0] <= 64
    assert not list((here / "y").iterdir())


@pytest.mark.usefixtures("never_direct")
@pytest.mark.parametrize(("at_most", "every"), [(1000, 0), (1 << 16, 3), (4097, 2)])
def test_copy_file_range_copies_less(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, at_most: int,
                                     every: int) -> None:
    here = folder(ext4)
    source = READABLE["qcow2-1.1"](here / "x", ODD)
    monkeypatch.setattr(os, "copy_file_range", _short(at_most, every))
    assert copied(source, GOALS["monolithicSparse-thin"], here).bytes_cloned == 0


@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin", "monolithicSparse-thin"])
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ETXTBSY])
@pytest.mark.parametrize("granted", [0, 1, 3])
def test_clone_is_refused(xfs: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, granted: int, code: int, to: str) -> None:
    """In the middle of a copy: what was cloned stays, the rest is copied."""
    here = folder(xfs)
    source = READABLE["raw"](here / "x", ODD)
    real, calls = fcntl.ioctl, [0]

    def ioctl(fd: int, request: int, *args: Any) -> Any:
        if request == FICLONERANGE:
            calls[0] += 1
            if calls[0] > granted:
                raise OSError(code, os.strerror(code))
        return real(fd, request, *args)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    made = copied(source, GOALS[to], here)
    assert calls[0] > granted
    assert bool(made.bytes_cloned) == bool(granted)
    assert made.bytes_written > 0


@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin", "monolithicSparse-thin", "vmfs-thin"])
def test_a_cut_in_the_middle_of_a_block(xfs: Path, folder: Folder, to: str) -> None:
    """Two extents of one file that meet in a block: that block is copied, all others are cloned."""
    here = folder(xfs)
    pieces = patterns.parse("1003k:A 1045k:B")
    flat = patterns.write_raw(here / "x" / "x-flat.vmdk", pieces)
    sectors, first = flat.stat().st_size // 512, 1003
    image = vmdk_kinds.write("monolithicFlat", here / "x", "x", pieces)
    text = image.path.read_text()
    line = f'RW {sectors} FLAT "x-flat.vmdk" 0'
    assert line in text
    image.path.write_text(text.replace(line, f'RW {first} FLAT "x-flat.vmdk" 0\n'
                                             f'RW {sectors - first} FLAT "x-flat.vmdk" {first}'))
    made = copied(Source(image.path, "vmdk", pieces), GOALS[to], here)
    assert made.bytes_written == 4096
    assert made.bytes_cloned == flat.stat().st_size - 4096


@pytest.mark.usefixtures("never_direct")
def test_places_that_never_align(xfs: Path, folder: Folder) -> None:
    """A payload one sector further on than the guest's: nothing can be cloned, and nothing is."""
    here = folder(xfs)
    image = vmdk_kinds.write("monolithicFlat", here / "x", "x", ODD, offset=512)
    made = copied(Source(image.path, "vmdk", patterns.parse(ODD)), GOALS["raw-thin"], here)
    assert (made.engine, made.bytes_cloned) == ("kernel", 0)


@pytest.mark.usefixtures("always_direct")
@pytest.mark.parametrize("detect", [None, True])
@pytest.mark.parametrize("to", ["raw-thin", "raw-thick", "qcow2-thin", "monolithicSparse-thin"])
@pytest.mark.parametrize("granted", [0, 1])
def test_direct_is_refused(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, granted: int, to: str,
                           detect: bool | None) -> None:
    """In the middle of a copy, for each write after so many: the page cache takes those ranges."""
    here = folder(ext4)
    source = READABLE["raw"](here / "x", ODD)
    real, calls = os.pwrite, [0]

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            calls[0] += 1
            if calls[0] > granted:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    copied(source, GOALS[to], here, detect_zeroes=detect)
    assert calls[0] > granted


@pytest.mark.usefixtures("always_direct")
@pytest.mark.parametrize("at_most", [512, 4096, 12 << 10])
def test_direct_writes_less(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, at_most: int) -> None:
    """As it may where a quota or a signal ends a write: also in the middle of a block, where only the page cache goes on."""
    here = folder(ext4)
    source = READABLE["raw"](here / "x", ODD)
    real, short = os.pwrite, [0]

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        past = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        short[0] += bool(past) and len(data) > at_most
        return real(fd, data[:at_most] if past else data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    copied(source, GOALS["qcow2-thin"], here)
    assert short[0]


@pytest.mark.usefixtures("always_direct")
def test_nothing_to_gain(tmp_path: Path) -> None:
    """A file system in memory."""
    for where in mounts.tmpfs(tmp_path / "tmpfs", 64 << 20):
        (where / "x").mkdir(), (where / "y").mkdir()
        assert copied(READABLE["raw"](where / "x", ODD), GOALS["qcow2-thin"], where).engine == "kernel"


@pytest.mark.usefixtures("always_direct")
def test_sectors_of_4_kib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest sectors that there are: what is not whole ones would be refused."""
    written: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            written.append(len(data))
        return real(fd, data, offset)

    with mounted(tmp_path, "ext4", 200 << 20, sector=4096) as where:
        (where / "x").mkdir(), (where / "y").mkdir()
        source = READABLE["raw"](where / "x", ODD)
        monkeypatch.setattr(os, "pwrite", pwrite)
        made = copied(source, GOALS["raw-thin"], where)
    assert made.engine == "direct"
    assert sum(written) == sum(length for length in written if not length % 4096) >= 500 << 10


@pytest.mark.parametrize(("verify", "missing", "engine"), [(True, 0, "kernel"), (True, 4, "direct"), (False, 0, "direct")])
def test_what_will_be_compared_stays_in_memory(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, *, verify: bool,
                                               missing: int, engine: str) -> None:
    """If it fits; what nobody reads again does not."""
    here = folder(ext4)
    source = READABLE["raw"](here / "x", ODD)
    monkeypatch.setattr(direct, "WORTH", direct.BLOCK)
    monkeypatch.setattr(choose, "memory", lambda: 4 * source.path.stat().st_blocks * 512 - missing)
    request = replace(targets.request(source, GOALS["raw-thin"], here / "y"), verify=verify)
    assert convert(request, Control()).engine == engine


@pytest.mark.parametrize(("goal", "verify", "taken"), [
    ("raw-thin", False, [(0, 64 << 10), (1 << 20, 200 << 10)]), ("raw-thin", True, []), ("qcow2-thin", False, []),
    ("twoGbMaxExtentFlat-thin", False, [(0, 64 << 10), (1 << 20, 200 << 10)]), ("monolithicSparse-thin", False, [])])
def test_the_space_of_long_ranges_is_taken_before(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, *, goal: str,
                                                  verify: bool, taken: list[tuple[int, int]]) -> None:
    """Where they are written past the page cache, and stand where they stood. Holes stay holes."""
    here, known = folder(ext4), GOALS[goal]
    source = READABLE["raw"](here / "x", "64k:A 960k:- 200k:b 12k:- 4k:C 1M:-")
    monkeypatch.setattr(native, "LONG", 64 << 10)
    found: list[tuple[int, int]] = []

    def reserve(fd: int, offset: int, length: int) -> bool:
        found.append((offset, length))
        return True

    monkeypatch.setattr(storage, "reserve", reserve)
    made = convert(replace(targets.request(source, known, here / "y"), verify=verify), Control())
    assert found == taken
    targets.judge(source, known, replace(made, verified=True), targets.seen(source, here / "raw"))


def test_parts_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread says what will come while another one places what has."""
    made = target.create

    def slowly(folder: str, name: str) -> int:
        time.sleep(0.05)
        return made(folder, name)

    monkeypatch.setattr(target, "create", slowly)
    goal = VmdkTarget(str(tmp_path), "x.vmdk", 8 << 30, GOALS["twoGbMaxExtentFlat-thin"].spec)
    with closing(goal), ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(goal.expect, number << 31, 512) for number in range(4)]:
            done.result()
    assert len(os.listdir(tmp_path)) == 4


@pytest.mark.parametrize("kind", ["raw", "qcow2-zlib", "qcow2-1.1"])
@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_what_was_written_is_sent_to_the_disk(request: pytest.FixtureRequest, folder: Folder, monkeypatch: pytest.MonkeyPatch,
                                              fs: str, kind: str) -> None:
    """All of it, and none of what is shared."""
    sent: list[int] = []

    class Listening(Writeback):
        def wrote(self, fd: int, offset: int, length: int) -> None:
            sent.append(length)

    monkeypatch.setattr(native, "Writeback", Listening)
    here = folder(request.getfixturevalue(fs))
    made = convert(targets.request(READABLE[kind](here / "x", ODD), GOALS["qcow2-thin"], here / "y"), Control())
    assert sum(sent) == made.bytes_written


def test_memory_does_not_matter(ext4: Path, folder: Folder) -> None:
    """Bytes that do not begin at a page of memory: the device may refuse them."""
    here = folder(ext4)
    data = os.urandom(1 << 20)
    fd = os.open(here / "y" / "x", os.O_RDWR | os.O_CREAT)
    past = direct.Direct()
    for lead in (0, 512, 4096):
        room = memoryview(buffer(2 << 20)).cast("B")[lead:][:len(data)]
        room[:] = data
        past.write(fd, room, 4096)
        assert os.pread(fd, len(data), 4096) == data
        os.ftruncate(fd, 0)
    past.close()
    os.close(fd)


def test_where_nothing_goes_past_the_page_cache(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no O_DIRECT says so when the file is opened."""
    here = folder(ext4)
    real = os.open

    def refuse(path: str, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *more)

    fd = os.open(here / "y" / "x", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(direct.os, "open", refuse)
    past, data = direct.Direct(), os.urandom(direct.WORTH)
    assert not past.takes(fd, len(data))
    past.write(fd, memoryview(data), 0)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    room = memoryview(bytearray(len(data)))
    assert past.read(fd, room, 0) == len(data)
    assert room == data
    past.close()
    os.close(fd)


BAD = (2 << 20) + 4096
"""Where in the file."""


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("detect", [None, True])
@pytest.mark.parametrize(("kind", "to"), [("raw", "raw-thin"), ("qcow2-1.1", "raw-thin"), ("raw", "streamOptimized"),
                                          ("raw", "compare")])
def test_a_bad_block(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, kind: str, to: str, detect: bool | None,
                     cached: bool) -> None:
    """The kernel gives what is before it, and an error only when it is asked again: that short answer is not the file's end."""
    monkeypatch.setattr(direct, "WORTH", direct.BLOCK)
    here = folder(ext4)
    source = READABLE[kind](here / "x", "4M:A")
    copy = targets.seen(source, here / "y" / "copy.raw")
    tool("sync", source.path)
    for path in () if cached else (source.path, copy):
        forget(path)
    monkeypatch.setattr(os, "preadv", _bad(os.preadv, lambda words: len(words[1][0]), source.path, BAD))
    monkeypatch.setattr(os, "pread", _bad(os.pread, lambda words: words[1], source.path, BAD))
    goal = GOALS["raw-thin" if to == "compare" else to]
    request = replace(targets.request(source, goal, here / "y"), detect_zeroes=detect, verify=False)
    with open_disk(str(source.path)) as left, open_disk(str(copy)) as right:
        work = partial(compare, left, right) if to == "compare" else partial(convert, request)
        with pytest.raises((OSError, ImgtoolError), match="Input/output error"):
            work(Control())
    assert [path.name for path in (here / "y").iterdir()] == ["copy.raw"]


def _bad(real: Callable[..., Any], length: Callable[[Any], int], path: Path, bad: int) -> Callable[..., Any]:
    """pread(2) or preadv(2) of a file with a bad block; of all others as ever."""
    inode = path.stat().st_ino

    def call(fd: int, what: Any, offset: int) -> Any:
        end = offset + length((fd, what))
        if os.fstat(fd).st_ino != inode or not offset <= bad < end:
            return real(fd, what, offset)
        if offset == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, bad - offset if isinstance(what, int) else [what[0][:bad - offset]], offset)

    return call


@pytest.mark.parametrize("way", ["clone", "kernel", "direct"])
def test_a_disk_that_fails_is_no_way_that_is_refused(xfs: Path, ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch,
                                                     way: str) -> None:
    """Another way would fail later, or not be asked for the same bytes: the copy ends, and leaves nothing."""
    here = folder(xfs if way == "clone" else ext4)
    source = READABLE["raw"](here / "x", "4M:A")
    tool("sync", source.path)
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    ioctl, pwrite = fcntl.ioctl, os.pwrite

    def fail(wrong: bool, real: Callable[..., Any], *args: Any) -> Any:
        if wrong:
            raise broken
        return real(*args)

    if way == "clone":
        monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, *args: fail(request == FICLONERANGE, ioctl, fd, request, *args))
    elif way == "kernel":
        monkeypatch.setattr(direct, "WORTH", 1 << 60)
        monkeypatch.setattr(os, "copy_file_range", partial(fail, True, None))
    else:
        monkeypatch.setattr(choose, "memory", lambda: 0)
        monkeypatch.setattr(os, "pwrite", lambda fd, *args: fail(
            bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT), pwrite, fd, *args))
    with pytest.raises(ImgtoolError, match="Input/output error"):
        convert(targets.request(source, GOALS["raw-thin"], here / "y"), Control())
    assert not list((here / "y").iterdir())


@pytest.mark.parametrize("detect", [None, True])
@pytest.mark.parametrize("past", [False, True])
def test_a_last_cluster_that_the_file_does_not_hold_whole(ext4: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch, *,
                                                          past: bool, detect: bool | None) -> None:
    """What is behind the end of the file are zeros, not what was in the memory before. On a file system that knows no holes."""
    lseek = os.lseek

    def ignorant(fd: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return lseek(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", ignorant)
    if past:
        monkeypatch.setattr(direct, "WORTH", direct.BLOCK)
        monkeypatch.setattr(choose, "memory", lambda: 0)
    here = folder(ext4)
    source = READABLE["qcow2-1.1"](here / "x", "5M:A 20k:B 44k:-")
    size = source.path.stat().st_size
    os.truncate(source.path, size - (size - 1) % (64 << 10) - 1 + (20 << 10))
    copied(source, GOALS["raw-thin"], here, detect_zeroes=detect, short=44 << 10)


@pytest.mark.parametrize("goal", ["raw-thin", "qcow2-thin", "qcow2-thick", "qcow2-zlib", "qcow2-4-bits", "monolithicSparse-thin",
                                  "monolithicSparse-thick"])
def test_writes_that_write_a_part(tmp_path: Path, goal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is nearly full, while others make room: metadata, too, is written to its end."""
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    source, real = READABLE["raw"](tmp_path / "x", f"{SMALL} 12M:- 64k:A"), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, memoryview(data)[:500], offset))
    made = targets.run(source, GOALS[goal], tmp_path / "y")
    if goal.endswith("-thin"):
        for wanted in (Allocation.THICK, Allocation.THIN):
            allocate(AllocateRequest(path=made.destination, allocation=wanted), Control())
    monkeypatch.undo()
    oracle.same(Path(made.destination), GOALS[goal].format, source.path, "raw")
    oracle.clean(Path(made.destination), GOALS[goal].format)
