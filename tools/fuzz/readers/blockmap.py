"""Block maps of unfinished copies: another version's, torn, or a stranger's."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from imgtool.journal import FORMAT, VERSION, block_map, events
from tools.fuzz.target import Reader, Target

SIZE, CHUNK = (10 << 20) + 512, 1 << 20
SOURCE = {"path": "/x", "mtime": 5}


def seeds(folder: Path) -> Iterator[bytes]:
    head = {"format": FORMAT, "version": VERSION, "size": SIZE, "chunk": CHUNK, "source": SOURCE}
    records = b""
    for number in (0, 3, 10, 3):
        record = struct.pack("<Q16sB3x", number, b"d" * 16, number == 3)
        records += record + struct.pack("<I", zlib.crc32(record))
    yield json.dumps(head).encode() + b"\n" + records
    yield json.dumps(head).encode()[:20]


def reader(folder: Path) -> Reader:
    path = folder / "map"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for _ in events(path):
            pass
        with block_map(str(path), size=SIZE, chunk=CHUNK, source=SOURCE) as blocks:
            left = sum(length for _, _, length in blocks.missing())
            assert left + blocks.done == SIZE, "what is there and what is missing are not the disk"

    return read


TARGET = Target(seeds, reader, (b'"version": 1', b'"source": ', b"null", b"\n", b"[[[[[[[["), largest=4096)
