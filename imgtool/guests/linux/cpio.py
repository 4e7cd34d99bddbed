"""cpio archives as the kernel unpacks them: the "newc" format (Linux: driver-api/early-userspace/buffer-format.rst).

A header of 110 bytes: magic ``070701`` (``070702`` with checksums), then 13 numbers of 8 hexadecimal digits; name and data
follow, each filled up with zeros to a multiple of 4 bytes. ``TRAILER!!!`` ends an archive.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from imgtool.errors import DamagedError

MAGICS = (b"070701", b"070702")
HEADER = 110
NUMBERS = re.compile(rb"[0-9A-Fa-f]{104}")
TRAILER = "TRAILER!!!"
MAX_NAME = 4096
"""PATH_MAX of Linux."""
MAX_ENTRIES = 500_000
"""A full initramfs of a distribution has 5000."""
SKIP = 1 << 16
FOLDER = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
LINK = stat.S_IFLNK | 0o777


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of an archive. ``data`` of a link is where it points; None: it was not asked for."""

    name: str
    """Without a leading slash or dot: ``usr/lib/modules``."""
    mode: int
    size: int
    data: bytes | None


class Stream:
    """Bytes that come in pieces, read by length. ``taken`` counts them."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""
        self._at = 0
        self.taken = 0

    def peek(self, length: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self._buffer) - self._at < length and (piece := next(self._pieces, None)) is not None:
            self._buffer = self._buffer[self._at:] + piece
            self._at = 0
        return self._buffer[self._at:self._at + length]

    def read(self, length: int) -> bytes:
        """Raises DamagedError if there are fewer."""
        found = self.peek(length)
        if len(found) < length:
            raise DamagedError("the cpio archive is cut off")
        self._at += length
        self.taken += length
        return found

    def skip(self, length: int) -> None:
        """Raises DamagedError if there are fewer."""
        while length:
            step = min(length, SKIP)
            self.read(step)
            length -= step

    def skip_zeros(self) -> None:
        """What may stand between archives."""
        while piece := self.peek(SKIP):
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            self.read(zeros)
            if zeros < len(piece):
                return


def read(stream: Stream, keep: Callable[[str, int], bool]) -> Iterator[Entry]:
    """The entries up to the trailer. ``keep(name, size)`` says whose data is wanted. Raises DamagedError."""
    start = stream.taken
    for _ in range(MAX_ENTRIES):
        header = stream.read(HEADER)
        if header[:6] not in MAGICS or not NUMBERS.fullmatch(header, 6):
            raise DamagedError("the cpio archive has a damaged header")
        numbers = [int(header[at:at + 8], 16) for at in range(6, HEADER, 8)]
        mode, size, length = numbers[1], numbers[6], numbers[11]
        if not 0 < length <= MAX_NAME:
            raise DamagedError("the cpio archive has a name that is too long")
        name = stream.read(length).rstrip(b"\0").decode("utf-8", "surrogateescape")
        stream.skip(-(stream.taken - start) % 4)
        if name == TRAILER:
            return
        name = name.removeprefix("./").strip("/")
        wanted = keep(name, size) or (stat.S_ISLNK(mode) and size <= MAX_NAME)
        data = stream.read(size) if wanted else None
        stream.skip(0 if wanted else size)
        stream.skip(-(stream.taken - start) % 4)
        yield Entry(name=name, mode=mode, size=size, data=data)
    raise DamagedError("the cpio archive has too many files")


def write(entries: Iterable[Entry]) -> bytes:
    """An archive: files of root, without times, so that the same files give the same bytes."""
    parts = [_record(number, entry.name, entry.mode, entry.data or b"") for number, entry in enumerate(entries, start=1)]
    parts.append(_record(0, TRAILER, 0, b""))
    return b"".join(parts)


def _record(inode: int, name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode("utf-8", "surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
