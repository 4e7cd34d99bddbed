"""A qcow2 image whose payload comes in any order, over days if need be, and whose metadata is written when all of it is there.

::

    header | L1 | room for all L2 tables | refcount table | room for all refcount blocks | the guest's bytes, in their order

Every cluster has its place from the beginning, so a transfer that was stopped needs no map of places; what is never written stays
a hole, of tables too. Specification: docs/interop/qcow2.txt of QEMU.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgtool.formats.qcow2 import header as spec
from imgtool.formats.qcow2.read import COPIED
from imgtool.formats.qcow2.write import l1_entries, shape
from imgtool.model import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REFCOUNT_BITS = 16
Range = tuple[int, int]
"""Guest bytes [start, end)."""
Piece = tuple[int, bytes]
"""Where in the file, and what."""


@dataclass(frozen=True)
class Layout:
    """Where everything is, for a disk of ``size`` bytes. Offsets in the file, in bytes."""

    size: int
    cluster: int
    l1_count: int

    @property
    def l2_at(self) -> int:
        return self.cluster + self._clusters(self.l1_count * 8)

    @property
    def table_at(self) -> int:
        return self.l2_at + self.l1_count * self.cluster

    @property
    def per_block(self) -> int:
        """Clusters that one refcount block counts."""
        return self.cluster * 8 // REFCOUNT_BITS

    @property
    def blocks(self) -> int:
        """Refcount blocks for a file of the largest size that it can have: they count themselves, too."""
        front = 1 + self._clusters(self.l1_count * 8) // self.cluster + self.l1_count
        data = -(-self.size // self.cluster)
        count = 0
        while (wanted := -(-(front + count + self._table_clusters(count) + data) // self.per_block)) > count:
            count = wanted
        return count

    @property
    def table_clusters(self) -> int:
        return self._table_clusters(self.blocks)

    def _table_clusters(self, blocks: int) -> int:
        return -(-blocks * 8 // self.cluster)

    @property
    def blocks_at(self) -> int:
        return self.table_at + self.table_clusters * self.cluster

    @property
    def data_at(self) -> int:
        return self.blocks_at + self.blocks * self.cluster

    def _clusters(self, length: int) -> int:
        """Rounded up to whole clusters, in bytes."""
        return -(-length // self.cluster) * self.cluster


def layout(size: int, image: ImageSpec) -> Layout:
    """Raises UsageError for options that such an image cannot have."""
    form = shape(image)
    return Layout(size=size, cluster=form.cluster, l1_count=l1_entries(size, form))


def metadata(plan: Layout, data: Iterable[Range]) -> Iterator[Piece]:
    """(offset, bytes) of all that makes the file a qcow2 image; the header comes last, and should be written last.

    ``data``: the ranges that hold payload, in order, without overlaps. The file then ends at ``end_of(plan, data)``.
    """
    ranges = list(_whole_clusters(data, plan.cluster))
    l1 = [0] * plan.l1_count
    for index, entries in _l2_tables(plan, ranges):
        l1[index] = (plan.l2_at + index * plan.cluster) | COPIED
        yield plan.l2_at + index * plan.cluster, entries.astype(">u8").tobytes()
    yield plan.cluster, struct.pack(f">{len(l1)}Q", *l1)
    yield from _refcounts(plan, ranges, [index for index, entry in enumerate(l1) if entry])
    head = spec.V2.pack(spec.MAGIC, 3, 0, 0, plan.cluster.bit_length() - 1, plan.size, 0, plan.l1_count, plan.cluster,
                        plan.table_at, plan.table_clusters, 0, 0)
    head += spec.V3.pack(0, 0, 0, REFCOUNT_BITS.bit_length() - 1, spec.V3_LENGTH)
    yield 0, head.ljust(spec.V3_LENGTH, b"\0") + struct.pack(">II", spec.EXT_END, 0)


def end_of(plan: Layout, last: int) -> int:
    """Where the file ends whose last payload ends at byte ``last`` of the disk (0: there is none)."""
    return plan.data_at + -(-last // plan.cluster) * plan.cluster


def _whole_clusters(data: Iterable[Range], cluster: int) -> Iterator[Range]:
    """Numbers of guest clusters [first, last) with payload in them, merged."""
    first = last = 0
    for start, end in data:
        low, high = start // cluster, -(-end // cluster)
        if low > last:
            if last > first:
                yield first, last
            first = low
        elif last == first:
            first = low
        last = max(last, high)
    if last > first:
        yield first, last


def _l2_tables(plan: Layout, ranges: list[Range]) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """(index, entries) of each table that has any."""
    import numpy as np

    count = plan.cluster // 8
    index, entries = -1, np.zeros(0, np.uint64)
    for low, high in ranges:
        for here in range(low // count, -(-high // count)):
            if here != index:
                if index >= 0:
                    yield index, entries
                index, entries = here, np.zeros(count, np.uint64)
            first, last = max(low, here * count), min(high, (here + 1) * count)
            places = plan.data_at + np.arange(first, last, dtype=np.uint64) * np.uint64(plan.cluster)
            entries[first - here * count:last - here * count] = places | np.uint64(COPIED)
    if index >= 0:
        yield index, entries


def _refcounts(plan: Layout, ranges: list[Range], l2: list[int]) -> Iterator[Piece]:
    """Each cluster that is used is used once."""
    import numpy as np

    base = plan.data_at // plan.cluster
    used = [(base + first, base + last) for first, last in ranges]
    front = _front(plan, used, l2)
    table = [0] * plan.blocks
    spans = sorted([*used, *((one, one + 1) for one in front)])
    at = 0
    for index in sorted({block for span in spans for block in range(span[0] // plan.per_block, -(-span[1] // plan.per_block))}):
        low, high = index * plan.per_block, (index + 1) * plan.per_block
        counts = np.zeros(plan.per_block, ">u2")
        while at < len(spans) and spans[at][1] <= low:
            at += 1
        here = at
        while here < len(spans) and spans[here][0] < high:
            counts[max(spans[here][0] - low, 0):spans[here][1] - low] = 1
            here += 1
        table[index] = plan.blocks_at + index * plan.cluster
        yield table[index], counts.tobytes()
    yield plan.table_at, struct.pack(f">{len(table)}Q", *table)


def _front(plan: Layout, used: list[Range], l2: list[int]) -> set[int]:
    """Numbers of the clusters before the data that are used: header, tables, and the refcount blocks that all of it needs."""
    cluster = plan.cluster
    front = {0, *range(1, plan.l2_at // cluster), *range(plan.table_at // cluster, plan.blocks_at // cluster)}
    front |= {plan.l2_at // cluster + index for index in l2}
    blocks = {block for first, last in used for block in range(first // plan.per_block, -(-last // plan.per_block))}
    while True:
        wanted = blocks | {one // plan.per_block for one in front}
        more = {plan.blocks_at // cluster + block for block in wanted} - front
        if not more:
            return front
        front |= more
