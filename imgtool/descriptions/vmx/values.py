"""How single values stand in a ``.vmx``: each codec reads a text, raising ValueError, and writes what it reads."""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from imgtool.model.devices import DiskMode
from imgtool.model.machine import FirmwareKind

MIB = 1 << 20
MEMORY_STEP = 4 * MIB
"""memSize is a multiple of it."""
MAX_MIB = 1 << 30
MAX_NUMBER = 1 << 31
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
UNLIMITED = ("unlimited", "-1", "off", "max")
CPU_SHARES, MEMORY_SHARES = (500, 2000), (5, 20)
"""Low and high, of each virtual CPU (and of each disk) and of each MiB; normal says nothing."""


class Codec(NamedTuple):
    read: Callable[[str], Any]
    """None: the value says nothing."""
    write: Callable[[Any], str]


class Field(NamedTuple):
    field: str
    """Of Machine, or of a device."""
    key: str
    """Of the ``.vmx``, or what follows the device's name there."""
    codec: Codec


def boolean(text: str) -> bool:
    """TRUE or FALSE, in any case, and their kin. Raises ValueError."""
    word = text.strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise ValueError("neither TRUE nor FALSE")


def number(text: str, *, least: int = 0, most: int = MAX_NUMBER) -> int:
    """A whole number within bounds. Raises ValueError."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", text):
        raise ValueError("no number")
    value = int(text)
    if not least <= value <= most:
        raise ValueError(f"not between {least} and {most}")
    return value


def numbers(least: int = 0, most: int = MAX_NUMBER, *, unit: int = 1, unlimited: bool = False) -> Codec:
    """Whole numbers, in ``unit``; with ``unlimited`` a word for that means None."""
    def read(text: str) -> int | None:
        if not text.strip() or (unlimited and text.strip().lower() in UNLIMITED):
            return None
        return number(text, least=least, most=most) * unit

    return Codec(read, lambda value: str(-(-value // unit)))


def words(table: Mapping[str, Any]) -> Codec:
    """One of these words, in any case; the first word of a value is the one written."""
    back: dict[Any, str] = {}
    for word, value in table.items():
        back.setdefault(value, word)
    lower = {word.lower(): value for word, value in table.items()}

    def read(text: str) -> Any:
        if text.strip().lower() not in lower:
            raise ValueError(f"not one of {', '.join(table)}")
        return lower[text.strip().lower()]

    return Codec(read, lambda value: back[value])


def shares(of_each: tuple[int, int], count: int = 1) -> Codec:
    """A weight of ``count`` things: a word or a number; ``normal`` says nothing."""
    table = {"low": of_each[0] * count, "normal": None, "high": of_each[1] * count}

    def read(text: str) -> int | None:
        word = text.strip().lower()
        return table[word] if word in table else numbers().read(word)

    return Codec(read, str)


def _uuid(text: str) -> str | None:
    digits = re.sub(r"[\s{}-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        raise ValueError("not 16 bytes in hexadecimal")
    return str(uuid.UUID(digits)) if digits.strip("0") else None


def _vmware_uuid(value: str) -> str:
    digits = uuid.UUID(value).hex
    pairs = [digits[at:at + 2] for at in range(0, 32, 2)]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])


def _mac(text: str) -> str | None:
    digits = re.sub(r"[\s:.-]", "", text).lower()
    if not digits:
        return None
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("not 6 bytes in hexadecimal")
    return ":".join(digits[at:at + 2] for at in range(0, 12, 2))


def _name(text: str) -> str:
    return re.sub("%(2f|5c|25)", lambda match: bytes.fromhex(match[1]).decode(), text, flags=re.IGNORECASE)


def _vmware_name(value: str) -> str:
    return re.sub(r"[/\\%]", lambda match: f"%{ord(match[0]):02x}", value)


def genid(first: str, second: str) -> str:
    """Two signed 64-bit numbers → the GUID that a Windows guest sees: their bytes, little-endian, are those of the GUID's
    structure. Raises ValueError."""
    low, high = (number(text, least=-(1 << 63), most=(1 << 63) - 1) for text in (first, second))
    return str(uuid.UUID(bytes_le=struct.pack("<qq", low, high)))


def vmware_genid(value: str) -> tuple[str, str]:
    """The reverse of ``genid``. Raises ValueError."""
    low, high = struct.unpack("<qq", uuid.UUID(value).bytes_le)
    return str(low), str(high)


def _affinity(text: str) -> tuple[int, ...]:
    if text.strip().lower() in {"all", ""}:
        return ()
    return tuple(number(part, most=MAX_CPUS) for part in text.split(","))


MAX_CPUS = 4096
BOOL = Codec(boolean, lambda value: "TRUE" if value else "FALSE")
TEXT = Codec(str, str)
SAID = Codec(lambda text: text or None, str)
"""Where an empty text says nothing."""
NAME = Codec(_name, _vmware_name)
UUID = Codec(_uuid, _vmware_uuid)
MAC = Codec(_mac, str)
COUNT = numbers(1, MAX_CPUS)
MEGABYTES = numbers(0, MAX_MIB, unit=MIB, unlimited=True)
MHZ = numbers(unlimited=True)
AFFINITY = Codec(_affinity, lambda value: ",".join(map(str, value)))
DISK_SHARES = shares(CPU_SHARES)
MODE = words({**{str(mode): mode for mode in DiskMode}, "nonpersistent": DiskMode.NONPERSISTENT, "append": DiskMode.UNDOABLE})
FIRMWARE = words({"efi": FirmwareKind.UEFI, "bios": FirmwareKind.BIOS})
