"""An initramfs of a guest: cpio archives, packed or not, one behind the other."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from pathlib import Path

from imgtool.guests.linux import compression, cpio, initramfs
from tools.fuzz.target import Reader, Target

ENTRIES = [
    cpio.Entry(name="conf", mode=cpio.FOLDER, size=0, data=None), cpio.Entry(name="lib", mode=cpio.LINK, size=7, data=b"usr/lib"),
    cpio.Entry(name="conf/initramfs.conf", mode=cpio.FILE, size=9, data=b"MODULES=1"),
    cpio.Entry(name="usr/lib/modules/6.1/kernel/a.ko", mode=cpio.FILE, size=3, data=b"abc"),
    cpio.Entry(name="usr/lib/modules/6.1/modules.dep", mode=cpio.FILE, size=12, data=b"kernel/a.ko:")]


def seeds(folder: Path) -> Iterator[bytes]:
    plain = cpio.write(ENTRIES)
    for packing in compression.WRITABLE:
        yield compression.pack(plain, packing)
        yield plain + bytes(512) + compression.pack(plain, packing) + bytes(8)
    yield bz2.compress(plain)
    yield plain + plain


def reader(folder: Path) -> Reader:
    path = folder / "initramfs"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found = initramfs.read(str(path))
        assert found.end <= len(data)
        found.modules("6.1")
        for name in [*found.names][:100]:
            found.real(name)

    return read


TARGET = Target(seeds, reader, largest=8192, words=(
    *compression.MAGICS, *cpio.MAGICS, b"TRAILER!!!", b"00000000", b"FFFFFFFF", b"0000A1FF", b"000081A4", b"000041ED", b"conf/x",
    b"../", b"usr/lib/modules/6.1/"))
