"""``.vmsd`` and ``.vmxf``, the files beside a ``.vmx``: both in an input, with a zero byte between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgtool.descriptions.vmx import belongs_to, snapshots
from tools.fuzz.descriptions import FIXTURES
from tools.fuzz.target import Reader, Target


def seeds(folder: Path) -> Iterator[bytes]:
    for path in (FIXTURES / "folders").glob("*.vmsd"):
        yield path.read_bytes() + (b"\0<Foundry><VM><vmxPathName type=\"string\">a&amp;b.vmx</vmxPathName></VM></Foundry>")


def reader(folder: Path) -> Reader:
    def read(data: bytes) -> None:
        vmsd, _, vmxf = data.partition(b"\0")
        belongs_to(vmxf)
        snapshots(vmsd)

    return read


TARGET = Target(seeds, reader, (b"snapshot0", b".uid", b".disk0.fileName", b".createTimeHigh", b".parent", b".encoding", b"-1",
                                b"<vmxPathName", b"</vmxPathName>", b"&#x"), largest=8192)
