"""One module a topic; each yields cases (bench.case.Case) while their disks exist, or tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.case import Case, Table
from bench.measure import GIB


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of a run."""

    place: Path
    """Where disks and file systems stand."""
    data: int = 4 * GIB
    """Bytes of data of the large disks."""
    small: int = GIB
    """Bytes of data of the small ones."""
    thin: int = 1024 * GIB
    """Virtual size of the disk that is nearly empty."""
    layers: int = 20
    every: bool = False
    """Every pair of formats, not a choice of them."""
    large: bool = False
    """Shared blocks with 16 GiB of data, too."""


Topic = Callable[[Settings], Iterator[Case | Table]]
