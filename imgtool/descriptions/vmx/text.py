"""The text of a ``.vmx`` and of its kin (``.vmsd``): lines, encodings, escapes. Read as laxly as VMware does.

A file is lines of ``key = "value"`` in the encoding that its ``.encoding`` line names. ``|22`` stands for the byte 0x22, so
that a value can hold quotes, line ends and other bytes. Keys have no case; the first of several lines with one key counts.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imgtool.errors import DamagedError
from imgtool.model.problem import Problem

MAX_SIZE = 64 << 20
"""Bytes. Real files have kilobytes; with cloud-init's data in them, a few megabytes."""
MAX_NAMED = 5
"""So many odd lines are named; of more only the number is told."""
UTF8 = "utf-8"
FALLBACK = "latin-1"
"""Every byte is a character of it."""
BOM = codecs.BOM_UTF8
ENCODINGS = re.compile(r"utf-8|ascii|cp\d+|iso8859-\d+|latin-1|gbk|gb2312|gb18030|big5|big5hkscs|shift_jis|euc_jp|euc_kr|johab|"
                       r"koi8-[rut]|tis-620|mac-\w+")
"""Python's names of what a hypervisor writes a file in: each is a superset of ASCII, line by line."""
FOREIGN = ((b"KDMV", "a VMDK disk image"), (b"COWD", "a VMDK disk image"),
           (b"# Disk DescriptorFile", "the descriptor of a VMDK disk image"),
           (b"QFI\xfb", "a qcow2 disk image"), (b"<", "XML"), (b"\xff\xfe", "UTF-16 text"), (b"\xfe\xff", "UTF-16 text"),
           (b"PK\x03\x04", "a ZIP archive"), (b"\x1f\x8b", "gzip-compressed"))
ENCODING_LINE = re.compile(rb'^[ \t]*\.?encoding[ \t]*=[ \t]*["\']?([^"\'\r\n]{0,64})', re.IGNORECASE | re.MULTILINE)
SEVERAL = re.compile(r"""\s*[\w.:-]+\s*=\s*(?:"[^"]*"|'[^']*')\s*;""")
ONE_OF_SEVERAL = re.compile(r"""\s*([\w.:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')\s*(?:;|$)""")
ESCAPES = re.compile(r"(?:\|[0-9A-Fa-f]{2})+")
UNSAFE = re.compile("[\"|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Entry(NamedTuple):
    """One setting."""

    key: str
    """As it is spelled."""
    value: str
    """Without quotes and escapes."""
    line: int
    """Index of its line."""


class Text(NamedTuple):
    """A file that was taken apart."""

    lines: list[bytes]
    """With their line ends: together they are the file."""
    entries: dict[str, Entry]
    """By key in lower case; the first of each key."""
    places: dict[str, list[int]]
    """Where each key, in lower case, stands: indices of lines."""
    encoding: str
    """Python's name."""
    problems: tuple[Problem, ...]


def take_apart(data: bytes, *, what: str = ".vmx file") -> Text:
    """The settings of a file. Raises DamagedError if it is no such file at all, or in an encoding that nobody knows."""
    _refuse_foreign(data, what)
    body = data.removeprefix(BOM)
    encoding, problems = _encoding(body, bom=body is not data)
    text = Text(lines=_lines(data), entries={}, places={}, encoding=encoding, problems=())
    odd, bare, twice = [], [], []
    for number, raw in enumerate(text.lines):
        line = (raw.removeprefix(BOM) if number == 0 else raw).decode(encoding).strip()
        if not line or line.startswith("#"):
            continue
        found = list(_statements(line))
        if not found:
            odd.append(f"line {number + 1}")
        for key, value, quoted in found:
            if not quoted:
                bare.append(key)
            if key.lower() in text.entries:
                twice.append(key)
            text.entries.setdefault(key.lower(), Entry(key, unescape(value, encoding), number))
            text.places.setdefault(key.lower(), []).append(number)
    if not text.entries:
        raise DamagedError(f"there is no setting in this {what}", 'each line of it has the form key = "value"')
    problems += _summaries(odd, bare, twice)
    return text._replace(problems=tuple(problems))


def alone(text: Text, keys: Iterable[str]) -> Text:
    """The same settings, where each of ``keys`` (in lower case) has a line of its own: what is done to it is done to no other."""
    count = Counter(number for places in text.places.values() for number in places)
    shared = {number for key in keys for number in text.places.get(key, ()) if count[number] > 1}
    if not shared:
        return text
    lines = [_one_each(line, text.encoding) if number in shared else line for number, line in enumerate(text.lines)]
    return take_apart(b"".join(lines))


def _one_each(raw: bytes, encoding: str) -> bytes:
    """``a = "1"; b = "2"`` as two lines."""
    mark, end = BOM if raw.startswith(BOM) else b"", b"\r\n" if raw.endswith(b"\r\n") else b"\n"
    found = _statements(raw.removeprefix(BOM).decode(encoding).strip())
    lines = (statement(key, unescape(value, encoding), encoding).encode(encoding) + end for key, value, _ in found)
    return mark + b"".join(lines)


def _refuse_foreign(data: bytes, what: str) -> None:
    for magic, kind in FOREIGN:
        if data.lstrip().startswith(magic):
            raise DamagedError(f"this is {kind}, not a {what}", f"name the {what} of the machine")
    if len(data) > MAX_SIZE:
        raise DamagedError(f"{len(data)} bytes are too many for a {what}", "check that it is the right file")
    if b"\0" in data:
        raise DamagedError(f"this is binary data, not a {what}", f"name the {what} of the machine")


def _encoding(body: bytes, *, bom: bool) -> tuple[str, list[Problem]]:
    """Python's name of the encoding, and what is odd about it."""
    match = ENCODING_LINE.search(body)
    named = match[1].decode(FALLBACK).strip() if match else "UTF-8"
    known = UTF8 if bom else python_encoding(named)
    if known is None:
        if not body.isascii():
            raise DamagedError(f".encoding = {named[:60]}: this encoding is not known, and the file is not ASCII",
                               "save the file in UTF-8 and set .encoding to UTF-8")
        return UTF8, [Problem(what=f".encoding = {named[:60]}: not known; the file is pure ASCII and was read as that")]
    try:
        body.decode(known)
    except UnicodeDecodeError as error:
        return FALLBACK, [Problem(what=f"the file is not in {named}, as it should be: byte {error.start} does not fit",
                                  hint="it was read as Latin-1; check the names of its files")]
    return known, []


def python_encoding(name: str) -> str | None:
    """Python's name for an encoding as VMware calls it (``windows-936``, ``GBK``); None if unknown or not plain text."""
    name = re.sub("^(?:windows|ibm)-(?=[0-9])", "cp", name, flags=re.IGNORECASE)
    try:
        found = codecs.lookup(name).name
    except (LookupError, UnicodeError, ValueError):
        return None
    return found if ENCODINGS.fullmatch(found) else None


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    kept = [line + b"\n" for line in lines[:-1]]
    return [*kept, lines[-1]] if lines[-1] else kept


def _statements(line: str) -> Iterator[tuple[str, str, bool]]:
    """(key, value as it stands, whether it is quoted) of one line; several where ``;`` is between them."""
    if ";" in line and SEVERAL.match(line):
        found = list(_several(line))
        if len(found) > 1:
            yield from found
            return
    key, equals, value = line.partition("=")
    key, value = key.strip(), value.strip().removesuffix(";").rstrip()
    if not equals or not key or any(map(str.isspace, key)):
        return
    quote = value[:1]
    end = value.rfind(quote) if quote and quote in "\"'" else 0
    if end > 0:
        yield key, value[1:end], True
    else:
        yield key, value.removeprefix('"'), False


def _several(line: str) -> Iterator[tuple[str, str, bool]]:
    """The statements of ``a = "1"; b = "2"``; nothing where anything else is on the line."""
    found, position = [], 0
    while position < len(line):
        match = ONE_OF_SEVERAL.match(line, position)
        if not match:
            return
        found.append((match[1], match[2] if match[2] is not None else match[3], True))
        position = match.end()
    yield from found


def _summaries(odd: list[str], bare: list[str], twice: list[str]) -> list[Problem]:
    found = []
    if odd:
        found.append(Problem(what=f"{_some(odd)}: no settings (key = \"value\"); ignored"))
    if bare:
        found.append(Problem(what=f"{_some(bare)}: the value is not in quotes"))
    if twice:
        found.append(Problem(what=f"{_some(twice)}: set more than once; the first counts", hint="VMware may refuse such a file"))
    return found


def _some(words: list[str]) -> str:
    words = list(dict.fromkeys(words))
    more = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return ", ".join(words[:MAX_NAMED]) + more


def unescape(value: str, encoding: str = UTF8) -> str:
    """``caf|C3|A9`` → ``café``. What is not an escape, or not text in this encoding, stays as it is."""
    return ESCAPES.sub(lambda match: _decoded(match[0], encoding), value) if "|" in value else value


def _decoded(escapes: str, encoding: str) -> str:
    data = bytes.fromhex(escapes.replace("|", ""))
    if 0 in data:
        return escapes
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return escapes


def escape(value: str, encoding: str = UTF8) -> str:
    """A value as it stands between quotes: no character of it can end the value or the line. Raises UnicodeEncodeError."""
    return UNSAFE.sub(lambda match: "".join(f"|{byte:02X}" for byte in _encoded(match[0], encoding)), value)


def _encoded(character: str, encoding: str) -> bytes:
    """Half a surrogate pair, which no encoding has, is a byte of a file name (then that byte), or nonsense."""
    if "\ud800" <= character <= "\udfff":
        return character.encode(UTF8, "surrogateescape" if "\udc80" <= character <= "\udcff" else "replace")
    return character.encode(encoding)


def statement(key: str, value: str, encoding: str = UTF8) -> str:
    """One line, without its end. Raises UnicodeEncodeError."""
    return f'{key} = "{escape(value, encoding)}"'
