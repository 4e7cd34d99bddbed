"""Arithmetic on extents, zeros and metadata, with examples that hypothesis makes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.copying import batches as grouping
from imgtool.copying.batches import batches, side_by_side, split
from imgtool.copying.zeros import BLOCK, all_zero, data_runs
from imgtool.errors import DamagedError
from imgtool.formats.qcow2.write import refcount_room, refcounts
from imgtool.formats.runs import cut, merged, shifted, table_extents
from imgtool.formats.vmdk.descriptor import geometry
from imgtool.model import Extent, ImageFile, Kind

UNIT = 512
FILES = (ImageFile("a", 3, 1 << 40), ImageFile("b", 4, 1 << 40))

Cell = tuple[object, ...]


def cells(extents: Iterable[Extent]) -> list[Cell]:
    """What an image says of each unit of the disk: two lists of extents that give the same cells mean the same."""
    found: list[Cell] = []
    for extent in extents:
        assert extent.length % UNIT == 0
        for at in range(0, extent.length, UNIT):
            if extent.kind != Kind.DATA:
                found.append((extent.start + at, extent.kind, extent.layer))
            else:
                where = extent.offset if extent.coded else extent.offset + at
                found.append((extent.start + at, extent.file, where, extent.coded, extent.layer))
    return found


def in_order(extents: list[Extent], start: int, end: int) -> None:
    """Sorted, complete, nothing empty."""
    position = start
    for extent in extents:
        assert extent.start == position
        assert extent.length > 0
        position = extent.end
    assert position == end


@st.composite
def maps(draw: st.DrawFn, longest: int = 12) -> list[Extent]:
    """A map of a disk from 0 on. Offsets often follow each other, as those of a real image do."""
    position, offset, found = 0, 0, []
    for _ in range(draw(st.integers(0, longest))):
        length = UNIT * draw(st.integers(1, 24))
        kind = draw(st.sampled_from(Kind))
        layer = draw(st.sampled_from([0, 0, 0, 1]))
        if kind == Kind.DATA:
            offset = offset if draw(st.booleans()) else UNIT * draw(st.integers(0, 1000))
            coded = 700 if draw(st.integers(0, 4)) == 0 else 0
            file = draw(st.sampled_from([*FILES, FILES[0], None]))
            found.append(Extent(position, length, kind, file, offset, coded if file else 0, layer))
            offset += length
        else:
            found.append(Extent(position, length, kind, layer=layer))
        position += length
    return found


def end_of(extents: list[Extent]) -> int:
    return extents[-1].end if extents else 0


@given(maps())
def test_merged_says_the_same_with_fewer_words(extents: list[Extent]) -> None:
    found = list(merged(iter(extents)))
    in_order(found, 0, end_of(extents))
    assert cells(found) == cells(extents)
    assert list(merged(iter(found))) == found
    for left, right in pairwise(found):
        if left.kind == right.kind != Kind.DATA:
            assert left.layer != right.layer
        if left.kind == right.kind == Kind.DATA and left.file and not left.coded and not right.coded:
            assert (left.file, left.offset + left.length, left.layer) != (right.file, right.offset, right.layer)


@given(maps(), st.integers(0, 300), st.integers(0, 300))
def test_cut(extents: list[Extent], low: int, high: int) -> None:
    start, end = low * UNIT, high * UNIT
    found = list(cut(iter(extents), start, end))
    inside = max(0, min(end, end_of(extents)) - start)
    in_order(found, start, start + inside if found else start)
    assert cells(found) == [cell for cell in cells(extents) if start <= cell[0] < end]  # type: ignore[operator]


@given(maps(), st.integers(0, 1 << 40))
def test_shifted(extents: list[Extent], by: int) -> None:
    found = list(shifted(iter(extents), by))
    assert [(extent.start - by, *extent[1:]) for extent in found] == [tuple(extent) for extent in extents]


SIZES = st.sampled_from([UNIT, 3 * UNIT, 4 * UNIT, 16 * UNIT])


@given(maps(), SIZES)
def test_split(extents: list[Extent], size: int) -> None:
    found = list(split(extents, size))
    in_order(found, 0, end_of(extents))
    assert cells(found) == cells(extents)
    assert all(extent.length <= size for extent in found if extent.kind == Kind.DATA and not extent.coded)
    new_edges = {extent.end for extent in found} - {extent.end for extent in extents}
    assert all(edge % size == 0 for edge in new_edges)


@given(maps(longest=40), SIZES)
def test_batches(extents: list[Extent], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "MAX_ITEMS", 5)
        found = list(batches(extents, size))
    assert [extent for batch in found for extent in batch] == list(split(extents, size))
    for batch in found:
        assert 1 <= len(batch) <= 5
        before_last = sum(extent.length for extent in batch[:-1] if extent.kind == Kind.DATA)
        assert before_last < size


def test_what_goes_through_memory_makes_small_batches_among_large_ones() -> None:
    plain = [Extent(number * grouping.BATCH, grouping.BATCH, Kind.DATA, FILES[0], number * grouping.BATCH) for number in range(8)]
    coded = [extent._replace(coded=9) for extent in plain]
    served = [Extent(0, 8 * grouping.BATCH, Kind.DATA)]
    assert [len(list(batches(extents, 8 * grouping.BATCH))) for extents in (plain, coded, served)] == [1, 8, 8]


@given(maps(), maps())
def test_side_by_side(left: list[Extent], right: list[Extent]) -> None:
    pairs = list(side_by_side(iter(left), iter(right)))
    end = min(end_of(left), end_of(right))
    for index, whole in ((0, left), (1, right)):
        one = [pair[index] for pair in pairs]
        in_order(one, 0, end)
        assert cells(one) == [cell for cell in cells(whole) if cell[0] < end]  # type: ignore[operator]
    assert all(a.start == b.start and a.length == b.length for a, b in pairs)


@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 6)), max_size=40), st.integers(0, 3))
def test_table_extents(table: list[tuple[Kind, int]], first: int) -> None:
    import numpy as np

    unit, file = 4 * UNIT, FILES[0]
    kinds = np.array([kind for kind, _ in table], np.uint8)
    offsets = np.array([offset * unit for _, offset in table], np.int64)
    found = list(table_extents(first * unit, unit, kinds, offsets, file))
    single = [Extent((first + number) * unit, unit, kind, *((file, offset * unit) if kind == Kind.DATA else ()))
              for number, (kind, offset) in enumerate(table)]
    assert cells(found) == cells(single)
    assert len(found) == len(list(merged(iter(single))))


@pytest.mark.parametrize("offset", [-512, 1 << 40, (1 << 40) + 512])
def test_a_table_that_points_outside_is_damaged(offset: int) -> None:
    import numpy as np

    with pytest.raises(DamagedError, match="beyond its end"):
        list(table_extents(0, 512, np.array([0], np.uint8), np.array([offset], np.int64), FILES[0]))
    assert list(table_extents(0, 512, np.array([1], np.uint8), np.array([offset], np.int64), FILES[0]))


@st.composite
def buffers(draw: st.DrawFn) -> bytes:
    """Blocks that are zero, full, or have one byte; the end is no whole block."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(0, 8))):
        block = bytearray(BLOCK)
        if (place := draw(st.integers(-BLOCK, 2 * BLOCK))) >= 0:
            block = bytearray(b"x" * BLOCK) if place >= BLOCK else block
            block[place % BLOCK] = draw(st.integers(1, 255))
        parts.append(bytes(block))
    parts.append(draw(st.binary(max_size=20)) if draw(st.booleans()) else bytes(draw(st.integers(0, 2000))))
    return b"".join(parts)


@given(buffers())
def test_zeros_are_found_block_by_block(data: bytes) -> None:
    assert all_zero(data) == (not data.strip(b"\0"))
    runs = list(data_runs(data))
    rebuilt, end = bytearray(len(data)), -1
    for offset, length in runs:
        assert offset > end
        assert offset % BLOCK == 0
        assert length > 0
        end = offset + length
        assert end % BLOCK == 0 or end == len(data)
        rebuilt[offset:end] = data[offset:end]
        assert all(data[at:at + BLOCK].strip(b"\0") for at in range(offset, end, BLOCK))
    assert bytes(rebuilt) == data


CLUSTERS = st.sampled_from([1 << bits for bits in range(9, 22)])
BITS = st.sampled_from([1, 2, 4, 8, 16, 32, 64])


@given(st.integers(1, 1 << 36), CLUSTERS, BITS)
def test_refcounts_have_room_for_themselves_and_no_more(used: int, cluster: int, bits: int) -> None:
    blocks, table = refcount_room(used, cluster, bits)
    per_block = cluster * 8 // bits
    assert blocks * per_block >= used + blocks + table
    assert table * cluster >= blocks * 8
    assert (blocks - 1) * per_block < used + blocks + table
    assert (table - 1) * cluster < blocks * 8


def unpacked(raw: bytes, bits: int) -> Iterator[int]:
    """Reference counts, as the specification of qcow2 says: counts of less than a byte begin at its lowest bit."""
    if bits >= 8:
        for at in range(0, len(raw), bits // 8):
            yield int.from_bytes(raw[at:at + bits // 8], "big")
        return
    for byte in raw:
        yield from ((byte >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits))


@given(st.integers(0, 300), BITS)
def test_refcounts_are_ones_and_then_zeros(count: int, bits: int) -> None:
    found = list(unpacked(refcounts(count, bits), bits))
    assert found[:count] == [1] * count
    assert set(found[count:]) <= {0}
    assert len(found) - count < max(1, 8 // bits)


@given(st.integers(1, (62 << 40) // 512), st.sampled_from(["lsilogic", "buslogic", "ide", "legacyESX"]))
def test_geometry_is_in_the_bounds_of_a_bios_and_within_the_disk(sectors: int, adapter: str) -> None:
    cylinders, heads, track = geometry(sectors, adapter)
    assert 1 <= cylinders <= (16383 if adapter == "ide" else 65535)
    assert (heads, track) in ({(16, 63)} if adapter == "ide" else {(64, 32), (128, 32), (255, 63)})
    if cylinders > 1:
        assert cylinders * heads * track <= sectors
    if 1 < cylinders < 16383:
        assert sectors - cylinders * heads * track < heads * track


def test_geometry_of_known_disks() -> None:
    """As vmkfstools gives them."""
    gib = (1 << 30) // 512
    assert geometry(gib // 2, "lsilogic") == (512, 64, 32)
    assert geometry(gib, "lsilogic") == (512, 128, 32)
    assert geometry(40 * gib, "lsilogic") == (5221, 255, 63)
    assert geometry(8 * gib, "ide") == (16383, 16, 63)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=1, max_size=8))
def test_pieces_of_a_file(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bool, int]]) -> None:
    """What the file system tells is what was written."""
    from imgtool.storage import pieces

    fd = os.open(tmp_path_factory.mktemp("pieces") / "x", os.O_RDWR | os.O_CREAT)
    position = 0
    for is_data, blocks in parts:
        if is_data:
            os.pwrite(fd, b"x" * blocks * BLOCK, position)
        position += blocks * BLOCK
    os.ftruncate(fd, position)
    found = list(pieces(fd, 0, position))
    expected = [is_data for is_data, blocks in parts for _ in range(blocks)]
    assert [piece.data for piece in found for _ in range(piece.length // BLOCK)] == expected
    assert all(left.offset + left.length == right.offset for left, right in pairwise(found))
    os.close(fd)
