"""The fields of a Machine as text: what is said in it, and what of that a format cannot hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from imgtool.model.machine import Machine
from imgtool.model.problem import Problem


def said(thing: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of each field that differs from its default: ``("disks[0].path", "x.vmdk")``. Depth first, in order."""
    for one in fields(thing):
        value = getattr(thing, one.name)
        where = f"{path}.{one.name}" if path else one.name
        if is_dataclass(value):
            yield from said(value, where)
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            for number, item in enumerate(value):
                yield from said(item, f"{where}[{number}]")
        elif value != _default(one):
            yield where, value


def _default(one: Field[Any]) -> object:
    if one.default is not MISSING:
        return one.default
    return one.default_factory() if one.default_factory is not MISSING else MISSING


def pattern(path: str) -> str:
    """``disks[0].path`` → ``disks.path``: how ``HOLDS`` names a field."""
    return ".".join(part.partition("[")[0] for part in path.split("."))


def losses(machine: Machine, holds: frozenset[str], *, where: str, hints: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """A problem for each field that is said and that ``where`` (a format) has no place for. ``hints``: what to do, by pattern."""
    return tuple(Problem(what=f"{path} = {value}: {where} has no place for it", hint=(hints or {}).get(pattern(path)))
                 for path, value in said(machine) if pattern(path) not in holds)
