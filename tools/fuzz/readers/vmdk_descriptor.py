"""VMDK descriptors: text that names extents and a parent, which are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixtures import vmdk_kinds
from tools.fuzz.images import look
from tools.fuzz.readers.vmdk_sparse import WORDS
from tools.fuzz.target import Reader, Target

CONTENT = "64k:A 64k:-"


def seeds(folder: Path) -> Iterator[bytes]:
    base = vmdk_kinds.write("vmfs", folder, "base", CONTENT)
    for kind in ("vmfs", "monolithicFlat", "vmfsExtents", "twoGbMaxExtentSparse"):
        yield vmdk_kinds.write(kind, folder, "x", CONTENT).path.read_bytes()
    yield vmdk_kinds.write("vmfsSparse", folder, "x", "4k:C 124k:.", parent=base).path.read_bytes()


def reader(folder: Path) -> Reader:
    path = folder / "x.vmdk"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        look(path)

    return read


TARGET = Target(seeds, reader, (*WORDS, b"RDMP", b"NOACCESS", b"keysafe", b"99999999999999999999"), largest=4096)
