"""Making elements, and texts that XML can hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from lxml import etree

from imgtool.model.machine import Machine

FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write (section 2.2), lone surrogates among them."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def add(parent: etree._Element, tag: str, text: object = None, **attributes: object) -> etree._Element:
    """A new last child. Attributes that are None are left out."""
    element = etree.SubElement(parent, tag, {name: str(value) for name, value in attributes.items() if value is not None})
    element.text = None if text is None else str(text)
    return element


def yes_no(value: bool | None) -> str | None:
    """libvirt's words for a switch; None stays None."""
    return None if value is None else "yes" if value else "no"


def writable(machine: Machine) -> tuple[Machine, tuple[str, ...]]:
    """The same with a replacement character for each that XML forbids, and the fields where one stood."""
    found: list[str] = []
    return _cleaned(machine, "", found), tuple(found)


def _cleaned(thing: Any, where: str, found: list[str]) -> Any:
    if isinstance(thing, str) and type(thing) is str:
        if FORBIDDEN.search(thing):
            found.append(where)
        return FORBIDDEN.sub(REPLACEMENT, thing)
    if isinstance(thing, tuple):
        return tuple(_cleaned(one, f"{where}[{number}]", found) for number, one in enumerate(thing))
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **dict(_changes(thing, where, found)))
    return thing


def _changes(thing: Any, where: str, found: list[str]) -> Iterator[tuple[str, Any]]:
    for one in fields(thing):
        value = getattr(thing, one.name)
        cleaned = _cleaned(value, f"{where}.{one.name}".lstrip("."), found)
        if cleaned != value:
            yield one.name, cleaned
