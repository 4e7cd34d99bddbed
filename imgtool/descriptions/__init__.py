"""Machine descriptions: bytes ↔ Machine, one module or folder a format. Nothing here opens a file."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from imgtool.model.description import Parsed, Rendered
from imgtool.model.machine import Machine


class Description(Protocol):
    """What each module of ``DESCRIPTIONS`` offers."""

    HOLDS: frozenset[str]
    """Fields of Machine that this format has a place for, as ``fields.paths`` writes them: ``disks.path``."""

    def parse(self, text: bytes) -> Parsed:
        """Raises DamagedError; RefusedError where it is encrypted."""

    def render(self, machine: Machine, *, onto: bytes | None = None) -> Rendered:
        """``onto``: a description of the same format, in which only what must change is changed."""

    def without_secrets(self, text: bytes) -> bytes:
        """The text without passwords of screens, else unchanged: what another file may be made of. Raises DamagedError."""


DESCRIPTIONS = {".vmx": "vmx", ".xml": "domain_xml", ".ovf": "ovf"}
"""By the suffix of the file's name (``suffixes.DESCRIPTIONS``): the module."""


def description(suffix: str) -> Description:
    """The module for a suffix of ``DESCRIPTIONS``, loaded now."""
    return cast("Description", import_module(f"{__name__}.{DESCRIPTIONS[suffix]}"))
