"""What an initramfs is packed with: told by its first bytes, unpacked as a stream, packed again.

The kernel knows these from ``lib/decompress.c``; how it goes from one archive to the next stands in ``init/initramfs.c``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from imgtool import codec
from imgtool.errors import DamagedError

MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"\x5d\0\0": "lzma", b"BZh": "bzip2",
          b"\x02\x21\x4c\x18": "lz4", b"\x89LZO": "lzo"}
PIECE = 4096
"""Packed bytes at a time: 4 KiB of zstd can mean 128 MiB."""
MAX_MEMORY = 512 << 20
"""For an xz dictionary."""
MAX_UNPACKED = 4 << 30
"""Bytes. The largest of a distribution (all drivers and firmware) have 0.5 GiB."""
LZ4_MAGIC = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20
"""Of the legacy frame, which is what the kernel reads (lz4_Frame_format.md)."""
WRITABLE = ("gzip", "zstd", "xz", "lz4")
"""What ``pack`` makes; the others can stand beside an archive that is not packed, which every kernel reads."""


class Unpacker(Protocol):
    """As in zlib, bz2, lzma and zstandard."""

    @property
    def unused_data(self) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


UNPACKERS: dict[str, Callable[[], Unpacker]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), "zstd": codec.ZstdUnpacker, "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, MAX_MEMORY),
}


def kind(head: bytes) -> str | None:
    """gzip, zstd, …; None for what is none of them."""
    return next((name for magic, name in MAGICS.items() if head.startswith(magic)), None)


def unpack(file: BinaryIO, name: str) -> Iterator[bytes]:
    """What one stream at the place of ``file`` unpacks to; at the end the file stands behind it. Raises DamagedError."""
    total = 0
    for piece in (_lz4(file) if name == "lz4" else _unpack(file, UNPACKERS[name]())):
        total += len(piece)
        if total > MAX_UNPACKED:
            raise DamagedError(f"the initramfs unpacks to more than {MAX_UNPACKED >> 30} GiB")
        yield piece


def _unpack(file: BinaryIO, unpacker: Unpacker) -> Iterator[bytes]:
    try:
        while not unpacker.eof:
            if not (packed := file.read(PIECE)):
                raise DamagedError("the initramfs is cut off")
            yield unpacker.decompress(packed)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, codec.zstd_error()) as error:
        raise DamagedError(f"the initramfs is damaged: {error}") from error
    file.seek(-len(unpacker.unused_data), 1)


def _lz4(file: BinaryIO) -> Iterator[bytes]:
    """Blocks with their lengths before them, until a length that is 0, or the end. Another magic goes on with the stream."""
    while len(head := file.read(4)) == 4:
        length = int.from_bytes(head, "little")
        if head == LZ4_MAGIC:
            continue
        if length == 0 or length > 2 * LZ4_BLOCK:
            file.seek(-4, 1)
            return
        block = codec.unlz4(file.read(length), LZ4_BLOCK)
        if not block:
            raise DamagedError("the initramfs has a damaged lz4 block")
        yield block


def pack(data: bytes, name: str) -> bytes:
    """Packed as the kernel reads it: xz with CRC32 only, lz4 in the legacy frame. The same data give the same bytes."""
    if name == "gzip":
        packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        return packer.compress(data) + packer.flush()
    if name == "zstd":
        return codec.zstd(data, level=9)
    if name == "xz":
        return lzma.compress(data, check=lzma.CHECK_CRC32)
    if name == "lz4":
        blocks = [codec.lz4(data[at:at + LZ4_BLOCK]) for at in range(0, len(data), LZ4_BLOCK)]
        return LZ4_MAGIC + b"".join(len(block).to_bytes(4, "little") + block for block in blocks)
    return data
