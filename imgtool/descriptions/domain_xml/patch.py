"""Changing a domain XML that is there: only what must change, everything else byte for byte.

::

    old text ── parse ──▶ Machine ── written ──▶ base ─┐
                                                       ├ what differs ──▶ edits of the old text
    new Machine ── written ──▶ new ────────────────────┘

What base and new have in common stays as it is written there, in whatever words; what neither knows is not looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from imgtool.descriptions.domain_xml.document import decoded, opened
from imgtool.descriptions.domain_xml.held import HOLDS
from imgtool.descriptions.domain_xml.read import machine_of, parse
from imgtool.descriptions.fields import pattern, said
from imgtool.model.problem import Problem

TOKENS = re.compile(r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<(?:[^<>\"']|\"[^\"]*\"|'[^']*')*+>", re.DOTALL)
BY_FIELD = frozenset({"disk", "interface", "serial", "parallel", "video", "graphics", "hostdev", "filesystem", "input", "sound"})
"""Devices that are known by the field of Machine that they stand for, ``disks[1]``; without one they are left alone."""
BY_NAME = {"feature": ("name",), "timer": ("name",), "controller": ("type", "index")}
"""Elements that are known by an attribute."""
STEP = "  "
PASSWORDS = re.compile(r"""\s+passwd(?:ValidTo)?\s*=\s*(?:"[^"]*"|'[^']*')""")
SAID_PASSWORD = re.compile(r"""(\bpasswd\s*=\s*)(?:"[^"]*"|'[^']*')""")
"""In a comment, where something must stay: two hyphens that meet would end it."""
PRIVATE_USE = range(0xE000, 0xF900)
"""Characters that mean nothing to anybody else."""
Key = tuple[str, ...]


class Span(NamedTuple):
    """Where an element stands in the text; an empty one ends where it opens."""

    start: int
    opened: int
    closing: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """A tree, and the field of Machine that each of its devices stands for."""

    root: etree._Element
    fields: dict[etree._Element, str]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The edits of a text."""

    text: str
    spans: dict[etree._Element, Span]
    old: Document
    base: Document
    new: Document
    whole: bool
    """Elements of ``domain`` and ``devices`` that differ are replaced, with what is unknown in them."""
    cuts: list[tuple[int, int, str]] = field(default_factory=list)
    """From, to, and what stands there instead."""


def patched(onto: bytes, base: etree._Element, new: etree._Element) -> tuple[bytes, tuple[Problem, ...]]:
    """The text with what differs between two written machines put into it; and what that did not reach. Raises DamagedError."""
    fresh = etree.tostring(new)
    wanted = _goal(onto, base, fresh)
    problems: tuple[Problem, ...] = ()
    result = onto
    for whole in (False, True):
        result = _edited(onto, etree.tostring(base), fresh, whole=whole)
        found = dict(said(parse(result).machine))
        wrong = [path for path in {**wanted, **found} if wanted.get(path) != found.get(path) and _is_written(path)]
        if not wrong:
            return result, problems
        outcome = "could not be changed in the existing file" if whole else "the existing file said it in another way: replaced"
        problems = tuple(Problem(what=f"{path}: {outcome}", fatal=whole) for path in wrong)
    return result, problems


def without_secrets(text: bytes) -> bytes:
    """The description without the passwords of its screens, in comments too; all else byte for byte. Raises DamagedError."""
    string, encoding = decoded(text)
    opened(text)  # in a text that is well-formed, tokens are what they look like
    clean = TOKENS.sub(lambda token: _without_password(token[0]), string)
    return clean.encode(encoding, "xmlcharrefreplace") if clean != string else text


def _without_password(token: str) -> str:
    if token.startswith("<!--"):
        return SAID_PASSWORD.sub(r'\1""', token)
    return PASSWORDS.sub("", token) if re.match(r"<graphics\s", token) else token


def _goal(onto: bytes, base: etree._Element, fresh: bytes) -> dict[str, object]:
    """What the result shall say: the new machine where it differs from the old one, else what the file says, written or not."""
    there, old, new = (dict(said(parse(text).machine)) for text in (onto, etree.tostring(base), fresh))
    every = {**there, **new}
    goal = {path: there.get(path) if old.get(path) == new.get(path) else new.get(path) for path in every}
    return {path: value for path, value in goal.items() if value is not None}


def _is_written(path: str) -> bool:
    """Other fields are what the old file says: nothing here writes them."""
    return pattern(path) in HOLDS


def _edited(onto: bytes, base: bytes, new: bytes, *, whole: bool) -> bytes:
    text, encoding = decoded(onto)
    old = _document(onto)
    edit = Edit(text=text, spans=_spans(text, old.root), old=old, base=_document(base), new=_document(new), whole=whole)
    _merge(edit, old.root, edit.base.root, edit.new.root)
    _forget_places(edit)
    pieces, end = [], 0
    for start, stop, piece in sorted(edit.cuts, key=lambda cut: cut[:2]):
        if start >= end:  # else it lies in something that is gone
            pieces += [text[end:start], piece]
            end = stop
    return "".join([*pieces, text[end:]]).encode(encoding, "xmlcharrefreplace")


def _document(text: bytes) -> Document:
    domain = opened(text)
    machine_of(domain)
    places = {path: one for one, path in domain.notes.paths.items()}
    fields: dict[etree._Element, str] = {}
    for line in domain.notes.trace:
        device = places.get("/".join(line.key.split("/")[:4]))
        if device is not None and (match := re.match(r"\w+\[\d+\]", line.field)):
            fields.setdefault(device, match[0])
    return Document(root=domain.element, fields=fields)


def _spans(text: str, root: etree._Element) -> dict[etree._Element, Span]:
    """The text is well-formed: start tags come in the order of the elements."""
    elements = root.iter("*")
    spans: dict[etree._Element, Span] = {}
    open_: list[tuple[etree._Element, int, int]] = []
    for token in TOKENS.finditer(text):
        word, start, end = token[0], token.start(), token.end()
        if word.startswith(("<!", "<?")):
            continue
        if word.startswith("</"):
            element, began, opened_at = open_.pop()
            spans[element] = Span(began, opened_at, start, end)
        elif word.endswith("/>"):
            spans[next(elements)] = Span(start, end, end, end)
        else:
            open_.append((next(elements), start, end))
    return spans


def _keys(document: Document, parent: etree._Element) -> dict[Key, etree._Element]:
    """The children by what they are known by."""
    found: dict[Key, etree._Element] = {}
    count: dict[str, int] = {}
    for child in parent.iterchildren("*"):
        tag = str(child.tag)
        if tag in BY_FIELD and parent.tag == "devices":
            if child in document.fields:
                found[document.fields[child],] = child
            continue
        names = BY_NAME.get(tag)
        if tag == "channel":
            target = child.find("target")
            key: Key = (tag, "" if target is None else target.get("name") or "")
        elif names:
            key = (tag, *(child.get(name) or "" for name in names))
        else:
            key = (tag,)
        count["/".join(key)] = count.get("/".join(key), 0) + 1
        found[*key, str(count["/".join(key)])] = child
    return found


def _merge(edit: Edit, old: etree._Element, base: etree._Element, new: etree._Element) -> None:
    """Edits that make ``old`` differ from what it says as ``new`` differs from ``base``."""
    _attributes(edit, old, base, new)
    if _text(base) != _text(new):
        _set_text(edit, old, _text(new))
    olds, bases, news = _keys(edit.old, old), _keys(edit.base, base), _keys(edit.new, new)
    added = []
    for key in {**bases, **news}:
        mine, before, after = olds.get(key), bases.get(key), news.get(key)
        if before is not None and after is not None and _same(before, after):
            continue
        if mine is None:
            added += [after] if after is not None else []
        elif after is None:
            _remove(edit, mine)
        elif mine.tag == "address" or (edit.whole and (old.tag == "devices" or old is edit.old.root) and mine.tag != "devices"):
            _replace(edit, mine, after)
        else:
            blank = etree.Element(str(mine.tag))
            if _is_another(before, after):
                _forget_place(edit, mine, after)
            _merge(edit, mine, blank if before is None else before, after)
    if added:
        _insert(edit, old, added)


def _same(one: etree._Element, other: etree._Element) -> bool:
    return etree.tostring(one, method="c14n", with_tail=False) == etree.tostring(other, method="c14n", with_tail=False)


def _text(element: etree._Element) -> str:
    text = element.text or ""
    return "" if len(element) and not text.strip() else text


def _is_another(before: etree._Element | None, after: etree._Element) -> bool:
    return before is not None and _identity(before) != _identity(after)


def _identity(device: etree._Element) -> list[str | None]:
    """Where one of these changes, the device is another one, and does not keep its place on the PCI bus."""
    inner = [found.get(name) for path, name in (("target", "bus"), ("model", "type")) for found in device.findall(path)]
    return [device.get("type"), device.get("model"), *inner]


def _forget_place(edit: Edit, device: etree._Element, after: etree._Element | None = None) -> None:
    """libvirt gives the device a new place."""
    address = device.find("address")
    if address is not None and address.get("type") == "pci" and (after is None or after.find("address") is None):
        _remove(edit, address)


def _forget_places(edit: Edit) -> None:
    """On another chipset there are other buses."""
    before, after = (document.root.find("os/type") for document in (edit.base, edit.new))
    if before is None or after is None or before.get("machine") == after.get("machine"):
        return
    for device in edit.old.root.iterfind("devices/*"):
        if device.tag == "controller" and device.get("type") == "pci":
            _remove(edit, device)
        else:
            _forget_place(edit, device)


def _attributes(edit: Edit, old: etree._Element, base: etree._Element, new: etree._Element) -> None:
    names = dict.fromkeys([*map(str, base.attrib), *map(str, new.attrib)])
    changed = {name: new.get(name) for name in names if base.get(name) != new.get(name) != old.get(name)}
    if not changed:
        return
    span = edit.spans[old]
    end = span.opened - (2 if edit.text.endswith("/>", span.start, span.opened) else 1)
    tag = edit.text[span.start:end]
    for name, value in changed.items():
        there = re.compile(rf"\s+{re.escape(str(name))}\s*=\s*(\"[^\"]*\"|'[^']*')")
        written = "" if value is None else f" {name}={quoteattr(value)}"
        found = there.search(tag)
        tag = tag[:found.start()] + written + tag[found.end():] if found else tag.rstrip() + written
    edit.cuts.append((span.start, end, tag))


def _set_text(edit: Edit, old: etree._Element, text: str) -> None:
    span = edit.spans[old]
    written = escape(text, {"\r": "&#13;"})
    if span.opened == span.end:
        edit.cuts.append((span.opened - len("/>"), span.end, f">{written}</{_raw_name(edit, old)}>"))
    else:
        edit.cuts.append((span.opened, span.closing, written))


def _raw_name(edit: Edit, element: etree._Element) -> str:
    match = re.match(r"<([^\s/>]+)", edit.text[edit.spans[element].start:])
    return match[1] if match else ""


def _margin(edit: Edit, position: int) -> int:
    """Where the blanks before a position begin."""
    start = position
    while start and edit.text[start - 1].isspace():
        start -= 1
    return start


def _remove(edit: Edit, element: etree._Element) -> None:
    span = edit.spans[element]
    edit.cuts.append((_margin(edit, span.start), span.end, ""))


def _replace(edit: Edit, old: etree._Element, new: etree._Element) -> None:
    span = edit.spans[old]
    edit.cuts.append((span.start, span.end, _written(new, edit.text[_margin(edit, span.start):span.start])))


def _insert(edit: Edit, parent: etree._Element, added: list[etree._Element]) -> None:
    """Each after the last of its kind, or at the end."""
    span = edit.spans[parent]
    children = list(parent.iterchildren("*"))
    margin = _inner_margin(edit, parent, children)
    late = []
    for element in added:
        kin = [child for child in children if child.tag == element.tag]
        if kin:
            place = edit.spans[kin[-1]].end
            edit.cuts.append((place, place, margin + _written(element, margin)))
        else:
            late.append(margin + _written(element, margin))
    if late and span.opened == span.end:
        outer = edit.text[_margin(edit, span.start):span.start]
        edit.cuts.append((span.opened - len("/>"), span.end, f">{''.join(late)}{outer}</{_raw_name(edit, parent)}>"))
    elif late:
        place = _margin(edit, span.closing)
        edit.cuts.append((place, place, "".join(late)))


def _inner_margin(edit: Edit, parent: etree._Element, children: list[etree._Element]) -> str:
    """The line end and the blanks before a child."""
    if children:
        start = edit.spans[children[-1]].start
        return edit.text[_margin(edit, start):start]
    start = edit.spans[parent].start
    return (edit.text[_margin(edit, start):start] or "\n") + STEP


def _written(element: etree._Element, margin: str) -> str:
    """An element as text, indented as what is around it; line ends in its texts stay what they are."""
    copy = etree.fromstring(etree.tostring(element, with_tail=False))
    etree.indent(copy, STEP)
    used = etree.tostring(copy, encoding="unicode")
    line_end = next(mark for mark in map(chr, PRIVATE_USE) if mark not in used)
    for parent in copy.iter("*"):
        if len(parent):
            parent.text = (parent.text or "").replace("\n", line_end)
        for child in parent:
            child.tail = (child.tail or "").replace("\n", line_end)
    return etree.tostring(copy, encoding="unicode").replace(line_end, margin or "\n")
