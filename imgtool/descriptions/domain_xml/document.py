"""A domain XML that is being read: nothing in it is trusted, and what nobody asked for is known at the end.

::

    bytes ── decoded, no DOCTYPE ──▶ tree ── Node.get("source/@file", "path") ──▶ value
                                               │
                                     Notes: which parts were read, and for which field

What was not read is not carried over: ``leftovers`` makes a problem of each such part, unless ``noise`` knows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lxml import etree

from imgtool.errors import DamagedError
from imgtool.model.description import Trace
from imgtool.model.problem import Problem

MAX_SIZE = 8 << 20
"""Bytes. The largest domains, with hundreds of devices, have some hundred KiB."""
MAX_NUMBER = (1 << 63) - 1
SHOWN = 80
"""Characters of a value that a problem or a trace shows."""
ENCODINGS = ("utf-8", "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "windows-1252")
SECRET = frozenset({"@passwd", "@password", "@query", "cookie", "secret", "@secret", "cookies", "auth", "session", "dhCert"})
"""Parts whose values are not shown."""
HINT = "`virsh dumpxml NAME` prints a domain XML"
_DECLARED = re.compile(r"\A<\?xml\s[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_DOCTYPE = re.compile(r"(?:\s|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)
_UNITS = re.compile(r"(?:b|bytes?)|([kmgtpe])(b|ib)?", re.IGNORECASE)
_TRUE, _FALSE = ("yes", "on", "1", "true"), ("no", "off", "0", "false")


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What was read of a document."""

    paths: dict[etree._Element, str]
    """``/domain/devices/disk[2]`` of each element."""
    read: set[tuple[etree._Element, str]] = field(default_factory=set)
    """Parts: ``""`` is the element, ``@name`` an attribute, ``text()`` its text, ``*`` everything in it."""
    trace: list[Trace] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Node:
    """An element, and the field of Machine that it tells of."""

    element: etree._Element
    notes: Notes
    field: str = ""

    def child(self, name: str, field: str | None = None) -> Node | None:
        """The first element of that name, marked as read."""
        found = self.element.find(name)
        return None if found is None else self._node(found, self.field if field is None else field)

    def children(self, name: str = "*") -> list[Node]:
        """All elements of that name, marked as read."""
        return [self._node(one, self.field) for one in self.element.iterchildren(name)]

    def peek(self, name: str) -> list[Node]:
        """All elements of that name, not marked as read."""
        return [Node(element=one, notes=self.notes, field=self.field) for one in self.element.iterchildren(name)]

    def _node(self, element: etree._Element, field: str) -> Node:
        self.notes.read.add((element, ""))
        return Node(element=element, notes=self.notes, field=field)

    def of(self, field: str) -> Node:
        """The same element, for another field."""
        return Node(element=self.element, notes=self.notes, field=field)

    @property
    def tag(self) -> str:
        return str(self.element.tag)

    @property
    def path(self) -> str:
        return self.notes.paths[self.element]

    def get(self, path: str, field: str | None = None) -> str | None:
        """Text of an attribute (``source/@file``) or an element (``serial``), without blanks around it; None: nothing there."""
        *steps, last = path.split("/")
        node: Node | None = self
        for step in steps if last.startswith("@") else [*steps, last]:
            node = node.child(step) if node else None
        if node is None:
            return None
        part = last if last.startswith("@") else "text()"
        raw = node.element.get(part[1:]) if part.startswith("@") else node.element.text
        node.notes.read.add((node.element, part))
        value = raw.strip() if raw else None
        if value and field is not None:
            self.said(field, node.path + (f"/{part}" if part != "text()" else ""), value)
        return value or None

    def raw(self, tag: str, field: str) -> str | None:
        """The text of an element with its blanks and line ends, as they stand; None: empty, or not there."""
        self.get(tag, field)
        return self.element.findtext(tag) or None

    def said(self, field: str, key: str, value: str) -> None:
        """One line of the trace."""
        self.notes.trace.append(Trace(".".join(filter(None, (self.field, field))), key, value[:SHOWN]))

    def has(self, name: str, field: str | None = None) -> bool | None:
        """True where an empty element such as ``readonly`` stands; else None."""
        found = self.child(name)
        if found and field:
            self.said(field, found.path, "")
        return True if found else None

    def yes(self, path: str, field: str | None = None) -> bool | None:
        """yes and no, on and off. Raises DamagedError."""
        value = self.get(path, field)
        if value is None or value in _TRUE:
            return None if value is None else True
        if value in _FALSE:
            return False
        raise DamagedError(f"{self.path}/{path} = {value[:SHOWN]!r} is neither yes nor no", hint=HINT)

    def number(self, path: str, field: str | None = None, *, low: int = 0, high: int = MAX_NUMBER) -> int | None:
        """Raises DamagedError where it is none, or out of range."""
        value = self.get(path, field)
        return None if value is None else integer(value, f"{self.path}/{path}", low=low, high=high)

    def size(self, path: str, field: str | None = None) -> int | None:
        """Bytes of an element with a ``unit`` (KiB where there is none). Raises DamagedError."""
        value, unit = self.get(path, field), self.get(f"{path}/@unit") or "KiB"
        if value is None:
            return None
        where = f"{self.path}/{path}"
        return integer(str(integer(value, where) * scale(unit, where)), where)

    def problem(self, what: str, hint: str | None = None, *, fatal: bool = False) -> None:
        """Something about this element; it begins with the path."""
        self.notes.problems.append(Problem(what=f"{self.path}: {what}", hint=hint, fatal=fatal))

    def skip(self) -> None:
        """Everything in this element is dealt with."""
        self.notes.read.add((self.element, "*"))


def integer(text: str, where: str, *, low: int = 0, high: int = MAX_NUMBER) -> int:
    """Raises DamagedError where it is none, or out of range."""
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not low <= int(text) <= high:
        raise DamagedError(f"{where} = {text[:SHOWN]!r} is no number from {low} to {high}", hint=HINT)
    return int(text)


def scale(unit: str, where: str) -> int:
    """Bytes of a unit as libvirt knows them: ``KB`` is 1000, ``K`` and ``KiB`` are 1024; case is free. Raises DamagedError."""
    match = _UNITS.fullmatch(unit)
    if match is None:
        raise DamagedError(f"{where}: unknown unit {unit[:SHOWN]!r}", hint="b, KB, KiB, MB, MiB, GB, GiB, …")
    if not match[1]:
        return 1
    base = 1000 if (match[2] or "").lower() == "b" else 1024
    return int(base ** ("kmgtpe".index(match[1].lower()) + 1))


def decoded(text: bytes) -> tuple[str, str]:
    """A document as text, and its encoding. Raises DamagedError; nothing is parsed before a DOCTYPE is ruled out."""
    if len(text) > MAX_SIZE:
        raise DamagedError(f"{len(text)} bytes are too many for a domain XML: at most {MAX_SIZE}", hint=HINT)
    encoding = "utf-8-sig" if text.startswith(b"\xef\xbb\xbf") else "utf-8"
    if declared := _DECLARED.match(text[:300].decode("latin-1")):
        if declared[1].lower() not in ENCODINGS:
            raise DamagedError(f"encoding {declared[1]} is not one of {', '.join(ENCODINGS)}", hint="save the file as UTF-8")
        encoding = encoding if declared[1].lower() == "utf-8" else declared[1].lower()
    try:
        string = text.decode(encoding)
    except UnicodeDecodeError as error:
        raise DamagedError(f"no {encoding} text: {error.reason} at byte {error.start}", hint="save the file as UTF-8") from error
    if _DOCTYPE.match(string):
        raise DamagedError("a domain XML has no DOCTYPE", hint="libvirt writes none; entities are not resolved")
    return string, encoding


def tree(string: str) -> etree._Element:
    """The ``domain`` element. Raises DamagedError."""
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(string.encode("utf-8"), parser)
    except etree.XMLSyntaxError as error:
        raise DamagedError(f"not well-formed XML: {str(error)[:300]}", hint=HINT) from error
    if root.tag != "domain":
        raise DamagedError(f"<{str(root.tag)[:SHOWN]}> is no libvirt domain", hint=HINT)
    return root


def opened(text: bytes) -> Node:
    """The ``domain`` element of a document, nothing read yet. Raises DamagedError."""
    root = tree(decoded(text)[0])
    return Node(element=root, notes=Notes(paths=_paths(root), read={(root, "")}))


def _paths(root: etree._Element) -> dict[etree._Element, str]:
    """The path of each element; a number where a tag stands several times beside each other."""
    paths = {root: "/domain"}
    for parent in root.iter(etree.Element):
        children = list(parent.iterchildren("*"))
        total: dict[str, int] = {}
        for child in children:
            total[str(child.tag)] = total.get(str(child.tag), 0) + 1
        count: dict[str, int] = {}
        for child in children:
            tag = str(child.tag)
            count[tag] = count.get(tag, 0) + 1
            number = f"[{count[tag]}]" if total[tag] > 1 else ""
            paths[child] = f"{paths[parent]}/{_plain(child)}{number}"
    return paths


def _plain(element: etree._Element) -> str:
    """``qemu:commandline`` instead of ``{http://…}commandline``."""
    name = etree.QName(element).localname
    return f"{element.prefix}:{name}" if element.prefix else name
