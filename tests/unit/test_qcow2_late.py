"""A qcow2 image whose metadata comes last is sound, has the bytes, and takes no more room than they need."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtool.errors import UsageError
from imgtool.formats.qcow2.late import end_of, layout, metadata
from imgtool.formats.qcow2.write import shape
from imgtool.model import ImageSpec

TIB = 1 << 40


def made(path: Path, size: int, ranges: list[tuple[int, int]], cluster: str = "64k") -> Path:
    """The image, and beside it the raw disk that it should be."""
    raw = path.with_suffix(".raw")
    plan = layout(size, ImageSpec(format="qcow2", options=(("cluster_size", cluster),)))
    with path.open("wb") as image, raw.open("wb") as disk:
        disk.truncate(size)
        for number, (start, end) in enumerate(ranges, 1):
            payload = bytes([number % 255 + 1]) * (end - start)
            os.pwrite(image.fileno(), payload, plan.data_at + start)
            os.pwrite(disk.fileno(), payload, start)
        for offset, piece in metadata(plan, ranges):
            os.pwrite(image.fileno(), piece, offset)
        image.truncate(end_of(plan, ranges[-1][1] if ranges else 0))
    return raw


def qemu(*args: object) -> str:
    done = subprocess.run(["qemu-img", *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sound(path: Path, raw: Path) -> None:
    assert "No errors were found" in qemu("check", "-f", "qcow2", path)
    assert "identical" in qemu("compare", "-f", "qcow2", "-F", "raw", path, raw)


@pytest.mark.parametrize(("size", "ranges"), [
    (1 << 20, []), (1 << 20, [(0, 1 << 20)]), (1 << 20, [(70000, 70001)]),
    ((1 << 30) + 512, [(0, 512), (1 << 30, (1 << 30) + 512)]),
    (1 << 30, [(65536, 65536 + 10), (65536 + 20, 65536 + 30), (131072, 200000)]),
    (3 << 30, [((512 << 20) - 65536, (512 << 20) + 65536), ((2 << 30) + 5, (2 << 30) + 6)]),
])
def test_is_sound_and_equal(tmp_path: Path, size: int, ranges: list[tuple[int, int]]) -> None:
    path = tmp_path / "x.qcow2"
    sound(path, made(path, size, ranges))


@pytest.mark.parametrize("cluster", ["512", "4k", "2M"])
def test_of_other_clusters(tmp_path: Path, cluster: str) -> None:
    path = tmp_path / "x.qcow2"
    sound(path, made(path, 5 << 20, [(0, 1000), (1 << 20, (3 << 20) + 17)], cluster))


def test_a_large_disk_takes_little_room(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    made(path, 15 * TIB, [(0, 65536), (14 * TIB, 14 * TIB + 65536)])
    assert "No errors were found" in qemu("check", "-f", "qcow2", path)
    assert path.stat().st_blocks * 512 < 4 << 20


@given(size=st.integers(1, 1 << 33), cluster=st.sampled_from(["512", "4k", "64k"]))
def test_there_are_as_many_refcount_blocks_as_a_full_disk_needs(size: int, cluster: str) -> None:
    """Every cluster of the largest file is counted, those that count included; and one block less would not do."""
    plan = layout(size, ImageSpec(format="qcow2", options=(("cluster_size", cluster),)))
    clusters = plan.data_at // plan.cluster + -(-size // plan.cluster)
    assert plan.blocks * plan.per_block >= clusters
    assert plan.table_clusters * plan.cluster >= plan.blocks * 8
    assert (plan.blocks - 1) * plan.per_block < clusters


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 8 << 20), max_size=12, unique=True), cluster=st.sampled_from(["512", "64k"]))
def test_any_ranges(tmp_path: Path, cuts: list[int], cluster: str) -> None:
    ends = sorted(cuts)
    path = tmp_path / "x.qcow2"
    sound(path, made(path, 8 << 20, list(zip(ends[::2], ends[1::2], strict=False)), cluster))


@pytest.mark.parametrize(("options", "words"), [
    ({"compat": "1.2"}, "compat=1.2: 0.10 or 1.1"), ({"cluster_size": "3k"}, "cluster_size=3072: a power of two"),
    ({"cluster_size": "256"}, "from 512 to 2M"), ({"cluster_size": "4M"}, "from 512 to 2M"),
    ({"extended_l2": "on", "cluster_size": "8k"}, "at least 16k"), ({"refcount_bits": "12"}, "a power of two up to 64"),
    ({"refcount_bits": "128"}, "up to 64"), ({"compat": "0.10", "lazy_refcounts": "on"}, "compat 0.10 has no"),
    ({"compat": "v2", "extended_l2": "on"}, "compat 0.10 has no"),
    ({"compat": "0.10", "refcount_bits": "8"}, "compat 0.10 has no"),
    ({"compat": "0.10", "compression_type": "zstd"}, "compat 0.10 has no"), ({"lazy_refcounts": "perhaps"}, "on or off"),
    ({"cluster_size": "many"}, "not a size")])
def test_options_that_no_qcow2_has(options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        shape(ImageSpec(format="qcow2", options=tuple(options.items())))


def test_options_that_a_qcow2_has() -> None:
    for size in (512, 1 << 21):
        assert shape(ImageSpec(format="qcow2", options=(("cluster_size", str(size)),))).cluster == size
    assert shape(ImageSpec(format="qcow2", options=(("extended_l2", "on"), ("cluster_size", "16k")))).extended
    assert shape(ImageSpec(format="qcow2", options=(("compat", "0.10"), ("compression_type", "zlib")))).version == 2
