"""Bytes of disks, for comparing."""

from __future__ import annotations

import os
import random
from pathlib import Path

from fixtures.run import run

MIB = 1 << 20


class Bytes:
    """A sink."""

    def __init__(self, size: int) -> None:
        self.data, self.seen = bytearray(b"\xaa" * size), 0

    def write(self, offset: int, data: memoryview) -> None:
        assert offset // MIB == (offset + len(data) - 1) // MIB
        self.data[offset:offset + len(data)] = data
        self.seen += len(data)

    def zero(self, offset: int, length: int) -> None:
        self.data[offset:offset + length] = bytes(length)
        self.seen += length


def qcow2(path: Path, *, size: int = 16 * MIB, backing: Path | None = None) -> Path:
    below = ["-b", backing, "-F", "qcow2"] if backing else []
    run(["qemu-img", "create", "-q", "-f", "qcow2", *below, path, str(size)])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 2M", path])
    return path


def expected(path: Path, form: str, tmp_path: Path) -> bytes:
    """What a guest reads, by qemu-img."""
    run(["qemu-img", "convert", "-f", form, "-O", "raw", path, tmp_path / "oracle.raw"])
    return (tmp_path / "oracle.raw").read_bytes()


def noise(path: Path, mib: int) -> Path:
    """A qcow2 image full of bytes that differ everywhere, with a hole in its middle."""
    generator = random.Random(7)
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        for number in range(mib):
            if number % 4 == 3:
                file.seek(MIB, os.SEEK_CUR)
            else:
                file.write(generator.randbytes(MIB))
        file.truncate(mib * MIB)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
    raw.unlink()
    return path
