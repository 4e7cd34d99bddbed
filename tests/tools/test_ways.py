"""Every way in which ranges are copied: cloned, by the kernel, through a buffer; also where the kernel suddenly refuses one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures import patterns, vmdk_kinds
from imgtool.copying.native import FICLONERANGE
from imgtool.model import ConvertResult
from imgtool.progress import Control, Rate
from imgtool.steps.convert import convert
from tests import oracle, targets
from tests.images import READABLE, SMALL, Source
from tests.loops import mounted
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


def copied(source: Source, wanted: Goal, here: Path, *, rate: Rate | None = None, **how: Any) -> ConvertResult:
    """Converted in this process, judged by qemu-img; the numbers add up."""
    request = replace(targets.request(source, wanted, here / "y"), **how)
    before = oracle.state(here / "x")
    made = convert(request, Control(rate=rate) if rate else Control())
    assert oracle.state(here / "x") == before
    raw = targets.seen(source, here / "y" / "wanted.raw")
    oracle.same(Path(made.destination), wanted.format, raw, "raw")
    oracle.clean(Path(made.destination), wanted.format)
    moved, data = made.bytes_cloned + made.bytes_written, sum(piece.length for piece in source.pieces if piece.is_data)
    assert data <= moved, "data that nobody moved"
    if made.detected_zeroes:
        assert moved <= made.bytes_read
    else:
        assert moved == made.bytes_read, "more or less was moved than there is"
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


@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("kind", FROM)
def test_kernel(ext4: Path, folder: Folder, kind: str, to: str) -> None:
    here = folder(ext4)
    made = copied(READABLE[kind](here / "x", ODD), GOALS[to], here)
    assert (made.engine, made.bytes_cloned, made.detected_zeroes) == ("kernel", 0, False)


@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("kind", FROM)
def test_buffer(ext4: Path, folder: Folder, kind: str, to: str) -> None:
    here = folder(ext4)
    made = copied(READABLE[kind](here / "x", ODD), GOALS[to], here, detect_zeroes=True)
    assert (made.engine, made.bytes_cloned, made.detected_zeroes) == ("buffer", 0, True)
    assert made.bytes_written < made.bytes_read, "the zeros of the pattern were not left out"


@pytest.mark.parametrize("how", ["clone", "kernel", "buffer"])
@pytest.mark.parametrize("to", ["raw-thin", "qcow2-thin"])
def test_rate_limited(xfs: Path, ext4: Path, folder: Folder, how: str, to: str) -> None:
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


def test_places_that_never_align(xfs: Path, folder: Folder) -> None:
    """A payload one sector further on than the guest's: nothing can be cloned, and nothing is."""
    here = folder(xfs)
    image = vmdk_kinds.write("monolithicFlat", here / "x", "x", ODD, offset=512)
    made = copied(Source(image.path, "vmdk", patterns.parse(ODD)), GOALS["raw-thin"], here)
    assert (made.engine, made.bytes_cloned) == ("kernel", 0)
