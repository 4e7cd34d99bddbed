"""Golden files: what a description means, as text. ``GOLDEN=write`` in the environment writes them anew."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from imgtool.descriptions.fields import said
from imgtool.model.description import Parsed
from imgtool.model.problem import Problem
from tests.program import ROOT

DESCRIPTIONS = ROOT / "fixtures" / "descriptions"
"""Hand-written inputs, a folder a format; beside ``x.vmx`` stands ``x.vmx.machine``: what is read from it."""

TRANSLATIONS = DESCRIPTIONS / "golden"
"""What each of them becomes in the other formats: ``x.vmx.to.xml``, and beside it what was said on the way."""


def inputs(*suffixes: str) -> list[Path]:
    return sorted(path for path in DESCRIPTIONS.rglob("*") if path.suffix in suffixes and TRANSLATIONS not in path.parents)


def meaning(parsed: Parsed) -> str:
    """A machine and the problems with its description, one line each."""
    return "".join(f"{path} = {value!s}\n" for path, value in said(parsed.machine)) + problems(parsed.problems)


def problems(found: Iterable[Problem]) -> str:
    return "".join(f"{'fatal' if one.fatal else 'problem'}: {one.what}" + (f" | {one.hint}" if one.hint else "") + "\n"
                   for one in found)


def check(path: Path, text: str) -> None:
    """Fails where the golden file says something else."""
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path.name} is missing: GOLDEN=write makes it"
    assert text == path.read_text(encoding="utf-8")
