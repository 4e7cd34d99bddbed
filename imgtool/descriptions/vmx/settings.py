"""The settings of a ``.vmx`` while they are read: which were used, what was traced, what is odd."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from imgtool.descriptions.vmx.keys import MEANINGS, NOISE, NOISY, NOISY_VALUES, SECRET
from imgtool.descriptions.vmx.text import Entry, Text
from imgtool.descriptions.vmx.values import Codec, Field, boolean
from imgtool.model.description import Trace
from imgtool.model.problem import Problem

MAX_SHOWN = 60
"""Characters of a value in a problem."""
MAX_ALONE = 30
"""So many settings without a field get a problem each."""
FOUND = tuple[re.Match[str], str]


class Settings:
    """What a ``.vmx`` says. ``get`` and ``take`` mark a key as used; ``left`` reports what nobody used."""

    def __init__(self, text: Text) -> None:
        self.entries = text.entries
        self.used: set[str] = set()
        self.trace: list[Trace] = []
        self.problems = list(text.problems)
        self.heads: dict[str, list[str]] = {}
        for key in self.entries:
            self.heads.setdefault(key.partition(".")[0], []).append(key)

    def get(self, key: str) -> str | None:
        """The value of a key in any case."""
        entry = self._entry(key)
        return entry.value if entry else None

    def take(self, key: str, field: str, codec: Codec) -> Any:
        """A value for a field, traced; None where it says nothing, or nonsense (which is a problem)."""
        entry = self._entry(key)
        if entry is None:
            return None
        try:
            value = codec.read(entry.value)
        except ValueError as error:
            self.odd(f"{entry.key} = {shown(entry.value)}: {error}; ignored")
            return None
        if value is not None:
            self.note(field, entry.key, entry.value)
        return value

    def all(self, head: str, fields: Iterable[Field], where: str) -> dict[str, Any]:
        """The fields that are said of one device: ``head`` begins its keys, ``where`` is its path in Machine."""
        pairs = ((one.field, self.take(f"{head}.{one.key}", f"{where}.{one.field}", one.codec)) for one in fields)
        return {name: value for name, value in pairs if value is not None}

    def flag(self, key: str) -> bool | None:
        """A TRUE or FALSE; None where it is neither or missing."""
        value = self.get(key)
        try:
            return boolean(value) if value else None
        except ValueError:
            self.odd(f"{key} = {shown(value or '')}: neither TRUE nor FALSE; ignored")
            return None

    def present(self, head: str, *evidence: str) -> bool:
        """Whether a device is there. Where ``present`` is missing, any of the keys ``evidence`` with a value tells.
        What is said of a device that is not there is no longer looked at."""
        there = self.flag(f"{head}.present")
        if there is None and any(self.get(f"{head}.{key}") for key in evidence):
            self.odd(f"{head}.present is missing: taken as TRUE",
                     hint="VMware itself takes it as FALSE: check that the machine has this device")
            return True
        if not there:
            self.used.update(self.heads.get(head, ()))
        return bool(there)

    def numbered(self, pattern: str) -> list[FOUND]:
        """(match, head) of each device whose name matches, in numeric order."""
        found = [(match, head) for head in self.heads if (match := re.fullmatch(pattern, head))]
        return sorted(found, key=lambda pair: [int(digits) for digits in re.findall(r"\d+", pair[1])])

    def note(self, field: str, key: str, value: str) -> None:
        self.trace.append(Trace(field, key, value))

    def odd(self, what: str, *, hint: str | None = None) -> None:
        self.problems.append(Problem(what=what, hint=hint))

    def left(self) -> None:
        """A problem for each setting that was not used and that means something; for many of one kind, one."""
        groups: dict[int, list[Entry]] = {}
        alone: list[Entry] = []
        off = {key.removesuffix(".present") for key, entry in self.entries.items()
               if key.endswith(".present") and entry.value.strip().lower() == "false"}
        for key, entry in self.entries.items():
            if key in self.used or not entry.value.strip() or is_noise(key, entry.value) or off & set(_namespaces(key)):
                continue
            number = next((at for at, (pattern, _, _) in enumerate(PATTERNS) if pattern.match(key)), None)
            (alone if number is None else groups.setdefault(number, [])).append(entry)
        for number, entries in sorted(groups.items()):
            _, meaning, hint = PATTERNS[number]
            self.odd(f"{_names(entries)}: {meaning}; not carried", hint=hint)
        for entry in alone[:MAX_ALONE]:
            value = "…" if SECRET.search(entry.key) else shown(entry.value)
            self.odd(f"{entry.key} = {value}: a machine elsewhere has no such setting; not carried")
        if len(alone) > MAX_ALONE:
            self.odd(f"{len(alone) - MAX_ALONE} more settings (first: {alone[MAX_ALONE].key}): not carried")

    def _entry(self, key: str) -> Entry | None:
        key = key.lower()
        self.used.add(key)
        return self.entries.get(key)


PATTERNS = [(re.compile(start, re.IGNORECASE), meaning, hint) for start, meaning, hint in MEANINGS]


def is_noise(key: str, value: str) -> bool:
    """Whether a setting (key in lower case) means nothing to another host."""
    return key in NOISE or value.lower() in NOISY_VALUES.get(key, ()) or NOISY.fullmatch(key) is not None


def _namespaces(key: str) -> Iterable[str]:
    parts = key.split(".")[:8]
    return (".".join(parts[:at]) for at in range(1, len(parts)))


def _names(entries: list[Entry]) -> str:
    if len(entries) <= 3:
        return ", ".join(entry.key for entry in entries)
    return f"{entries[0].key} and {len(entries) - 1} more like it"


def shown(value: str) -> str:
    """A value in a problem: short, and without anything that moves a terminal's cursor."""
    clean = "".join(character if character.isprintable() else "�" for character in value[:MAX_SHOWN])
    return clean + ("…" if len(value) > MAX_SHOWN else "")
