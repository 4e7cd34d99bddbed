"""streamOptimized VMDKs as they come over a network, from the beginning to the end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from fixtures import vmdk_kinds
from imgtool.errors import DamagedError
from imgtool.formats.vmdk.unstream import grains
from tools.fuzz.readers.vmdk_sparse import WORDS
from tools.fuzz.target import Reader, Target

SIZE = 192 << 10


def seeds(folder: Path) -> Iterator[bytes]:
    yield vmdk_kinds.write("streamOptimized", folder, "x", "64k:a 64k:- 64k:a").path.read_bytes()
    yield vmdk_kinds.write("streamOptimized", folder, "x", "4k:A 188k:-").path.read_bytes()


def reader(folder: Path) -> Reader:
    def read(data: bytes) -> None:
        file, end = io.BytesIO(data), 0

        def take(count: int) -> bytes:
            taken = file.read(count)
            if len(taken) < count:
                raise DamagedError("it ends early")
            return taken

        for start, piece in grains(take, SIZE, "x"):
            assert end <= start < start + len(piece) <= SIZE, "a piece outside of the disk, or out of order"
            end = start + len(piece)

    return read


TARGET = Target(seeds, reader, WORDS, largest=96 << 10)
