"""The text descriptor of a VMDK: what it says, and how it is written.

Source: VMware, *Virtual Disk Format 5.0* (technical note), section "The Descriptor File".
"""

from __future__ import annotations

import codecs
import os
import re
from dataclasses import dataclass

from imgtool.errors import DamagedError, UsageError
from imgtool.formats.layer import SECTOR

MAX_DESCRIPTOR = (1 << 20) - 1
"""Bytes; what QEMU reads of one, too."""
MAX_EXTENTS = 8192
NO_PARENT = 0xFFFFFFFF
SIGNATURE = b"# disk descriptorfile"

_EXTENT = re.compile(r'^(RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Za-z0-9]+)(?:\s+"(.*)"(?:\s+(\d+))?)?.*$', re.IGNORECASE)
_PAIR = re.compile(r'^([A-Za-z0-9_.]+)\s*=(.*)$')
_ENCODING = re.compile(rb'^encoding\s*=\s*"([^"]{1,40})"', re.MULTILINE | re.IGNORECASE)

NO_CHARSETS = ("punycode", "idna", "unicode-escape", "raw-unicode-escape")
"""Python's codecs that are no character sets of a file; the first takes quadratic time."""

FLAT_TYPES = ("FLAT", "VMFS")
SPARSE_TYPES = ("SPARSE", "VMFSSPARSE", "SESPARSE")
DEVICE_TYPES = ("VMFSRDM", "VMFSRAW")


@dataclass(frozen=True)
class ExtentLine:
    """``RW 8192 FLAT "x-flat.vmdk" 0``."""

    access: str
    sectors: int
    type: str
    name: str | None = None
    offset: int = 0
    """Sectors into the file, for flat extents."""


@dataclass(frozen=True)
class Descriptor:
    pairs: dict[str, str]
    """Keys in lower case; the disk database (``ddb.*``) included."""
    extents: tuple[ExtentLine, ...]

    @property
    def create_type(self) -> str:
        return self.pairs.get("createtype", "")

    @property
    def cid(self) -> int:
        return _hex(self.pairs.get("cid", ""), 0)

    @property
    def parent_cid(self) -> int:
        return _hex(self.pairs.get("parentcid", ""), NO_PARENT)

    @property
    def parent(self) -> str | None:
        return self.pairs.get("parentfilenamehint") or None


def _hex(text: str, default: int) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return default


def is_descriptor(head: bytes) -> bool:
    """Comments and blank lines may come before the signature, a byte order mark too."""
    text = head.removeprefix(codecs.BOM_UTF8)[:4096].lower()
    for line in text.splitlines():
        if line.strip().startswith(SIGNATURE):
            return True
        if line.strip() and not line.startswith(b"#"):
            return False
    return False


def parse(raw: bytes, path: str) -> Descriptor:
    """Raises DamagedError. ``path`` only for messages."""
    if len(raw) > MAX_DESCRIPTOR:
        raise DamagedError(f"{path}: a descriptor of more than {MAX_DESCRIPTOR} bytes is impossible")
    text = _decode(raw.split(b"\0", 1)[0].removeprefix(codecs.BOM_UTF8), path)
    pairs: dict[str, str] = {}
    extents: list[ExtentLine] = []
    for line in text.splitlines():
        line = line.strip()  # noqa: PLW2901
        if not line or line.startswith("#"):
            continue
        if match := _EXTENT.match(line):
            extents.append(_extent_line(match, path))
        elif match := _PAIR.match(line):
            pairs.setdefault(match[1].lower(), _unquoted(match[2].strip()))
    if len(extents) > MAX_EXTENTS:
        raise DamagedError(f"{path}: {len(extents)} extents are more than imgtool opens ({MAX_EXTENTS})")
    if not extents or "createtype" not in pairs:
        raise DamagedError(f"{path}: the descriptor has no extents or no createType")
    if sum(line.sectors for line in extents) * SECTOR >= 1 << 63:
        raise DamagedError(f"{path}: the extents together are larger than any disk")
    return Descriptor(pairs, tuple(extents))


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _decode(raw: bytes, path: str) -> str:
    named = _ENCODING.search(raw)
    encoding = named[1].decode("ascii", "replace") if named else "utf-8"
    try:
        return raw.decode("utf-8" if codecs.lookup(encoding).name in NO_CHARSETS else encoding)
    except (LookupError, ValueError):
        if raw.isascii():
            return raw.decode("ascii")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedError(f"{path}: the descriptor is not in the encoding {encoding!r} that it names") from error


def _extent_line(match: re.Match[str], path: str) -> ExtentLine:
    sectors = int(match[2]) if len(match[2]) <= 19 else 1 << 63
    if sectors * SECTOR >= 1 << 63:
        raise DamagedError(f"{path}: an extent of {match[2][:24]} sectors is impossible")
    if match[5] and len(match[5]) > 18:
        raise DamagedError(f"{path}: an extent from sector {match[5][:24]} on is impossible")
    offset = int(match[5] or 0)
    return ExtentLine(match[1].upper(), sectors, match[3].upper(), match[4], offset)


def new_cid() -> int:
    """A content id that is neither 'no parent' nor one of the first values, which some readers take as unset."""
    return int.from_bytes(os.urandom(4)) % 0xFFFFFFFC + 2


def geometry(sectors: int, adapter: str) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track, as VMware's hosts compute them from capacity and adapter."""
    if adapter == "ide":
        return max(1, min(sectors // (16 * 63), 16383)), 16, 63
    gib = (1 << 30) // SECTOR
    heads, track = (64, 32) if sectors < gib else (128, 32) if sectors < 2 * gib else (255, 63)
    return max(1, min(sectors // (heads * track), 65535)), heads, track


def render(create_type: str, extents: tuple[ExtentLine, ...], *, adapter: str, hardware: str, tools: str | None,
           thin: bool) -> bytes:
    """The descriptor of a new disk without a parent: fresh CID, parentCID ffffffff. UTF-8."""
    lines = [
        "# Disk DescriptorFile", "version=1", 'encoding="UTF-8"', f"CID={new_cid():08x}", f"parentCID={NO_PARENT:08x}",
        f'createType="{create_type}"', "", "# Extent description",
        *(_render_extent(line) for line in extents),
        "", "# The Disk Data Base", "#DDB", "",
        *_database(sum(line.sectors for line in extents), adapter, hardware, tools, thin=thin), "",
    ]
    raw = "\n".join(lines).encode()
    if len(raw) > MAX_DESCRIPTOR:
        raise UsageError(f"{len(extents)} extents do not fit into a VMDK descriptor", "choose another subformat")
    return raw


def _render_extent(line: ExtentLine) -> str:
    offset = f" {line.offset}" if line.type == "FLAT" else ""
    return f'{line.access} {line.sectors} {line.type} "{line.name}"{offset}'


def _database(sectors: int, adapter: str, hardware: str, tools: str | None, *, thin: bool) -> list[str]:
    cylinders, heads, track = geometry(sectors, adapter)
    values = {"adapterType": adapter, "encoding": "UTF-8", "geometry.cylinders": cylinders, "geometry.heads": heads,
              "geometry.sectors": track, "longContentID": os.urandom(16).hex(), "uuid": _disk_uuid()}
    if thin:
        values["thinProvisioned"] = 1
    if tools:
        values["toolsVersion"] = tools
    values["virtualHWVersion"] = hardware
    return [f'ddb.{key} = "{value}"' for key, value in values.items()]


def _disk_uuid() -> str:
    """VMware's form: 16 bytes, the first three 60 00 C2, a dash in the middle."""
    pairs = ["60", "00", "C2", "9" + os.urandom(1).hex()[0], *(f"{byte:02x}" for byte in os.urandom(12))]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])
