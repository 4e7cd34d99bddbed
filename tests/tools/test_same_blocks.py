"""Verification: what lies in the same blocks is not read, and everything else is; the first difference is the first."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures import patterns
from imgtool import storage
from imgtool.model import SourceOptions, VerifyResult
from imgtool.progress import Control
from imgtool.steps.verify import verify
from tests import oracle, targets
from tests.images import READABLE, Source
from tests.loops import mounted
from tests.targets import WRITABLE

BLOCK = 4096
DENSE = "3M:A 1M:b 1M:- 2M:C 64k:0 100k:d 512:e"
FIRST_HOLE, ZEROS = 4 << 20, 7 << 20
SIZE = patterns.size(DENSE)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("xfs"), "xfs", 400 << 20) as point:
        yield point


@pytest.fixture(scope="module")
def packed_btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system that compresses what it holds."""
    with mounted(tmp_path_factory.mktemp("btrfs"), "btrfs", 200 << 20, "compress-force=zstd") as point:
        yield point


@pytest.fixture
def here(xfs: Path) -> Iterator[Path]:
    yield from room(xfs)


def room(system: Path) -> Iterator[Path]:
    for part in ("x", "y"):
        (system / part).mkdir()
    yield system
    for part in ("x", "y"):
        shutil.rmtree(system / part)


def compared(left: Path, right: Path) -> VerifyResult:
    return verify(str(left), str(right), SourceOptions(), Control())


def put(path: Path, offset: int, data: bytes, *, flush: bool = True) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        assert os.pwrite(fd, data, offset) == len(data)
        if flush:
            os.fsync(fd)
    finally:
        os.close(fd)


def changed(path: Path, offset: int, *, flush: bool = True) -> None:
    """One bit of one byte."""
    with path.open("rb") as file:
        file.seek(offset)
        (byte,) = file.read(1)
    put(path, offset, bytes([byte ^ 1]), flush=flush)


@dataclass
class Reads:
    """Bytes that were read by preadv, with which payload is compared."""

    total: list[int] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> Reads:
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int, *flags: int) -> int:
            count = real(fd, buffers, offset, *flags)
            self.total.append(count)
            return count

        monkeypatch.setattr(os, "preadv", preadv)
        return self


# --- clones ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("goal", ["raw-thin", "qcow2-thin", "monolithicSparse-thin", "vmfs-thin"])
def test_a_clone_is_not_read(here: Path, monkeypatch: pytest.MonkeyPatch, goal: str) -> None:
    source = READABLE["raw"](here / "x", DENSE)
    made = targets.run(source, WRITABLE[goal], here / "y")
    reads = Reads().watch(monkeypatch)
    told = compared(source.path, Path(made.destination))
    assert told.identical
    assert told.first_difference is None
    # The file system allocates whole blocks: the last, odd sector is not cloned.
    assert sum(reads.total) <= 2 * 2 * BLOCK, reads.total
    assert told.bytes_compared >= sum(piece.length for piece in source.pieces if piece.is_data)
    copy = here / "y" / "copy.raw"
    copy.write_bytes(source.path.read_bytes())
    reads.total.clear()
    assert compared(source.path, copy).identical
    assert sum(reads.total) >= 2 * (6 << 20), "blocks of its own were not read"


@pytest.mark.parametrize("flush", [False, True], ids=["dirty", "flushed"])
@pytest.mark.parametrize("at", [0, 1, 4095, 4096, (3 << 20) - 1, 3 << 20, (3 << 20) + 70001, (4 << 20) - 1, FIRST_HOLE,
                                FIRST_HOLE + 77777, 5 << 20, ZEROS, ZEROS + 65535, SIZE - 513, SIZE - 512, SIZE - 1])
def test_one_byte_of_a_clone(here: Path, at: int, flush: bool) -> None:
    source = READABLE["raw"](here / "x", DENSE)
    path = Path(targets.run(source, WRITABLE["raw-thin"], here / "y").destination)
    changed(path, at, flush=flush)
    for one, other in ((source.path, path), (path, source.path)):
        told = compared(one, other)
        assert (told.identical, told.first_difference) == (False, at)
    later = min(SIZE - 1, at + 5000)
    if later > at:
        changed(path, later, flush=flush)
        assert compared(source.path, path).first_difference == at, "not the first of two"


def test_one_byte_of_the_source(here: Path) -> None:
    """The clone keeps what the source had."""
    source = READABLE["raw"](here / "x", DENSE)
    path = Path(targets.run(source, WRITABLE["qcow2-thin"], here / "y").destination)
    changed(source.path, 123456, flush=False)
    assert compared(source.path, path).first_difference == 123456


def blocks(path: Path, offset: int, other: Path, other_offset: int, length: int) -> list[tuple[int, int]]:
    with path.open("rb") as left, other.open("rb") as right:
        return list(storage.same_blocks(left.fileno(), offset, right.fileno(), other_offset, length))


def reflink(source: Path, offset: int, target: Path, to: int, length: int) -> None:
    oracle.tool("xfs_io", "-f", "-c", f"reflink {source} {offset} {to} {length}", target)


def test_other_places_are_not_the_same(here: Path) -> None:
    """Blocks that are shared, but not with that place; and space that nobody has written."""
    a, b, c = here / "x" / "a", here / "x" / "b", here / "x" / "c"
    patterns.write_raw(a, "64k:A 64k:B 64k:C 64k:D")
    reflink(a, 0, b, 65536, 65536)
    reflink(a, 65536, b, 0, 65536)
    reflink(a, 131072, b, 131072, 131072)
    assert blocks(a, 0, b, 0, 131072) == []
    assert sum(length for _, length in blocks(a, 0, b, 65536, 65536)) == 65536
    assert blocks(a, 4096, b, 65536, 8192) == []
    assert blocks(a, 8192, b, 65536 + 8192, 8192) == [(0, 8192)]
    assert [begin for begin, _ in blocks(a, 0, b, 0, 262144)][:1] == [131072]
    for path in (b, c):
        oracle.tool("fallocate", "-o", 262144, "-l", 65536, path)
    assert blocks(b, 262144, c, 262144, 65536) == []
    with c.open("r+b") as file:
        file.truncate(262144)
    assert blocks(a, 0, c, 0, 262144) == []
    assert blocks(a, 0, here / "x" / "a", 65536, 65536) == []


def test_extents_that_begin_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XFS and btrfs cut what they tell to what was asked for; the interface (FIEMAP) does not promise it."""
    path = tmp_path / "x"
    path.write_bytes(b"")
    whole = storage.Physical(0, 1 << 30, 65536, storage.FIEMAP_SHARED)
    monkeypatch.setattr(storage, "physical_extents", lambda *_, **__: iter([whole]))
    assert blocks(path, 8192, path, 0, 8192) == []
    assert blocks(path, 8192, path, 8192, 4096) == [(0, 4096)]


def ranges_equal(a: bytes, at: int, b: bytes, b_at: int, length: int) -> bool:
    """What is behind the end reads as zeros."""
    return a[at:at + length].ljust(length, b"\0") == b[b_at:b_at + length].ljust(length, b"\0")


def layout(rng: random.Random, files: list[Path], count: int) -> None:
    """Blocks written, cloned from file to file, reserved and given back, in a random order."""
    for path in files:
        path.write_bytes(rng.randbytes(count * BLOCK))
    for _ in range(rng.randrange(4, 14)):
        path, other = rng.choice(files), rng.choice(files)
        length = rng.randrange(1, count // 2)
        at, to = (rng.randrange(count - length) for _ in range(2))
        kind = rng.choice(["clone", "clone", "clone", "write", "punch", "unwritten", "byte"])
        if kind == "clone" and (path != other or abs(at - to) >= length):
            reflink(path, at * BLOCK, other, to * BLOCK, length * BLOCK)
        elif kind == "write":
            put(other, to * BLOCK, rng.randbytes(length * BLOCK), flush=rng.random() < 0.5)
        elif kind == "byte":
            put(other, to * BLOCK + rng.randrange(BLOCK), b"\x5a", flush=rng.random() < 0.5)
        elif kind == "punch":
            oracle.tool("fallocate", "-p", "-o", to * BLOCK, "-l", length * BLOCK, other)
        elif kind == "unwritten":
            oracle.tool("xfs_io", "-c", f"fzero {to * BLOCK} {length * BLOCK}", other)


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(12, 200))])
def test_random_layouts(here: Path, seed: int) -> None:
    """Never more than what is equal; what is cloned and was left alone is found; ``verify`` tells the first difference."""
    rng, count = random.Random(seed), 64
    a, b = here / "x" / "a.raw", here / "x" / "b.raw"
    layout(rng, [a, b], count)
    for _ in range(40):
        length = rng.randrange(1, count * BLOCK // 2)
        at, to = rng.randrange(count * BLOCK - length), rng.randrange(count * BLOCK - length)
        if rng.random() < 0.5:
            to = at
        elif rng.random() < 0.8:
            to = to // BLOCK * BLOCK + at % BLOCK
            length = min(length, count * BLOCK - to)
        one, other = a.read_bytes(), b.read_bytes()
        position = 0
        for begin, size in blocks(a, at, b, to, length):
            assert position <= begin < begin + size <= length
            position = begin + size
            assert ranges_equal(one, at + begin, other, to + begin, size), (seed, at, to, begin, size)
    differ = next((index for index in range(len(one)) if one[index] != other[index]), None)
    assert compared(a, b).first_difference == differ
    start = rng.randrange(count // 2)
    put(a, start * BLOCK, rng.randbytes(8 * BLOCK))
    reflink(a, start * BLOCK, b, start * BLOCK, 8 * BLOCK)
    assert sum(size for _, size in blocks(a, start * BLOCK, b, start * BLOCK, 8 * BLOCK)) == 8 * BLOCK


def test_btrfs_that_compresses(packed_btrfs: Path) -> None:
    """The place on the disk of what is compressed says nothing of the bytes."""
    for place in room(packed_btrfs):
        source = READABLE["raw"](place / "x", "2M:a 1M:A 1M:- 1M:b 512:c")
        made = targets.run(source, WRITABLE["raw-thin"], place / "y")
        path = Path(made.destination)
        assert made.bytes_cloned
        assert oracle.space(path).flagged("encoded"), "the file system did not compress"
        assert compared(source.path, path).identical
        part = place / "y" / "part.raw"
        shutil.copyfile(source.path, part)
        for at in (0, 131071, 131072, (2 << 20) - 1, (4 << 20) + 70000, source.size - 1):
            changed(path, at, flush=at % 2 == 0)
            assert compared(source.path, path).first_difference == at
            changed(path, at)
            assert compared(source.path, path).identical
        # The second half of a compressed extent in the place of its first half: one place on the disk, other bytes.
        oracle.tool("xfs_io", "-c", f"reflink {source.path} 65536 0 65536", path)
        text = source.path.read_bytes()
        first = next(index for index in range(65536) if text[index] != text[65536 + index])
        assert compared(source.path, path).first_difference == first
        oracle.tool("xfs_io", "-c", f"reflink {source.path} 0 4096 131072", path)
        assert compared(source.path, path).first_difference is not None


# --- the first difference -------------------------------------------------------------------------------------------------

MIXED = "70k:a 200k:A 512:- 1M:- 512:b 128k:0 65k:B 600k:c 1M:- 300k:C 1536:d"
END = patterns.size(MIXED)
PLACES = {"first": 0, "in-text": 30001, "last-of-text": (70 << 10) - 1, "random": 70 << 10, "last-of-random": (270 << 10) - 1,
          "hole": 270 << 10, "in-hole": 800000, "one-sector": (270 << 10) + 512 + (1 << 20), "zeros": (271 << 10) + (1 << 20),
          "last-of-zeros": (399 << 10) + (1 << 20) - 1, "middle": (500 << 10) + (1 << 20), "tail": END - 1536, "last": END - 1}
KINDS = ("raw", "qcow2-1.1", "qcow2-512", "qcow2-2M", "qcow2-zlib", "qcow2-zstd", "qcow2-zlib-2M", "qcow2-chain",
         "vmdk-streamOptimized", "vmdk-streamOptimized-clipped", "vmdk-seSparse-mixed", "vhdx-dynamic")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Source, bytes]]:
    """Images, and what a guest reads of them."""
    made: dict[str, tuple[Source, bytes]] = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        (folder / "x").mkdir()
        source = READABLE[kind](folder / "x", MIXED)
        made[kind] = source, targets.seen(source, folder / "raw").read_bytes()
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_first_difference(tmp_path: Path, images: dict[str, tuple[Source, bytes]], kind: str) -> None:
    source, content = images[kind]
    raw = tmp_path / "raw.raw"
    patterns.write_raw(raw, source.pieces)
    assert compared(source.path, raw).identical
    for name, at in reversed(PLACES.items()):  # each one is before those that differ already
        put(raw, at, bytes([content[at] ^ 0x80]), flush=False)
        for one, other in ((source.path, raw), (raw, source.path)):
            assert compared(one, other).first_difference == at, name


@pytest.mark.parametrize("kind", ["raw", "qcow2-1.1", "qcow2-zstd", "vmdk-streamOptimized", "vhdx-dynamic"])
@pytest.mark.parametrize("more", [512, 1 << 20, (5 << 20) + 512])
def test_behind_the_end(tmp_path: Path, images: dict[str, tuple[Source, bytes]], kind: str, more: int) -> None:
    source, content = images[kind]
    raw = tmp_path / "raw.raw"
    raw.write_bytes(content)
    with raw.open("r+b") as file:
        file.truncate(len(content) + more)
    for one, other in ((source.path, raw), (raw, source.path)):
        told = compared(one, other)
        assert told.identical
        assert "sizes differ" in " ".join(told.warnings)
    put(raw, len(content) + more - 512, bytes(512))
    assert compared(raw, source.path).identical
    for at in (len(content) + more - 1, len(content)):
        put(raw, at, b"x")
        for one, other in ((source.path, raw), (raw, source.path)):
            told = compared(one, other)
            assert (told.identical, told.first_difference) == (False, at)


@pytest.mark.parametrize("tail", [1, 511, 513, 4097])
def test_odd_tail(tmp_path: Path, tail: int) -> None:
    """Raw files of no whole number of sectors."""
    content = patterns.write_raw(tmp_path / "x", "1M:A").read_bytes() + b"t" * tail
    one, other = tmp_path / "one.raw", tmp_path / "other.raw"
    for path in (one, other):
        path.write_bytes(content)
    assert compared(one, other).identical
    changed(other, len(content) - 1)
    assert compared(one, other).first_difference == len(content) - 1
