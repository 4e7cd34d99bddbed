"""The verbs of a plan, one module each, and one line here: request → result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imgtool.progress import Control
from imgtool.steps.allocate import allocate
from imgtool.steps.convert import convert

VERBS: dict[str, Callable[[Any, Control], object]] = {
    "convert": convert,
    "allocate": allocate,
}
