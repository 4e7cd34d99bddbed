"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Reader = Callable[[bytes], None]
"""Reads one input. May raise ImgtoolError; AssertionError is an oracle's."""


@dataclass(frozen=True)
class Target:
    """``folder`` is a scratch folder in memory, the same for both functions."""

    seeds: Callable[[Path], Iterable[bytes]]
    """Sound inputs, made at the start."""
    reader: Callable[[Path], Reader]
    words: tuple[bytes, ...] = ()
    """What the format is made of: put in by the fuzzer here and there."""
    largest: int = 64 << 10
    """Bytes of an input."""
