"""Maps of bad sectors in ddrescue's format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgtool.endpoints.metal.rescue import BadSectors
from tools.fuzz.target import Reader, Target

SIZE = 0x100000


def seeds(folder: Path) -> Iterator[bytes]:
    yield b"# Mapfile\n0x0 + 1\n0x00000000 0x00080000 +\n0x00080000 0x00000200 -\n0x00080200 0x0007FE00 ?\n"


def reader(folder: Path) -> Reader:
    path = folder / "map"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for start, end in BadSectors(str(path), SIZE, 512):
            assert 0 <= start < end <= SIZE, "a bad sector outside of the disk"

    return read


TARGET = Target(seeds, reader, (b"0x", b" + \n", b" - \n", b"0x100000", b"#", b"0x0", b"0x80000"), largest=2048)
