"""Something that cannot be carried over, or will not work: said before anything is copied."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    what: str
    hint: str | None = None
    fatal: bool = False
