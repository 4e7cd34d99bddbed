"""Numbers and units of an OVF. Source: DMTF DSP0004, appendix C (programmatic units): ``byte * 2^20``."""

from __future__ import annotations

import re

MAX_NUMBER = 1 << 62
MAX_EXPONENT = 60
WORDS = {"byte": 1, "kb": 1 << 10, "kilobyte": 1 << 10, "mb": 1 << 20, "megabyte": 1 << 20, "gb": 1 << 30, "gigabyte": 1 << 30,
         "tb": 1 << 40, "terabyte": 1 << 40, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
"""Bytes. What older products write instead of a programmatic unit; in 0.9 of the specification too."""
_FACTOR = re.compile(r"(\d{1,20})(?:\s*\^\s*(\d{1,3}))?")


def unit(text: str) -> int | None:
    """Bytes of one unit: ``byte * 2^20`` and ``MegaBytes`` are 1048576. None where it is no unit of bytes."""
    base, *factors = (part.strip() for part in text.lower().split("*"))
    size = WORDS.get(base) or WORDS.get(base.removesuffix("s"))
    for factor in factors:
        match = _FACTOR.fullmatch(factor)
        if size is None or match is None or int(match[2] or 1) > MAX_EXPONENT:
            return None
        size *= int(match[1]) ** int(match[2] or 1)
    return size if size is not None and 0 < size <= MAX_NUMBER else None


def number(text: str | None) -> int | None:
    """A whole number, not negative, of a sensible length; else None."""
    found = int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 20 else MAX_NUMBER
    return found if found < MAX_NUMBER else None


def truth(text: str | None) -> bool | None:
    """true, false, or not said."""
    return {"true": True, "1": True, "false": False, "0": False}.get((text or "").lower())
