"""The verbs of a plan, one module each, and one line here: request → result. Loaded when they are needed, none for another."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from imgtool.progress import Control

VERBS = {
    "convert": "imgtool.steps.convert:convert",
    "allocate": "imgtool.steps.allocate:allocate",
    "machine": "imgtool.steps.machine:convert_machine",
    "translate": "imgtool.steps.translate:translate",
    "adapt": "imgtool.steps.adapt:adapt",
    "migrate": "imgtool.steps.migrate:migrate",
    "v2p": "imgtool.steps.v2p:v2p",
}


def function(verb: str) -> Callable[[Any, Control], object]:
    """Of a key of ``VERBS``."""
    found: Callable[[Any, Control], object] = resolve_name(VERBS[verb])
    return found
