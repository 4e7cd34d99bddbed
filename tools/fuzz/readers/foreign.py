"""VHDX, VHD, VDI, and what any file is taken for: what is read here before qemu-img is asked, which is not asked.

The first byte of an input chooses the file's name. A VHDX has its tables far apart: an input has them one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixtures.patterns import write_raw
from imgtool import qemu
from imgtool.formats.disk import open_disk
from imgtool.formats.foreign import VHDX_FILE_PARAMETERS, VHDX_METADATA_REGION, VHDX_REGIONS_AT
from tools.fuzz.images import by_qemu
from tools.fuzz.target import Reader, Target

NAMES = ("x.vhdx", "x.vhd", "x.vdi", "x.img", "x.raw", "x-flat.vmdk", "x-s001.vmdk", "x.qcow2")
METADATA = 3 << 20
"""Where QEMU writes it."""
PLACES = ((0, 16), (VHDX_REGIONS_AT, 128), (METADATA, 256), (METADATA + (64 << 10), 64))


def seeds(folder: Path) -> Iterator[bytes]:
    raw = write_raw(folder / "raw", "4k:A 60k:-")
    for number, fmt in enumerate(("vhdx", "vpc", "vdi")):
        whole = by_qemu(folder, raw, ["-O", fmt], Path(NAMES[number]).suffix)
        head = b"".join(whole[at:at + length] for at, length in PLACES) if fmt == "vhdx" else whole[:8192]
        yield bytes([number]) + head


def reader(folder: Path) -> Reader:
    qemu.info = lambda *_words, **_options: {"virtual-size": 1 << 20, "cluster-size": 65536}  # type: ignore[assignment]

    def read(data: bytes) -> None:
        path = folder / NAMES[data[0] % len(NAMES) if data else 0]
        path.write_bytes(data[1:])
        if path.suffix == ".vhdx":
            _spread(path, data[1:])
        with open_disk(str(path)):
            pass

    return read


def _spread(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for at, length in PLACES:
            file.seek(at)
            file.write(data[:length])
            data = data[length:]


TARGET = Target(seeds, reader, (b"vhdxfile", b"conectix", b"regi", b"metadata", VHDX_METADATA_REGION.bytes_le,
                                VHDX_FILE_PARAMETERS.bytes_le, b"\x7f\x10\xda\xbe", b"QFI\xfb", b"KDMV"), largest=9 << 10)
