"""What the rules say about what they do."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from typing import Any, TypeVar

from imgtool.descriptions.fields import said
from imgtool.model.problem import Problem
from imgtool.model.translation import Note

T = TypeVar("T")


@dataclass
class Log:
    """Notes are for who asks why; problems are said to everybody."""

    notes: list[Note] = field(default_factory=list)
    """Fields with the numbers that disks had before they were put in order."""
    problems: list[Problem] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)

    def change(self, where: str, before: Any, after: T, why: str) -> T:
        """``after``, with a note if that is something else than ``before``."""
        if before != after:
            self.notes.append(Note(where, shown(before), shown(after), why))
        return after

    def problem(self, what: str, hint: str, *, fatal: bool = False) -> None:
        """``what`` is lost or will not work, ``hint`` says what to do."""
        self.problems.append(Problem(what=what, hint=hint, fatal=fatal))

    def lost(self, where: str, before: object, why: str, hint: str) -> None:
        """A field that is not carried, if it was said: a problem."""
        if before not in (None, (), ""):
            self.notes.append(Note(where, shown(before), "", why))
            self.problem(f"{where} = {shown(before)}: {why}", hint)


def shown(value: object) -> str:
    """For a person."""
    if isinstance(value, tuple):
        return ", ".join(shown(one) for one in value)
    if is_dataclass(value):
        return " ".join(f"{path} {part}" for path, part in said(value))
    return "" if value is None else str(value)
