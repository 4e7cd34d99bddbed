"""`imgtool allocate`: thin, thick and eager in place, judged by qemu-img, stat and FIEMAP; refused, or killed in the middle."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from fixtures import patterns
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, RefusedError, UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.vmdk import whole
from imgtool.model import AllocateRequest, AllocateResult, Allocation
from imgtool.progress import Control
from imgtool.steps import allocate as steps
from imgtool.steps.allocate import allocate
from tests import oracle, targets
from tests.images import LARGE, READABLE, SMALL, Source
from tests.loops import loop_device
from tests.mounts import ext4
from tests.program import ENVIRONMENT, imgtool, result
from tests.targets import VARIANTS, VMDK, WRITABLE, Goal

GOALS = {**WRITABLE, **VARIANTS}
CAN = ["raw", "qcow2", "qcow2-0.10", "qcow2-512", "qcow2-2M", *VMDK]
"""What imgtool writes thin, and can make thick in place."""
FIXED = ["vhdx", "vpc", "vdi"]
"""Thick from the beginning: the subformat without blocks."""
OTHERS = ["raw", "raw-thick", "qcow2-thick", "qcow2-1.1", "vmdk-vmfs-thick", "vmdk-monolithicSparse-zeroed",
          "vmdk-monolithicSparse-8", "vmdk-monolithicFlat-offset", "vmdk-twoGbMaxExtentSparse-1M", "vmdk-twoGbMaxExtentFlat-1M",
          "qemu-monolithicSparse", "qemu-twoGbMaxExtentSparse", "flat-alone"]
"""Images of others, made thick in place."""
REFUSED = ["vmdk-streamOptimized", "vmdk-vmfsSparse", "vmdk-seSparse", "qcow2-chain", "qcow2-snapshots", "qcow2-zlib",
           "qcow2-data-file", "chain-monolithicSparse", "chain-vmfsSparse", "chain-seSparse", "chain-twoGbMaxExtentSparse",
           "vhdx-dynamic", "vpc-dynamic", "vdi-dynamic", "qcow2-extended"]


def to(path: Path, allocation: str) -> AllocateResult:
    return allocate(AllocateRequest(path=str(path), allocation=Allocation(allocation)), Control())


def payload(source: Source) -> list[Path]:
    """The files of an image that hold data: the descriptor alone is small."""
    files = [path for path in source.path.parent.iterdir() if path != source.path]
    return [source.path] if source.format != "vmdk" or not files or source.path.stat().st_size > 1 << 16 else files


def judge(source: Source, raw: Path, wanted: str) -> None:
    oracle.same(source.path, source.format, raw, "raw")
    oracle.clean(source.path, source.format)
    files = payload(source)
    is_so = oracle.allocation(files, source.size)
    assert is_so == wanted, (is_so, [oracle.space(path) for path in files])


def new(tmp_path: Path, goal: Goal, pattern: str) -> tuple[Source, Path]:
    """An image as imgtool writes it, and what a guest reads of it."""
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    source = READABLE["raw"](tmp_path / "x", pattern)
    made = targets.run(source, goal, tmp_path / "y")
    return Source(Path(made.destination), goal.format, source.pieces), source.path


@pytest.mark.parametrize("pattern", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", [*CAN, "vmfs-ide"])
def test_round(tmp_path: Path, name: str, pattern: str) -> None:
    image, raw = new(tmp_path, GOALS.get(f"{name}-thin") or GOALS[name], pattern)
    before = "thin"
    for wanted in ("thick", "eager", "thin", "eager", "thick", "thin"):
        if (before, wanted) == ("eager", "thick"):
            # What is written stays written: more than thick asks for.
            assert to(image.path, wanted).allocation == "eager"
            judge(image, raw, "eager")
            continue
        told = to(image.path, wanted)
        assert (told.before, told.allocation) == (before, wanted)
        judge(image, raw, wanted)
        before = wanted


@pytest.mark.parametrize("name", FIXED)
def test_fixed(tmp_path: Path, name: str) -> None:
    image, raw = new(tmp_path, GOALS[f"{name}-thick"], SMALL)
    for wanted in ("eager", "thin", "thick", "thin"):
        assert to(image.path, wanted).allocation == wanted
        judge(image, raw, wanted)


@pytest.mark.parametrize("kind", OTHERS)
def test_images_of_others(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x").mkdir()
    source = READABLE[kind](tmp_path / "x", SMALL)
    raw = targets.seen(source, tmp_path / "raw")
    if kind == "flat-alone":
        source.path.with_name("x.vmdk").unlink()
    for wanted in ("thick", "eager", "thin"):
        assert to(source.path, wanted).allocation == wanted
        judge(source, raw, wanted)


@pytest.mark.parametrize("kind", [*REFUSED])
def test_refused_images_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x").mkdir()
    source = READABLE[kind](tmp_path / "x", SMALL)
    before = oracle.state(tmp_path / "x")
    for wanted in ("--thick", "--eager"):
        done = imgtool("allocate", source.path, wanted)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
    assert oracle.state(tmp_path / "x") == before


@pytest.mark.parametrize("kind", ["vmdk-streamOptimized", "qcow2-chain", "qcow2-snapshots", "qcow2-extended", "vhdx-dynamic",
                                  "vdi-dynamic", "vpc-dynamic", "chain-seSparse", "vmdk-vmfsSparse", "qcow2-zlib-2M"])
def test_thin_keeps_what_it_cannot_tell(tmp_path: Path, kind: str) -> None:
    """Holes are punched into any format: its bytes stay the same."""
    (tmp_path / "x").mkdir()
    source = READABLE[kind](tmp_path / "x", SMALL)
    raw = targets.seen(source, tmp_path / "raw")
    before = {name: digest for name, (_, digest) in oracle.state(tmp_path / "x").items()}
    to(source.path, "thin")
    assert {name: digest for name, (_, digest) in oracle.state(tmp_path / "x").items()} == before
    oracle.same(source.path, source.format, raw, "raw")
    oracle.clean(source.path, source.format)


def test_thin_provisioned_follows(tmp_path: Path) -> None:
    image, _ = new(tmp_path, WRITABLE["vmfs-thin"], SMALL)
    text = image.path.read_text()
    assert text.count('ddb.thinProvisioned = "1"') == 1
    for wanted, count in (("thick", 0), ("eager", 0), ("thin", 1), ("thin", 1)):
        result("allocate", image.path, f"--{wanted}")
        now = image.path.read_text()
        assert now.count("thinProvisioned") == now.count('\nddb.thinProvisioned = "1"\n') == count
        without = [line for line in now.splitlines() if line and "thinProvisioned" not in line]
        assert without == [line for line in text.splitlines() if line and "thinProvisioned" not in line]


def test_no_space_leaves_the_image_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", path, "40T")
    before = oracle.state(tmp_path)
    assert imgtool("allocate", path, "--thick").returncode == 7
    assert oracle.state(tmp_path) == before


def test_no_space_in_the_middle_gives_back_what_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others took the space after it was looked for."""
    from imgtool import storage

    for here in ext4(tmp_path / "small", 32 << 20):
        image, _ = new(here, WRITABLE["monolithicSparse-thin"], "64k:A 60M:- 64k:B")
        before, taken = image.path.read_bytes(), image.path.stat().st_blocks
        monkeypatch.setattr(storage, "free_space", lambda _: 1 << 40)
        with pytest.raises(NoSpaceError):
            to(image.path, "thick")
        assert image.path.read_bytes() == before
        assert image.path.stat().st_blocks - taken < 64, "in sectors: the file system may keep some of its own"


def test_no_space_for_new_metadata_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the guest's bytes have their space before that."""
    from imgtool import storage

    image, _ = new(tmp_path, WRITABLE["qcow2-thin"], SMALL)
    before = image.path.read_bytes()
    monkeypatch.setattr(storage, "write_all", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(NoSpaceError, match=re.escape(str(image.path))):
        to(image.path, "thick")
    assert image.path.read_bytes() == before


def test_where_grain_tables_are_missing_nothing_is_written(tmp_path: Path) -> None:
    image, _ = new(tmp_path, WRITABLE["monolithicSparse-thin"], LARGE)
    with image.path.open("r+b") as file:
        header = file.read(512)
        for field in (48, 56):
            file.seek(struct.unpack_from("<Q", header, field)[0] * 512 + 4)
            file.write(bytes(4))
    before = image.path.read_bytes()
    with pytest.raises(UsageError, match="grain tables are missing"):
        to(image.path, "thick")
    assert image.path.read_bytes() == before


def test_more_than_32_bits_of_sectors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut to 32 bits, the places of the new grains would be those of others."""
    image, _ = new(tmp_path, WRITABLE["monolithicSparse-thin"], SMALL)
    before = image.path.read_bytes()
    for most in (image.size // 512 - 1, image.size // 512 + 1):
        monkeypatch.setattr(whole, "MAX_SECTOR", most)
        with pytest.raises(UsageError, match="more than 2 TiB"):
            to(image.path, "thick")
        assert image.path.read_bytes() == before


@pytest.mark.parametrize("kind", ["twice", "compressed"])
def test_a_qcow2_with_clusters_that_cannot_get_places_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    """Two clusters of the disk that are one in the file (as deduplication makes them), or a compressed one far behind."""
    path = tmp_path / "x.qcow2"
    raw = patterns.write_raw(tmp_path / "x.raw", "64k:A 64k:- 64k:B 64k:-")
    oracle.tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", raw, path)
    data = bytearray(path.read_bytes())
    fifth = struct.unpack_from(">Q", data, 40)[0] + 4 * 8  # a table of these covers 32 KiB
    table = struct.unpack_from(">Q", data, fifth)[0] & (1 << 56) - 1
    entry, = struct.unpack_from(">Q", data, table)
    struct.pack_into(">Q", data, table + 8, entry if kind == "twice" else 1 << 62 | entry & (1 << 56) - 1)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="used twice" if kind == "twice" else "compressed clusters"):
        to(path, "thick")
    assert path.read_bytes() == data


@pytest.mark.parametrize(("part", "words"), [("unwritten", "writing zeros to"), ("shared", "blocks of its own")])
def test_no_space_for_what_has_blocks_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str,
                                                   words: str) -> None:
    """As a file system with copies on write has it, which reserves in vain."""
    from imgtool import storage

    path = patterns.write_raw(tmp_path / "x.raw", "1M:A")
    monkeypatch.setattr(storage, part, lambda fd, size: [(0, size)])
    monkeypatch.setattr(storage, "unshare", lambda *_: False)
    monkeypatch.setattr(storage, "write_all", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(NoSpaceError, match=words) as caught:
        to(path, "eager")
    assert str(path) in caught.value.message


def test_where_no_space_can_be_reserved_the_image_is_said_to_be_thin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgtool import storage

    path = patterns.write_raw(tmp_path / "x.raw", "64k:A 1M:-")
    monkeypatch.setattr(storage, "_fallocate", lambda *_: False)
    assert "the file system cannot reserve space" in " ".join(to(path, "thick").warnings)
    full = patterns.write_raw(tmp_path / "y.raw", "64k:A 1M:0")
    with pytest.raises(ImgtoolError, match="cannot punch holes") as caught:
        to(full, "thin")
    assert "convert --thin" in str(caught.value.hint)


@pytest.mark.parametrize("place", ["data", "table", "outside"])
@pytest.mark.parametrize("field", [48, 56], ids=["redundant", "primary"])
def test_grain_tables_that_are_something_else_are_not_written(tmp_path: Path, field: int, place: str) -> None:
    """Nobody reads the redundant ones: such an image is sound for all others."""
    image, raw = new(tmp_path, WRITABLE["monolithicSparse-thin"], LARGE)
    with image.path.open("r+b") as file:
        header = file.read(512)
        directory, = struct.unpack_from("<Q", header, field)
        overhead, = struct.unpack_from("<Q", header, 64)
        file.seek(directory * 512)
        _, second = struct.unpack("<2I", file.read(8))
        wrong = {"data": overhead, "table": second, "outside": image.path.stat().st_size // 512 + 8}[place]
        file.seek(directory * 512)
        file.write(struct.pack("<2I", wrong, second))
    before = image.path.read_bytes()
    with pytest.raises(DamagedError, match="in place"):
        to(image.path, "thick")
    assert image.path.read_bytes() == before
    if field == 48:
        oracle.same(image.path, "vmdk", raw, "raw")


Call = Callable[..., object]


def _die_at(count: int, calls: Iterator[int], real: Call, *args: object, **more: object) -> object:
    if next(calls) == count:
        os._exit(77)
    return real(*args, **more)


def killed_at(count: int, path: Path, wanted: str) -> bool:
    """Allocate in a child that dies, as by kill -9, just before its call number ``count`` that changes a file.

    False when there are not so many calls. Half of a write is not tried: that is a matter of the disk, not of a kill.
    """
    child = os.fork()
    if not child:
        code = 70
        try:
            from imgtool import storage  # patched in the child only

            calls = itertools.count()
            for owner, name in ((os, "pwrite"), (os, "fsync"), (os, "ftruncate"), (os, "rename"), (storage, "_fallocate")):
                setattr(owner, name, partial(_die_at, count, calls, getattr(owner, name)))
            to(path, wanted)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 77), f"the child ended with {code}"
    return code == 77


MIXED = "64k:A 1M:- 200k:b 512:- 192k:0 512:C 130k:- 700k:0 300k:a 1536:B"


@pytest.mark.parametrize("wanted", ["thick", "eager", "thin"])
@pytest.mark.parametrize("name", ["raw", "qcow2", "qcow2-512", "monolithicSparse", "twoGbMaxExtentSparse", "vmfs"])
def test_killed_in_the_middle(tmp_path: Path, name: str, wanted: str) -> None:
    """Whenever it dies: the image is sound, the guest's bytes are the same, and the next run succeeds."""
    image, raw = new(tmp_path, GOALS[f"{name}-{'eager' if wanted == 'thin' else 'thin'}"], MIXED)
    kept = tmp_path / "kept"
    shutil.copytree(image.path.parent, kept)
    moments = 0
    for count in moments_of(name):
        shutil.rmtree(image.path.parent)
        oracle.tool("cp", "-r", "--sparse=always" if wanted != "thin" else "--sparse=never", kept, image.path.parent)
        if not killed_at(count, image.path, wanted):
            break
        moments += 1
        oracle.clean(image.path, image.format, leaks=True)
        oracle.same(image.path, image.format, raw, "raw")
        if moments % 2 == 0:
            assert to(image.path, wanted).allocation == wanted
            oracle.clean(image.path, image.format, leaks=True)
            oracle.same(image.path, image.format, raw, "raw")
    assert moments >= 2, "raw has two: the space, and its flush"
    judge(image, raw, wanted)


def moments_of(name: str) -> Iterator[int]:
    """All first moments, then every so many: small clusters have hundreds of tables."""
    yield from range(12)
    yield from range(12, 4000, 23 if name == "qcow2-512" else 1)


def test_a_killed_run_of_the_program(tmp_path: Path) -> None:
    """By the program itself, slowed down and killed while it writes zeros."""
    image, raw = new(tmp_path, WRITABLE["qcow2-thin"], f"{SMALL} 24M:-")
    words = ["allocate", str(image.path), "--eager", "--rate-limit", "4M"]
    with subprocess.Popen([sys.executable, "-m", "imgtool", *words], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        while oracle.allocation([image.path], image.size) == "thin" and process.poll() is None:
            pass
        process.kill()
        assert process.wait() == -9
    oracle.clean(image.path, "qcow2", leaks=True)
    oracle.same(image.path, "qcow2", raw, "raw")
    assert to(image.path, "eager").allocation == "eager"
    judge(image, raw, "eager")


def test_of_two_at_the_same_moment_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins when the first has seen that nobody else has the image, and has not changed it yet."""
    image, raw = new(tmp_path, WRITABLE["monolithicSparse-thin"], SMALL)
    looked, second = steps.refuse_if_used, []

    def look(disk: Disk, **how: bool) -> None:
        looked(disk, **how)
        if not second:
            second.append("begins")
            with pytest.raises(RefusedError, match="in use"):
                to(image.path, "eager")
            second.append("was refused")

    monkeypatch.setattr(steps, "refuse_if_used", look)
    assert to(image.path, "thick").allocation == "thick"
    assert second == ["begins", "was refused"]
    judge(image, raw, "thick")


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    image, _ = new(tmp_path, WRITABLE["qcow2-thin"], SMALL)
    before = oracle.state(image.path.parent)
    told = result("allocate", image.path, "--thick", "--dry-run")
    assert [step["verb"] for step in told["steps"]] == ["allocate"]
    assert oracle.state(image.path.parent) == before
    assert patterns.size(SMALL) == told["steps"][0]["bytes"]


def test_the_space_of_a_block_device_is_all_there(tmp_path: Path) -> None:
    """To write zeros to it would only wear it; a hole cannot be dug everywhere."""
    raw = tmp_path / "a.raw"
    raw.write_bytes(os.urandom(1 << 20))
    with loop_device(raw) as device:
        for wanted in ("thin", "thick", "eager"):
            with pytest.raises(RefusedError, match="is a block device"):
                to(device, wanted)
