"""Holes of files under images whose ranges lie in any order."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtool import storage
from imgtool.formats import holes
from imgtool.formats.holes import with_holes
from imgtool.model import Extent, ImageFile, Kind

UNIT = 64 << 10
COUNT = 200


def scattered(file: ImageFile, seed: int) -> list[Extent]:
    """The units of a file, in an order of its own, some of them together."""
    rand = random.Random(seed)
    runs = []
    at = 0
    while at < COUNT:
        length = min(rand.randint(1, 6), COUNT - at)
        runs.append((at, length))
        at += length
    rand.shuffle(runs)
    found, start = [], 0
    for offset, length in runs:
        found.append(Extent(start, length * UNIT, Kind.DATA, file, offset * UNIT))
        start += length * UNIT
    return found


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ImageFile]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, COUNT * UNIT)
    yield ImageFile(str(tmp_path / "file"), fd, COUNT * UNIT)
    os.close(fd)


def units(extents: Iterator[Extent]) -> dict[int, int | None]:
    """Each unit of the disk: where it lies in the file, or None for zeros."""
    return {at: extent.offset + at - extent.start if extent.kind == Kind.DATA else None
            for extent in extents for at in range(extent.start, extent.end, UNIT)}


@pytest.mark.parametrize(("window", "kept"), [(16 * UNIT, 1024), (16 * UNIT, 3), (4 << 30, 1024), (4 << 30, 1)])
@pytest.mark.parametrize("seed", range(10))
def test_in_any_order(file: ImageFile, monkeypatch: pytest.MonkeyPatch, window: int, kept: int, seed: int) -> None:
    monkeypatch.setattr(holes, "WINDOW", window)
    monkeypatch.setattr(holes, "PIECES", kept)
    rand = random.Random(seed)
    written = {number for number in range(COUNT) if rand.random() < 0.7}
    for number in written:
        os.pwrite(file.fd, b"x" * UNIT, number * UNIT)
    extents = scattered(file, seed)
    placed = units(iter(extents))
    want = {at: offset if offset is not None and offset // UNIT in written else None for at, offset in placed.items()}
    assert units(with_holes(iter(extents))) == want


def test_it_is_asked_once_for_a_part(file: ImageFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ranges lie in it: each question of lseek(2) goes through all blocks up to the next hole."""
    asked = []
    pieces = storage.pieces
    monkeypatch.setattr(storage, "pieces", lambda *range_: asked.append(range_) or pieces(*range_))
    os.pwrite(file.fd, b"x" * COUNT * UNIT, 0)
    assert all(extent.kind == Kind.DATA for extent in with_holes(iter(scattered(file, 1))))
    assert len(asked) == 1
