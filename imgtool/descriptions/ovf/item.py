"""One ``<Item>`` of the virtual hardware: the settings of a device, and notes about what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from imgtool.descriptions.ovf import xml
from imgtool.descriptions.ovf.units import number, truth
from imgtool.descriptions.ovf.words import CONFIG_NOISE
from imgtool.errors import DamagedError
from imgtool.model.description import Trace
from imgtool.model.problem import Problem

ITEMS = ("Item", "StorageItem", "EthernetPortItem")
MAX_DEVICES = 2000
"""More than any hypervisor gives a machine: four SCSI controllers have 256 disks."""


@dataclass(frozen=True)
class Notes:
    """What is said of the reading."""

    trace: list[Trace] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def read(self, where: str, element: etree._Element | None, value: object) -> None:
        """A field of the machine that an element gave."""
        if element is not None:
            self.trace.append(Trace(where, xml.path(element), str(value)))

    def problem(self, what: str, hint: str | None = None) -> None:
        self.problems.append(Problem(what=what, hint=hint))


@dataclass(frozen=True)
class Item:
    """The settings by their names in lower case; ``elements`` where they stand. Of several of one name the first counts."""

    element: etree._Element
    values: dict[str, str]
    elements: dict[str, etree._Element]
    config: dict[str, str]
    """``vmw:Config``, keys in lower case."""

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def number(self, name: str) -> int | None:
        return number(self.get(name))

    @property
    def type(self) -> int:
        found = self.number("resourcetype")
        return -1 if found is None else found

    @property
    def subtype(self) -> str:
        return (self.get("resourcesubtype") or "").lower()

    @property
    def title(self) -> str:
        return self.get("elementname") or self.get("caption") or self.get("instanceid") or "?"

    def flag(self, key: str) -> bool | None:
        """Of ``vmw:Config``."""
        return truth(self.config.get(key.lower()))


def read_item(element: etree._Element) -> Item:
    """Of an Item of OVF 1, a StorageItem or an EthernetPortItem of OVF 2."""
    values: dict[str, str] = {}
    elements: dict[str, etree._Element] = {}
    for child in element:
        name = xml.local(child).lower()
        if name and name != "config" and (value := xml.text(child)) and value.strip():
            values.setdefault(name, value.strip())
            elements.setdefault(name, child)
    return Item(element, values, elements, config(element))


def bounded(elements: Iterable[etree._Element], what: str) -> list[etree._Element]:
    """All of them. Raises DamagedError where there are more than any machine has."""
    found = list(elements)
    if len(found) > MAX_DEVICES:
        raise DamagedError(f"the OVF has {len(found)} {what}: at most {MAX_DEVICES} are read")
    return found


def config(parent: etree._Element) -> dict[str, str]:
    """``<vmw:Config vmw:key= vmw:value=>``, keys in lower case."""
    pairs = ((xml.attribute(one, "key"), xml.attribute(one, "value")) for one in xml.children(parent, "Config"))
    return {key.lower(): value for key, value in pairs if key and value}


def unknown(found: dict[str, str], known: Iterator[str] | tuple[str, ...], where: str, notes: Notes) -> None:
    """A problem for each key that no field holds, and that is not noise."""
    held = {key.lower() for key in known}
    for key, value in found.items():
        if key not in held and not CONFIG_NOISE.fullmatch(key):
            notes.problem(f"vmw:Config {key} = {value} of {where} is not carried over",
                          "set it again at the target, if it is needed")


def said(thing: Any, **values: object) -> Any:
    """The same with the values that are not None."""
    return replace(thing, **{key: value for key, value in values.items() if value is not None})
