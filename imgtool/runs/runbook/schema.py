"""The JSON schema of a runbook, made from the types of ``model/runbook``: for editors. ``docs/runbook.schema.json`` is it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from datetime import datetime
from enum import EnumType
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from imgtool.model import runbook as model
from imgtool.runs.runbook.bind import COMMANDS, NAME, ONE_OF, SHORT, keys, members, types

Schema = dict[str, Any]
SCALARS: Mapping[Any, Schema] = {
    str: {"type": ["string", "number"]}, model.Name: {"type": ["string", "number"], "pattern": f"^{NAME.pattern}$"},
    bool: {"type": "boolean"}, int: {"type": "integer", "minimum": 0}, model.Count: {"type": "integer", "minimum": 1},
    model.Bytes: {"type": ["integer", "string"], "pattern": "^[0-9]+ *[KMGTkmgt]?i?[Bb]?$"},
    datetime: {"type": "string", "format": "date-time"}}


def schema() -> Schema:
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Runbook of imgtool", **_mapping(model.Runbook)}
    inner = (model.Secret, model.Endpoint, model.Window, model.Limits, model.Settings, model.Machine, model.Wave)
    made["$defs"] = {cls.__name__: _mapping(cls) for cls in (*inner, *model.STEPS.values())}
    return made


def _mapping(cls: type) -> Schema:
    known = keys(cls)
    made: Schema = {
        "type": "object", "description": (cls.__doc__ or "").split("\n\n", maxsplit=1)[0].replace("\n    ", " "),
        "additionalProperties": False,
        "properties": {key: {**_of(types(cls)[field.name], key), "description": field.metadata["about"]}
                       for key, field in known.items()}}
    required = [key for key, field in known.items() if field.default is MISSING and field.default_factory is MISSING]
    if required:
        made["required"] = required
    if cls in ONE_OF:
        made["oneOf"] = [{"required": [key]} for key in ONE_OF[cls]]
    return made


def _of(wanted: Any, key: str) -> Schema:
    if wanted == model.Step:
        return _step()
    if get_origin(wanted) in (Union, UnionType):
        rest = [one for one in get_args(wanted) if one is not NoneType]
        return _of(Union[tuple(rest)], key)  # noqa: UP007 - a union of what is left, most often of one
    if get_origin(wanted) is tuple:
        return _tuple(get_args(wanted)[0], key)
    if isinstance(wanted, EnumType):
        return {"enum": [one.value for one in members(wanted)]}
    if wanted in SCALARS:
        return dict(SCALARS[wanted])
    inner: Schema = {"$ref": f"#/$defs/{wanted.__name__}"}
    return {"anyOf": [{"type": ["string", "number"]}, inner]} if wanted in SHORT else inner


def _tuple(of: Any, key: str) -> Schema:
    if get_origin(of) is tuple:
        return {"type": "object", "additionalProperties": _of(get_args(of)[1], key)}
    return {"type": "array", "items": _of(of, key), **({"minItems": 1} if key in COMMANDS else {})}


def _step() -> Schema:
    words = [{"type": "object", "additionalProperties": False, "required": [word],
              "properties": {word: {"$ref": f"#/$defs/{cls.__name__}"}}} for word, cls in model.STEPS.items()]
    alone = [word for word, cls in model.STEPS.items() if "required" not in _mapping(cls)]
    return {"anyOf": [{"enum": alone}, *words]}
