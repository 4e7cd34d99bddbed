"""Disks to measure with: `python -m bench.disks KIND PATH SIZE DATA`, in bytes.

In a process of its own: what a process has in memory counts for those that it starts, until they replace it.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

from bench.descriptor import flat_descriptor

PIECE = 8 << 20
CLUSTER = 64 << 10
ENTRIES = CLUSTER // 8
COVERED = ENTRIES * CLUSTER
COPIED = 1 << 63


def fragmented(path: Path, size: int, data: int) -> Path:
    """A qcow2 of ``size`` bytes whose every cluster is another extent than its neighbour.

    Over the first ``data`` bytes, clusters with data and holes take turns; over the rest, zero clusters and holes. Written
    as tables, since no tool makes such an image in reasonable time.
    """
    tables = -(-size // COVERED)
    l1_clusters = -(-tables * 8 // CLUSTER)
    first_table = (1 + l1_clusters) * CLUSTER
    first_data = first_table + tables * CLUSTER
    stored = data // CLUSTER // 2
    end = first_data + stored * CLUSTER
    with path.open("wb") as file:
        file.seek(CLUSTER)
        file.write((np.uint64(COPIED) + np.uint64(first_table) + np.arange(tables, dtype=np.uint64) * np.uint64(CLUSTER))
                   .astype(">u8").tobytes())
        file.seek(first_table)
        for table in range(tables):
            file.write(_table(table * ENTRIES, data // CLUSTER, first_data))
        random = np.random.default_rng(1)
        for _ in range(0, stored, 16):
            file.write(random.bytes(16 * CLUSTER))
        refcount_table, clusters = _refcounts(file, end)
        file.seek(0)
        head = (b"QFI\xfb", 3, 0, 0, CLUSTER.bit_length() - 1, size, 0, tables, CLUSTER, refcount_table, clusters, 0, 0)
        file.write(struct.pack(">4sIQIIQIIQQIIQ", *head) + struct.pack(">QQQIIII", 0, 0, 0, 4, 104, 0, 0))
    return path


def _table(first: int, with_data: int, first_data: int) -> bytes:
    """One L2 table, of the clusters from number ``first`` on: each odd one is a hole."""
    numbers = np.arange(first, first + ENTRIES, dtype=np.uint64)
    stored = np.uint64(COPIED) + np.uint64(first_data) + numbers // np.uint64(2) * np.uint64(CLUSTER)
    entries = np.where(numbers < with_data, stored, np.uint64(1))
    return np.where(numbers % np.uint64(2) == 1, np.uint64(0), entries).astype(">u8").tobytes()


def _refcounts(file, end: int) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Each cluster of the file is used once. Returns offset and clusters of the table."""
    per_block = CLUSTER // 2
    used = end // CLUSTER
    blocks = -(-(used + 2 + used // per_block) // per_block) + 1
    total = used + blocks + 1
    counts = np.zeros(blocks * per_block, ">u2")
    counts[:total] = 1
    file.seek(end)
    file.write(counts.tobytes())
    offsets = [end + number * CLUSTER for number in range(blocks)]
    file.write(struct.pack(f">{blocks}Q", *offsets).ljust(CLUSTER, b"\0"))
    return end + blocks * CLUSTER, 1


def raw(path: Path, size: int, data: int) -> Path:
    """A raw disk with ``data`` bytes of data in pieces of 8 MiB, spread over it."""
    step = size // (data // PIECE) // CLUSTER * CLUSTER
    random = np.random.default_rng(2)
    with path.open("wb") as file:
        for number in range(data // PIECE):
            file.seek(number * step)
            file.write(random.bytes(PIECE))
        file.truncate(size)
    return path


def vmfs(descriptor: Path, size: int, data: int) -> Path:
    """A thin disk as ESXi has it: a descriptor and a sparse ``-flat.vmdk``."""
    return flat_descriptor(descriptor, raw(descriptor.with_name(f"{descriptor.stem}-flat.vmdk"), size, data))


def full(path: Path, size: int, data: int) -> Path:
    """A raw disk without a hole and without a zero, that does not compress; ``data`` is its size, too."""
    random = np.random.default_rng(3)
    with path.open("wb") as file:
        for at in range(0, size, PIECE):
            file.write(random.bytes(min(PIECE, size - at)))
    assert data == size
    return path


KINDS = {"fragmented": fragmented, "full": full, "raw": raw, "vmfs": vmfs}

if __name__ == "__main__":
    KINDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
