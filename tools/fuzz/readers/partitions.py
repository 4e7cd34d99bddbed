"""GPT and MBR: read, and made to fit other disks; what is in the partitions.

An input is the beginning and the end of a disk. Where its first byte asks for it, the checksums of the GPT are made right: no
fuzzer guesses them.
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imgtool.errors import ImgtoolError
from imgtool.model.partitions import Fit, TableKind
from imgtool.partitions import read_table
from imgtool.partitions.fit import fit
from tools.fuzz.target import Reader, Target

SIZE = 2 << 20
HEAD, TAIL = 36 * 512, 34 * 512
LAYOUTS = (
    "label: gpt\nfirst-lba: 34\nstart=64, size=512\nstart=1024, size=512, type=21686148-6449-6E6F-744E-656564454649\n"
    "start=2048, size=1024\n",
    "label: dos\nstart=8, size=3000, type=5\nstart=3072, size=512, type=7\nstart=20, size=4, type=83\n"
    "start=30, size=100, type=83\n",
    "label: gpt\n")
MENDED = {1: 512, 2: 4096}


def seeds(folder: Path) -> Iterator[bytes]:
    disk = folder / "disk"
    for layout in LAYOUTS:
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["sfdisk", "--quiet", disk], input=layout, text=True, check=True, capture_output=True)
        data = disk.read_bytes()
        for mended in (0, 1):
            yield bytes([mended]) + data[:HEAD] + data[-TAIL:]


def reader(folder: Path) -> Reader:
    def read(data: bytes) -> None:
        disk = bytearray(SIZE)
        disk[:len(data[1:HEAD + 1])] = data[1:HEAD + 1]
        if tail := data[HEAD + 1:]:
            disk[-len(tail):] = tail
        if sector := MENDED.get(data[0] % 4 if data else 0):
            _mend(disk, sector)
        _fitted(disk)

    return read


def _mend(disk: bytearray, sector: int) -> None:
    """Right checksums of the first GPT, whatever it says."""
    length, = struct.unpack_from("<I", disk, sector + 12)
    array, count, each = struct.unpack_from("<QII", disk, sector + 72)
    if length <= sector and count * each <= 1 << 20:
        struct.pack_into("<I", disk, sector + 88, zlib.crc32(disk[array * sector:array * sector + count * each]))
        struct.pack_into("<I", disk, sector + 16, 0)
        struct.pack_into("<I", disk, sector + 16, zlib.crc32(disk[sector:sector + length]))


def _fitted(disk: bytearray) -> None:
    def at(offset: int, length: int) -> bytes:
        assert offset >= 0, "asked for what is before the disk"
        assert length <= 16 << 20, "asked for a lot"
        return bytes(disk[offset:offset + length])

    for sector in (None, 512, 4096):
        table = read_table(at, len(disk), sector)
        for size, new, grow in ((len(disk), 512, False), (len(disk) * 2, 512, True), (len(disk), 4096, False),
                                (len(disk) * 2, 4096, True), (len(disk) // 2, 512, False)):
            with suppress(ImgtoolError):
                _check(fit(table, at, size, new, grow=grow), size, sound=table.kind is not TableKind.NONE)


def _check(made: Fit, size: int, *, sound: bool) -> None:
    for patch in made.patches:
        assert sound, "a table is written where there was none"
        assert 0 <= patch.offset <= patch.offset + len(patch.data) <= size, "a patch outside of the disk"


TARGET = Target(seeds, reader, (b"EFI PART", b"\x55\xaa", b"\xee", b"\x05", b"\x0f", b"\x85", b"\x42", b"XFSB", b"_BHRfS_M",
                                b"SWAPSPACE2", b"FAT", b"\x53\xef", struct.pack("<Q", 1 << 55), struct.pack("<Q", (1 << 64) - 1)),
                largest=HEAD + TAIL + 1)
