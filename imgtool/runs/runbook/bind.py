"""Nodes → the dataclasses of ``model/runbook``, by their types. All that is wrong is collected, with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from datetime import datetime
from enum import Enum, EnumType
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from imgtool.model import runbook as model
from imgtool.runs.runbook.nodes import Complaint, Node

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
BYTES = re.compile(r"(\d{1,15})([KMGT]?)(?:i?B)?", re.IGNORECASE)
MULTIPLIERS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
ONE_OF = {model.Machine: ("name", "glob", "folder", "tag", "csv"), model.Secret: ("env", "file", "command")}
"""Exactly one of these keys must be there."""
COMMANDS = ("before", "after", "command", "notify")
"""Keys of argv lists."""
SHORT = {model.Machine: "name", model.Endpoint: "uri"}
"""A text alone is this key."""
EXAMPLES = {
    model.Machine: "- web01, or - name: web01", model.Endpoint: "uri: esx://root@esxi1/",
    model.Secret: "password: {env: ESXI_PASSWORD}",
    model.Window: "window: {not-before: 2026-11-21T22:00:00+01:00}", model.Limits: "limits: {per-source-host: 2}",
    model.Wave: "- name: pilot, with machines below it", model.Runbook: "name: wave1, with machines below it",
    model.Settings: "defaults: {from: esxi1, to: kvm1}",
}


class Unfit(Exception):  # noqa: N818 - it is caught here, and is a complaint then
    """A value that is not as it must be: what is there, a remedy."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


@cache
def keys(cls: type) -> dict[str, Field[Any]]:
    """The keys of a mapping, in the words of YAML."""
    return {field.metadata.get("key") or field.name.replace("_", "-"): field for field in fields(cls)
            if not field.metadata.get("hidden")}


@cache
def types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def members(wanted: EnumType) -> list[Enum]:
    every: list[Any] = list(wanted.__members__.values())
    return [one for one in every if isinstance(one, Enum)]


class Binder:
    """``complaints`` has what was found to be wrong; what ``bind`` gives then counts for nothing."""

    def __init__(self, file: str) -> None:
        self.complaints: list[Complaint] = []
        self.places: dict[tuple[int, str], Node] = {}
        """(id of what was made, field) → where its value stands."""
        self._file = file

    def place(self, made: object, field: str = "") -> Node:
        """Where a field's value, or all of it, stands."""
        return self.places.get((id(made), field)) or self.places.get((id(made), "")) or Node("", 1, 1)

    def complain(self, node: Node, what: str, hint: str) -> None:
        self.complaints.append(Complaint(self._file, node.line, node.column, what, hint))

    def bind(self, node: Node, wanted: Any, key: str) -> Any:
        """``key``: for messages."""
        wanted = _without_none(wanted)
        try:
            if wanted == model.Step:
                return self._step(node, key)
            if isinstance(wanted, type) and wanted.__module__ == model.__name__ and not isinstance(wanted, EnumType):
                return self._mapping(node, wanted, key)
            if get_origin(wanted) is tuple:
                return self._tuple(node, get_args(wanted)[0], key, argv=key in COMMANDS)
            return _scalar(node, wanted, key)
        except Unfit as error:
            self.complain(node, error.what, error.hint)
            return None

    def _mapping(self, node: Node, cls: type, key: str) -> Any:
        if cls in SHORT and isinstance(node.value, str) and not node.empty:
            made = cls(**{SHORT[cls]: _text(node.value, key), **_line(cls, node)})
            self.places[id(made), SHORT[cls]] = self.places[id(made), ""] = node
            return made
        if cls is model.Secret and isinstance(node.value, str):
            raise Unfit(f"{key}: a password must not stand in a runbook; expected env, file or command",
                        "password: {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}")
        if not node.mapping:
            raise Unfit(f"{key}: {node.kind}; expected a mapping", f"as in {EXAMPLES.get(cls, 'key: value')}")
        given = self._given(node, cls)
        self._complete(node, cls, set(given), key)
        values = {name: self.bind(value, types(cls)[name], said) for name, (said, value) in given.items()}
        try:
            made = cls(**values, **_line(cls, node))
        except TypeError:  # a key that must be there is not: that has been said
            return None
        self.places.update({(id(made), name): value for name, (_, value) in given.items()})
        self.places[id(made), ""] = node
        return made

    def _given(self, node: Node, cls: type) -> dict[str, tuple[str, Node]]:
        """Field → (key, value)."""
        known, found = keys(cls), dict[str, tuple[str, Node]]()
        for key, value in node.pairs:
            word = key.value if isinstance(key.value, str) else ""
            if word not in known:
                close = difflib.get_close_matches(word, known, 1)
                self.complain(key, f"{word or key.kind!r}: no such key here; expected one of {', '.join(known)}",
                              f"did you mean {close[0]}?" if close else "remove it; docs/reference/runbook.md lists the keys")
            elif known[word].name in found:
                self.complain(key, f"{word} stands here twice", "remove one of the two")
            else:
                found[known[word].name] = (word, value)
        return found

    def _complete(self, node: Node, cls: type, given: set[str], key: str) -> None:
        for word, field in keys(cls).items():
            if field.default is MISSING and field.default_factory is MISSING and field.name not in given:
                self.complain(node, f"{key}: {word} is missing",
                              f"{word}: …" if cls not in EXAMPLES else f"as in {EXAMPLES[cls]}")
        wanted = ONE_OF.get(cls, ())
        if wanted and len(given & set(wanted)) != 1:
            there = " and ".join(word for word in wanted if word in given) or "none of them"
            self.complain(node, f"{key}: expected one of {', '.join(wanted)}; there is {there}", f"as in {EXAMPLES[cls]}")

    def _step(self, node: Node, key: str) -> Any:
        word, inner = node, Node([], node.line, node.column, mapping=True)
        if node.mapping and len(node.pairs) == 1:
            word, inner = node.pairs[0]
        if not isinstance(word.value, str) or word.value not in model.STEPS:
            there = word.value if isinstance(word.value, str) else node.kind
            close = difflib.get_close_matches(there, model.STEPS, 1)
            raise Unfit(f"{key}: {there}; expected a step: {', '.join(model.STEPS)}",
                        f"did you mean {close[0]}?" if close else "as in [migrate], or - verify: {left: a.vmdk, right: b.qcow2}")
        return self._mapping(inner, model.STEPS[word.value], word.value)

    def _tuple(self, node: Node, of: Any, key: str, *, argv: bool) -> tuple[Any, ...]:
        if get_origin(of) is tuple:
            return self._pairs(node, get_args(of)[1], key)
        if not isinstance(node.value, list) or node.mapping:
            hint = "a command is a list, there is no shell: [/usr/bin/program, argument]" if argv else f"{key}: [A, B]"
            raise Unfit(f"{key}: {node.kind}; expected a list", hint)
        if argv and not node.items:
            raise Unfit(f"{key}: an empty list; expected a program and its arguments", "[/usr/bin/program, argument]")
        return tuple(self.bind(one, of, key) for one in node.items)

    def _pairs(self, node: Node, of: Any, key: str) -> tuple[tuple[str, Any], ...]:
        if not node.mapping:
            raise Unfit(f"{key}: {node.kind}; expected a mapping", f"{key}: {{A: B}}")
        found: dict[str, Any] = {}
        for word, value in node.pairs:
            if not isinstance(word.value, str):
                self.complain(word, f"{key}: {word.kind} as a key; expected a text", "quote it")
            elif word.value in found:
                self.complain(word, f"{word.value} stands here twice", "remove one of the two")
            else:
                found[word.value] = self.bind(value, of, f"{key}, {word.value}")
        return tuple(found.items())


def _line(cls: type, node: Node) -> dict[str, int]:
    return {"line": node.line} if cls is model.Machine else {}


def _without_none(wanted: Any) -> Any:
    if wanted != model.Step and get_origin(wanted) in (Union, UnionType):
        rest = [one for one in get_args(wanted) if one is not NoneType]
        return Union[tuple(rest)]  # noqa: UP007 - a union of what is left, most often of one
    return wanted


def _scalar(node: Node, wanted: Any, key: str) -> Any:
    """Raises Unfit."""
    if not isinstance(node.value, str) or node.empty:
        raise Unfit(f"{key}: {node.kind}; expected {_expected(wanted)}", f"{key}: {_example(wanted)}")
    if isinstance(wanted, EnumType):
        return _enum(node.value, wanted, key)
    return SCALARS[wanted](node.value, key)


def _enum(text: str, wanted: Any, key: str) -> Any:
    names = [one.value for one in members(wanted)]
    if text not in names:
        close = difflib.get_close_matches(text, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"{key}: {names[0]}"
        raise Unfit(f"{key}: {text!r}; expected {_expected(wanted)}", hint)
    return wanted(text)


def _expected(wanted: Any) -> str:
    if isinstance(wanted, EnumType):
        return " or ".join(one.value for one in members(wanted))
    return EXPECTED[wanted][0]


def _example(wanted: Any) -> str:
    return _expected(wanted).split(" or ")[0] if isinstance(wanted, EnumType) else EXPECTED[wanted][1]


def _text(text: str, key: str) -> str:
    if any(not char.isprintable() for char in text):
        raise Unfit(f"{key}: control characters in a text; expected a text of one line", "remove them")
    return text


def _name(text: str, key: str) -> str:
    if not NAME.fullmatch(text):
        raise Unfit(f"{key}: {text!r}; expected {EXPECTED[model.Name][0]}", f"{key}: {EXPECTED[model.Name][1]}")
    return text


def _bool(text: str, key: str) -> bool:
    if text.lower() not in WORDS:
        raise Unfit(f"{key}: {text!r}; expected true or false", f"{key}: true")
    return WORDS[text.lower()]


def _int(text: str, key: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise Unfit(f"{key}: {text!r}; expected a whole number", f"{key}: 13")
    return int(text)


def _count(text: str, key: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text) or not int(text):
        raise Unfit(f"{key}: {text!r}; expected a number from 1 on", f"{key}: 2")
    return int(text)


def _bytes(text: str, key: str) -> int:
    match = BYTES.fullmatch(text.strip())
    if not match or not int(match[1]):
        raise Unfit(f"{key}: {text!r}; expected a number of bytes", f"{key}: 100M")
    return int(match[1]) * MULTIPLIERS[match[2].upper()]


def _moment(text: str, key: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Unfit(f"{key}: {text!r}; expected a time", f"{key}: 2026-11-21T22:00:00+01:00") from None
    if found.tzinfo is None:
        raise Unfit(f"{key}: a time without a zone; expected one with it", f"{key}: {text}+01:00, or {text}Z")
    return found


SCALARS: dict[Any, Callable[[str, str], Any]] = {
    str: _text, model.Name: _name, bool: _bool, int: _int, model.Count: _count, model.Bytes: _bytes, datetime: _moment}
EXPECTED: dict[Any, tuple[str, str]] = {
    str: ("a text", "TEXT"), model.Name: ("letters, digits, '.', '_' and '-', 100 at most", "wave1"),
    bool: ("true or false", "true"),
    int: ("a whole number", "13"), model.Count: ("a number from 1 on", "2"), model.Bytes: ("a number of bytes", "100M"),
    datetime: ("a time with its zone", "2026-11-21T22:00:00+01:00")}
