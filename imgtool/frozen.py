"""Frozen dataclasses ↔ what JSON holds: for what outlives this process: a database, a folder of work."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum, EnumType
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from imgtool.model.runbook import STEPS, Step

T = TypeVar("T")
VERB: dict[type, str] = {cls: verb for verb, cls in STEPS.items()}


def frozen(value: Any) -> Any:
    """Of a dataclass, for ``thawed``. A step says its verb."""
    if is_dataclass(value) and not isinstance(value, type):
        said = {field.name: frozen(getattr(value, field.name)) for field in fields(value)}
        return {"verb": VERB[type(value)], **said} if type(value) in VERB else said
    if isinstance(value, tuple | list):
        return [frozen(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    return value.isoformat() if isinstance(value, datetime) else value


def thawed(wanted: type[T], said: Any) -> T:
    """What ``frozen`` was given. A field that is not said has its default."""
    return _thawed(wanted, said)  # type: ignore[no-any-return]


def _thawed(wanted: Any, said: Any) -> Any:
    if wanted == Step:
        return _thawed(STEPS[said["verb"]], {key: value for key, value in said.items() if key != "verb"})
    if said is None:
        return None
    if get_origin(wanted) in (Union, UnionType):
        rest = [one for one in get_args(wanted) if one is not NoneType]
        return _thawed(Union[tuple(rest)], said)  # noqa: UP007 - a union of what is left, most often of one
    if get_origin(wanted) is tuple:
        return _tuple(get_args(wanted), said)
    if is_dataclass(wanted):
        hints = get_type_hints(wanted)
        return wanted(**{key: _thawed(hints[key], value) for key, value in said.items() if key in hints})  # type: ignore[operator]
    if isinstance(wanted, EnumType):
        return wanted(said)
    return datetime.fromisoformat(said) if wanted is datetime else said


def _tuple(args: tuple[Any, ...], said: Any) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_thawed(args[0], one) for one in said)
    return tuple(_thawed(of, one) for of, one in zip(args, said, strict=True))
