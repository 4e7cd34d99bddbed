"""The verbs of a plan, one module each, and one line here: request → result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imgtool.progress import Control
from imgtool.steps.adapt import adapt
from imgtool.steps.allocate import allocate
from imgtool.steps.convert import convert
from imgtool.steps.machine import convert_machine
from imgtool.steps.migrate import migrate
from imgtool.steps.translate import translate
from imgtool.steps.v2p import v2p

VERBS: dict[str, Callable[[Any, Control], object]] = {
    "convert": convert,
    "allocate": allocate,
    "machine": convert_machine,
    "translate": translate,
    "adapt": adapt,
    "migrate": migrate,
    "v2p": v2p,
}
