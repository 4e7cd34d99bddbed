"""Ranges of the disk that come to a new image in any order within its window."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from imgtool.copying import native
from imgtool.formats.disk import open_disk
from imgtool.formats.qcow2.write import Qcow2Target
from imgtool.formats.target import Target, create
from imgtool.formats.vmdk import write
from imgtool.formats.vmdk.write import VmdkTarget
from imgtool.model import Extent, ImageSpec, Kind
from tests import oracle

SECTOR = 512
MIB = 1 << 20
OPTIONS = ((), ("cluster_size", "512"), ("cluster_size", "4k"), ("extended_l2", "on"))
IMAGES = {
    "sparse": ImageSpec(format="vmdk", subformat="monolithicSparse"),
    "split": ImageSpec(format="vmdk", subformat="twoGbMaxExtentSparse"),
    **{" ".join(("qcow2", *pair)): ImageSpec(format="qcow2", options=(pair,) if pair else ()) for pair in OPTIONS},
}


def made(folder: Path, image: ImageSpec, size: int) -> Target:
    kind = VmdkTarget if image.format == "vmdk" else Qcow2Target
    return kind(str(folder), f"x.{image.format}", size, image)


def ranges(rand: random.Random, size: int) -> Iterator[Extent]:
    """Of a disk of ``size`` bytes, from sector to sector, some left out."""
    at = 0
    while at < size:
        length = min(size - at, rand.choice((1, 3, 64, 128, 200, 1024)) * SECTOR)
        if rand.random() < 0.8:
            yield Extent(at, length, Kind.DATA)
        at += length


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", IMAGES)
def test_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int) -> None:
    monkeypatch.setattr(write, "TABLES_KEPT", 2)
    monkeypatch.setattr(write, "SPLIT", 33 * MIB)
    fmt = IMAGES[kind].format
    rand, size = random.Random(f"{kind} {seed}"), (3 if "512" in kind else 100) * MIB
    plain = create(str(tmp_path), "plain")
    os.ftruncate(plain, size)
    target = made(tmp_path, IMAGES[kind], size)
    parts = [part for extent in ranges(rand, size) for part in native._windows(extent, target.window)]
    rand.shuffle(parts)
    for part in sorted(parts, key=lambda one: one.start // target.window):
        got = list(target.place(part.start, part.length))
        assert sum(place.length for place in got) == part.length
        at = part.start
        for place in got:
            assert place.start == at
            for sector in (0, place.length - SECTOR):  # what is between them follows
                data = rand.randbytes(SECTOR)
                os.pwrite(place.fd, data, place.offset + sector)
                os.pwrite(plain, data, at + sector)
            at += place.length
    target.finish()
    target.close()
    os.close(plain)
    image = tmp_path / f"x.{fmt}"
    oracle.same(tmp_path / "plain", "raw", image, fmt)
    oracle.clean(image, fmt)
    with open_disk(str(image)) as disk:
        assert sum(one.length for one in disk.extents() if one.kind == Kind.DATA) >= sum(part.length for part in parts)


@pytest.mark.parametrize("order", list(permutations((0, 1, 2, 4))))
def test_each_grain_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]) -> None:
    """Those in a window are written together, whichever came first."""
    monkeypatch.setattr(write, "TABLES_KEPT", 4)
    target = made(tmp_path, IMAGES["sparse"], 5 * write.COVERED)
    for table in sorted(order, key=lambda table: table // 4):
        for place in target.place(table * write.COVERED, SECTOR):
            os.pwrite(place.fd, bytes([table + 1]) * SECTOR, place.offset)
    target.finish()
    target.close()
    with open_disk(str(tmp_path / "x.vmdk")) as disk:
        found = {one.start // write.COVERED: disk.read(one)[0] for one in disk.extents() if one.kind == Kind.DATA}
    assert found == {table: table + 1 for table in order}
