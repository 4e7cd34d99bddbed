"""The verbs of a plan, one module each, and one line here: request → result. Loaded when first called: each loads much."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from imgtool.progress import Control

Verb = Callable[[Any, Control], object]


def _of(module: str, name: str) -> Verb:
    def verb(request: Any, control: Control) -> object:
        work: Verb = getattr(import_module(f"imgtool.steps.{module}"), name)
        return work(request, control)

    return verb


VERBS: dict[str, Verb] = {
    "convert": _of("convert", "convert"),
    "allocate": _of("allocate", "allocate"),
    "machine": _of("machine", "convert_machine"),
    "translate": _of("translate", "translate"),
    "adapt": _of("adapt", "adapt"),
    "migrate": _of("migrate", "migrate"),
    "v2p": _of("v2p", "v2p"),
}
