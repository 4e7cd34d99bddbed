"""How far a process is, from the small file that it keeps (``progress.Kept``)."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from imgtool.journal import progress_path
from imgtool.model.job import Going

AGAIN = ("verify", "zeros", "thin", "manifest", "compare")
"""What bars are called that read no source."""
STALE = 20.0
"""Seconds after which what was said last is no rate any more."""


@dataclass(frozen=True)
class Moving:
    """Of one process, or of several."""

    bars: tuple[Going, ...] = ()
    read: int = 0
    """Bytes of the source: of these bars, and of those that are over."""

    def __add__(self, other: Moving) -> Moving:
        return Moving(bars=(*self.bars, *other.bars), read=self.read + other.read)


def moving(job: str) -> Moving:
    """Nothing where nothing moves, or the process that said so is gone."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(progress_path(job).read_text(encoding="utf-8", errors="surrogateescape"))
        if os.path.exists(f"/proc/{int(said['pid'])}"):
            fresh = time.time() - said["time"] < STALE
            bars = tuple(_one(bar, fresh=fresh) for bar in said["bars"])
            counts = [*said["over"].items(), *((one.what.partition(" ")[0], one.done) for one in bars)]
            return Moving(bars=bars, read=sum(int(count) for kind, count in counts if kind not in AGAIN))
    return Moving()


def _one(bar: dict[str, Any], *, fresh: bool) -> Going:
    done, total, rate = int(bar["done"]), int(bar["total"]), int(bar["rate"]) if fresh else 0
    left = max(0, total - done) / rate if rate and total else None
    return Going(what=str(bar["what"]), done=done, total=total, rate=rate, remaining=None if left is None else round(left, 1))
