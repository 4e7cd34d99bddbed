"""The files beside a ``.vmx``: ``.vmsd`` (snapshots) and ``.vmxf`` (which machine it belongs to).

The ``.nvram`` is of VMware's own format: it is only named (``Firmware.nvram``).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import takewhile

from imgtool.descriptions.vmx.text import Text, take_apart
from imgtool.model.machine import MachineSnapshot

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WORD = 1 << 32
MAX_SNAPSHOTS, MAX_DISKS = 4096, 256
VMX_NAME = re.compile(rb"<vmxPathName[^>]{0,200}>([^<]{1,4096})</vmxPathName>")


def snapshots(vmsd: bytes) -> tuple[MachineSnapshot, ...]:
    """The snapshots that a ``.vmsd`` lists, in its order. An empty file lists none. A ``.vmsd`` does not tell whether a snapshot
    holds the machine's memory. Raises DamagedError if it is none."""
    if not vmsd.strip():
        return ()
    text = take_apart(vmsd, what=".vmsd file")
    numbers = {int(match[1]) for key in text.entries if (match := re.fullmatch(r"snapshot(\d{1,4})\.uid", key))}
    return tuple(_snapshot(text, f"snapshot{number}") for number in sorted(numbers)[:MAX_SNAPSHOTS])


def _snapshot(text: Text, head: str) -> MachineSnapshot:
    def get(key: str) -> str | None:
        entry = text.entries.get(f"{head}.{key}".lower())
        return entry.value or None if entry else None

    disks = takewhile(bool, (get(f"disk{number}.fileName") for number in range(MAX_DISKS)))
    uid = get("uid")
    return MachineSnapshot(name=get("displayName") or uid or head, id=uid, parent=get("parent"),
                           created=_created(get("createTimeHigh"), get("createTimeLow")), disks=tuple(filter(None, disks)))


def _created(high: str | None, low: str | None) -> str | None:
    """Two signed halves of a count of microseconds since 1970, as RFC 3339."""
    if not high or not low or not all(re.fullmatch("-?[0-9]{1,10}", half) for half in (high, low)):
        return None
    micros = (int(high) << 32) + int(low) % WORD
    try:
        return (EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return None


def belongs_to(vmxf: bytes) -> str | None:
    """The name of the ``.vmx`` that a ``.vmxf`` was made for; None where it does not say. After a copy it may be another."""
    match = VMX_NAME.search(vmxf)
    return unescape(match[1].decode("utf-8", "replace")).strip() if match else None
