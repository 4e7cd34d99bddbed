"""Zeros that were written: found in a buffer, block by block."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 4096
FIRST = 16
"""Bytes that are looked at before all."""


def all_zero(data: bytes | bytearray | memoryview) -> bool:
    if any(data[:FIRST]):  # so it is mostly, and numpy takes 40 ms to load
        return False
    import numpy as np

    even = len(data) & ~7
    return not np.frombuffer(data, np.uint64, even // 8).any() and not any(data[even:])


def data_runs(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not zero, in blocks of 4096 bytes."""
    import numpy as np

    whole = len(data) // BLOCK
    used = np.frombuffer(data, np.uint64, whole * BLOCK // 8).reshape(whole, BLOCK // 8).any(axis=1)
    last = [not all_zero(data[whole * BLOCK:])] if whole * BLOCK < len(data) else []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], used, last, [False])).astype(np.int8))).tolist()
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        yield begin * BLOCK, min(end * BLOCK, len(data)) - begin * BLOCK
