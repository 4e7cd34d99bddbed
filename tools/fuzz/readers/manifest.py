"""The manifest of an OVF package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgtool.ova.manifest import parse_manifest
from tools.fuzz.target import Reader, Target


def seeds(folder: Path) -> Iterator[bytes]:
    yield b"SHA256(a.vmdk)= " + b"0" * 64 + b"\nSHA1 (b c.ovf) = " + b"a" * 40 + b"\r\n"
    yield b"\xef\xbb\xbfSHA-512(\xff)= " + b"f" * 128 + b"\n\nwhat is this\n"


def reader(folder: Path) -> Reader:
    def read(data: bytes) -> None:
        found, _ = parse_manifest(data)
        assert all(len(one.digest) in (40, 64, 128) for one in found)

    return read


TARGET = Target(seeds, reader, (b"SHA1(", b"SHA256(", b"SHA-512 (", b")= ", b"0" * 40), largest=4096)
