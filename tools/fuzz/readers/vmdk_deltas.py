"""Redo logs of ESXi: vmfsSparse (COWD) and seSparse. An input is the tables; the rest of the file is as it was made.

Where an input ends early, the file ends there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fixtures import vmdk_kinds
from tools.fuzz.images import look
from tools.fuzz.target import Reader, Target

BASE, DELTA = "64k:A 192k:-", "4k:C 60k:. 4k:- 188k:."
Places = list[tuple[int, int]]
"""Offsets and lengths of tables in the file."""


def _made(folder: Path, kind: str) -> tuple[Path, Path]:
    base = vmdk_kinds.write("vmfs", folder, "base", BASE)
    image = vmdk_kinds.write(kind, folder, "x", DELTA, parent=base)
    return image.path, image.files[-1]


def seeds(folder: Path, kind: str, places: Places) -> Iterator[bytes]:
    whole = _made(folder, kind)[1].read_bytes()
    yield b"".join(whole[at:at + length] for at, length in places)


def reader(folder: Path, kind: str, places: Places) -> Reader:
    path, spoilt = _made(folder, kind)
    size = spoilt.stat().st_size

    def read(data: bytes) -> None:
        with spoilt.open("r+b") as file:
            file.truncate(size)
            for at, length in places:
                part, data = data[:length], data[length:]
                file.seek(at)
                file.write(part)
                if len(part) < length:
                    file.truncate(at + len(part))
                    break
        look(path)

    return read


def _target(kind: str, places: Places) -> Target:
    return Target(partial(seeds, kind=kind, places=places), partial(reader, kind=kind, places=places),
                  largest=sum(length for _, length in places))


COWD = _target("vmfsSparse", [(0, 64), (2048, 64), (2560, 256)])
SESPARSE = _target("seSparse", [(0, 208), (512, 32), (4096 * 512, 64), (4160 * 512, 512)])
