"""What the far end says in an answer: it may be a stranger's machine, so each word must be of the kind that it always is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from imgtool.errors import DamagedError

LARGEST_SECTOR = 1 << 20


class Said(dict[str, Any]):
    """The words of one answer. What is not in it, and is needed, is damage."""

    def __missing__(self, key: str) -> Any:
        raise DamagedError(f"an answer of the far end has no {key!r}", "something there stands between imgtool and its program")


def understood(text: bytes) -> Said:
    """Raises ValueError where these are not the words of an answer."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict) or type(found.get("id")) is not int:
        raise ValueError("an answer without a number")
    for key, of_its_kind in KINDS.items():
        if key in found and not of_its_kind(found[key]):
            raise ValueError(f"no {key} can be {str(found[key])[:80]!r}")
    return Said(found)


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _sector(value: object) -> bool:
    return type(value) is int and 0 < value <= LARGEST_SECTOR and not value & (value - 1)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _named_texts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _ranges(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 and all(map(_count, one)) for one in value)


def _device(value: object) -> bool:
    return _count(value) or _text(value)


def _time(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1 << 40  # type: ignore[operator]


KINDS: dict[str, Callable[[object], bool]] = {
    "size": _count, "next": _count, "inode": _count, "free": _count, "handle": _count, "device": _device, "sector": _sector,
    "physical": _sector, "ranges": _ranges, "files": _named_texts, "openers": _named_texts, "skipped": _texts, "host": _text,
    "name": _text, "path": _text, "error": _text, "time": _time}
"""Of the words that are more than yes or no. ``device``: of ``stat`` a number, of ``free`` two with a colon."""
