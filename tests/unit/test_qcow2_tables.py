"""L2 tables: a plain one is read without numpy, to the same extents; what is odd in it is left to the other way. Some are written
together."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as some

from imgtool.errors import DamagedError
from imgtool.formats.qcow2 import read, write
from imgtool.formats.qcow2.header import EXTENDED_L2, Header
from imgtool.formats.runs import merged
from imgtool.model import Extent, ImageFile, ImageSpec, Kind
from tests import oracle

BITS = 16
CLUSTER = 1 << BITS
CLUSTERS = 1 << 16
"""Of the file."""
BASE = 512
"""The image is in an archive."""
FD = os.memfd_create("a.qcow2")
HEADER = Header(
    version=3, backing=None, backing_format=None, data_file=None, cluster_bits=BITS, virtual_size=1 << 40, encryption=None,
    l1_size=1, l1_offset=0, refcount_offset=0, refcount_clusters=0, snapshot_count=0, snapshot_offset=0, incompatible=0,
    compatible=0, autoclear=0, refcount_bits=16, compression="zlib", bitmaps=False)


def reader(header: Header = HEADER) -> read._Reader:
    file = ImageFile(path="a.qcow2", fd=FD, size=CLUSTERS * CLUSTER, base=BASE)
    return read._Reader(header, file, file)


def table(runs: Sequence[tuple[int, int]]) -> bytes:
    """Of (first cluster in the file, clusters); 0: nothing."""
    entries = [read.COPIED | (first + number) << BITS if first else 0 for first, count in runs for number in range(count)]
    return struct.pack(f">{len(entries)}Q", *entries)


def extents(raw: bytes) -> list[Extent]:
    """Of a table in the second cluster of a file."""
    os.pwrite(FD, raw, BASE + CLUSTER)
    return [*merged(reader()._l2_extents(0, CLUSTER, 0, len(raw) // 8 * CLUSTER))]


PLACES = some.sampled_from([0, 1, 5, 21, 1000, CLUSTERS - 40])
RUNS = some.lists(some.tuples(PLACES, some.integers(1, 40)), min_size=1, max_size=12)


@given(RUNS)
def test_the_same_extents_by_both_ways(runs: list[tuple[int, int]]) -> None:
    raw = table(runs)
    assert extents(raw) == [*merged(reader()._mixed(0, raw))]
    assert reader()._runs(raw) is not None


def test_an_empty_table() -> None:
    assert reader()._runs(table([(0, 8192)])) == [(0, 8192)]


def test_what_the_extents_are() -> None:
    assert extents(table([(5, 8000), (0, 100), (9000, 92)])) == [
        Extent(0, 8000 * CLUSTER, Kind.DATA, ANY, BASE + 5 * CLUSTER), Extent(8000 * CLUSTER, 100 * CLUSTER, Kind.UNALLOCATED),
        Extent(8100 * CLUSTER, 92 * CLUSTER, Kind.DATA, ANY, BASE + 9000 * CLUSTER)]


@pytest.mark.parametrize("entry", [
    read.ZERO, read.COMPRESSED | 5 << BITS, read.COPIED | 5 << BITS | read.ZERO, read.COPIED, 5 << BITS | 1 << 9, 1 << 57,
    read.COPIED | CLUSTERS << BITS])
def test_what_is_odd_is_left_to_the_other_way(entry: int) -> None:
    """Zero clusters, compressed ones, what is not aligned, reserved bits, beyond the end."""
    assert reader()._runs(table([(5, 20)]) + struct.pack(">Q", entry)) is None
    assert reader()._runs(struct.pack(">Q", entry) + table([(5, 20)])) is None


def test_the_end_of_the_file() -> None:
    """A cluster may begin within it; the next one not."""
    assert reader()._runs(table([(CLUSTERS - 20, 20)])) == [((CLUSTERS - 20) << BITS, 20)]
    assert reader()._runs(table([(CLUSTERS - 20, 21)])) is None
    with pytest.raises(DamagedError):
        [*reader()._mixed(0, table([(CLUSTERS - 20, 21)]))]


def test_subclusters_are_left_to_the_other_way() -> None:
    assert reader(replace(HEADER, incompatible=EXTENDED_L2))._runs(table([(9, 20)])) is None


SUB = CLUSTER // 32


@pytest.mark.parametrize(("entry", "bits", "found"), [
    (5 << BITS, 1 << 3, [(0, 3, Kind.UNALLOCATED), (3, 1, Kind.DATA), (4, 28, Kind.UNALLOCATED)]),
    (5 << BITS, 1 << 32 | 1 << 31, [(0, 1, Kind.ZERO), (1, 30, Kind.UNALLOCATED), (31, 1, Kind.DATA)]),
    (0, 0xF << 32, [(0, 4, Kind.ZERO), (4, 28, Kind.UNALLOCATED)]),
    (5 << BITS, 1 << 35 | 1 << 3, None), (0, 1, None)])
def test_the_bits_of_subclusters(entry: int, bits: int, found: list[tuple[int, int, Kind]] | None) -> None:
    """'Zero' above, 'allocated' below: both of one subcluster, or 'allocated' without a place, is damage."""
    raw = struct.pack(">2Q", entry and read.COPIED | entry, bits)
    made = reader(replace(HEADER, incompatible=EXTENDED_L2))._mixed(0, raw)
    if found is None:
        with pytest.raises(DamagedError, match="contradict"):
            list(made)
        return
    assert [(one.start // SUB, one.length // SUB, one.kind) for one in merged(made)] == found


def test_tables_wait_for_each_other_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 tables, three at a time."""
    monkeypatch.setattr(write, "WAITING", 3 * 512)
    raw, waited = bytearray(1 << 20), set()
    target = write.Qcow2Target(str(tmp_path), "a.qcow2", len(raw), ImageSpec(format="qcow2", options=(("cluster_size", "512"),)))
    for start in range(0, len(raw), 24 << 10):
        raw[start:start + 4096] = random.Random(start).randbytes(len(raw[start:start + 4096]))
        for place in target.place(start, len(raw[start:start + 4096])):
            os.pwrite(place.fd, raw[place.start:place.start + place.length], place.offset)
        waited.add(len(target._waiting))
    target.finish()
    target.close()
    assert waited == {0, 1, 2}
    (tmp_path / "a.raw").write_bytes(raw)
    subprocess.run(["qemu-img", "check", tmp_path / "a.qcow2"], check=True)
    oracle.same(tmp_path / "a.raw", "raw", tmp_path / "a.qcow2", "qcow2")
