"""Settings into an existing ``.vmx``: only the lines of what changed are changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from imgtool.descriptions.vmx.text import UTF8, Text, alone, statement, take_apart
from imgtool.descriptions.vmx.write import Setting

DEVICE = re.compile(r"((?:scsi|sata|nvme|ide)\d+:\d+|(?:scsi|sata|nvme|ethernet|serial|parallel|floppy|pcipassthru|"
                    r"sharedfolder)\d+)\..*")
INNER = re.compile(r"""^(\s*[^=]*?\s*=\s*)(.*?)(\s*)$""", re.DOTALL)
PASSWORDS = ("remotedisplay.vnc.password", "remotedisplay.vnc.key")
"""``key`` is the password, obscured."""
SAID_PASSWORD = re.compile("|".join(map(re.escape, PASSWORDS)), re.IGNORECASE)
STALE = {"memsize": (), "sched.mem.min": ("sched.mem.minsize",)}
"""Older keys for the same thing: they go when the key is set."""


def rewritten(text: Text, old: Iterable[Setting], new: Iterable[Setting]) -> bytes:
    """The file with the settings ``new``, where ``old`` are those that it stands for now. What both have stays byte for byte; so
    does what neither knows, unless its device is gone."""
    before = {one.key.lower(): one for one in old}
    after = {one.key.lower(): one for one in new}
    gone = _devices(before) ^ _devices(after)
    changed = {key: one for key, one in after.items()
               if (key not in before or before[key].value != one.value) and key != ".encoding"}
    dropped = {key for key in before if key not in after}
    dropped |= {stale for key in (*changed, *dropped) for stale in STALE.get(key, ())}
    dropped |= {key for key in text.entries if (match := DEVICE.fullmatch(key)) and match[1] in gone}
    text = alone(text, (*changed, *dropped))
    lines: list[bytes | None] = list(text.lines)
    for key in dropped:
        for number in text.places.get(key, ()):
            lines[number] = None
    try:
        return _with(text, lines, changed, dropped, text.encoding)
    except UnicodeEncodeError:
        return _with(*_as_utf8(text, lines), changed, dropped, UTF8)


def without_secrets(data: bytes) -> bytes:
    """The file without the password of its screen, in either of its spellings, and without lines that are no settings (comments)
    and speak of it; all else byte for byte. Raises DamagedError."""
    text = alone(take_apart(data), PASSWORDS)
    secret = {number for key in PASSWORDS for number in text.places.get(key, ())}
    settings = {number for places in text.places.values() for number in places}
    secret |= {number for number, line in enumerate(text.lines)
               if number not in settings and SAID_PASSWORD.search(line.decode(text.encoding))}
    return b"".join(line for number, line in enumerate(text.lines) if number not in secret)


def _devices(settings: Mapping[str, Setting]) -> set[str]:
    return {match[1] for key in settings if (match := DEVICE.fullmatch(key))}


def _with(text: Text, lines: list[bytes | None], changed: Mapping[str, Setting], dropped: set[str], encoding: str) -> bytes:
    """The lines, with the changed settings in their places and new ones at the end."""
    lines = list(lines)
    end = b"\r\n" if text.lines and text.lines[0].endswith(b"\r\n") else b"\n"
    added = []
    for key, one in changed.items():
        places = text.places.get(key, []) if key not in dropped else []
        for number in places[1:]:
            lines[number] = None
        if places:
            lines[places[0]] = _replaced(text.lines[places[0]], text.entries[key].key, one.value, encoding)
        else:
            added.append(statement(one.key, one.value, encoding).encode(encoding) + end)
    kept = [line for line in lines if line is not None]
    if added and kept and not kept[-1].endswith(b"\n"):
        kept[-1] += end
    return b"".join(kept + added)


def _replaced(raw: bytes, key: str, value: str, encoding: str) -> bytes:
    """The line with another value: its key, its blanks and its end stay."""
    match = INNER.match(raw.decode(encoding))
    start, end = (match[1], match[3]) if match else (f"{key} = ", "\n")
    return f"{start}{statement('', value, encoding)[len(' = '):]}{end}".encode(encoding)


def _as_utf8(text: Text, lines: list[bytes | None]) -> tuple[Text, list[bytes | None]]:
    """The file in UTF-8: a new value has letters that its encoding lacks."""
    def utf8(line: bytes) -> bytes:
        return line.decode(text.encoding).encode(UTF8)

    whole = [utf8(line) for line in text.lines]
    kept = [None if line is None else utf8(line) for line in lines]
    named = statement(".encoding", "UTF-8").encode() + b"\n"
    place = next((text.places[key][0] for key in (".encoding", "encoding") if key in text.places), None)
    if place is None:
        kept[0] = named + (kept[0] or b"")
    else:
        kept[place] = _replaced(whole[place], ".encoding", "UTF-8", UTF8)
    return text._replace(lines=whole, encoding=UTF8), kept
