"""streamOptimized VMDKs, read at any place: footer, markers, compressed grains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixtures import vmdk_kinds
from tools.fuzz.readers.vmdk_sparse import WORDS, reader
from tools.fuzz.target import Target


def seeds(folder: Path) -> Iterator[bytes]:
    yield vmdk_kinds.write("streamOptimized", folder, "x", "64k:a 64k:- 64k:a").path.read_bytes()
    yield vmdk_kinds.write("streamOptimized", folder, "x", "4k:A 60k:- 4k:a", clip_last=True).path.read_bytes()


TARGET = Target(seeds, reader, WORDS, largest=96 << 10)
