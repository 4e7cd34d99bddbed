"""Sparse VMDKs of one file: header, descriptor in it, grain directory, grain tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from fixtures import vmdk_kinds
from tools.fuzz.images import Compared
from tools.fuzz.target import Reader, Target

CONTENT = "4k:A 4k:- 8k:a 16k:- 4k:0 4k:B 84k:-"
STYLES: tuple[dict[str, object], ...] = (
    {}, {"zeroed_grains": True, "seed": 1}, {"redundant": False, "unclean": True})


def seeds(folder: Path) -> Iterator[bytes]:
    for style in STYLES:
        yield vmdk_kinds.write("monolithicSparse", folder, "x", CONTENT, grain=8, **style).path.read_bytes()


def reader(folder: Path) -> Reader:
    path, look = folder / "x.vmdk", Compared("vmdk")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        look(path)

    return read


WORDS = (b"KDMV", b"COWD", b"RW ", b"SPARSE", b"FLAT", b"ZERO", b"VMFS", b"SESPARSE", b"parentCID=",
         b"parentFileNameHint=", b"createType=", b"monolithicSparse", b"streamOptimized", b"x.vmdk", b"x-flat.vmdk", b"base.vmdk",
         b"encoding=", b"utf-16",
         *(struct.pack("<I", value) for value in (1, 0xFFFFFFFF, 1 << 16, 1 << 17, 4)),
         *(struct.pack("<Q", value) for value in ((1 << 64) - 1, 1 << 54, 1 << 55)))
TARGET = Target(seeds, reader, WORDS)
