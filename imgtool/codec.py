"""Compression by libraries: DEFLATE by ISA-L (fast) and libdeflate (small), zstd, lz4. All let go of the interpreter lock.

What is inflated comes from strangers: the length of the result is always bounded. DEFLATE: RFC 1951, its zlib frame: RFC 1950.
"""

from __future__ import annotations

import zlib
from typing import cast

ISAL_LEVELS = {1: 1, 2: 2, 3: 3}
"""Levels up to 3 are ISA-L's, those above libdeflate's. Figures: ``bench/RESULTS.md``."""
DEFAULT_LEVEL = 2
"""On Intel, level 3 takes twice the time of 2, for 1 % less."""
DEFAULT_ZSTD = 3
QCOW2_WINDOW = 12
"""QEMU inflates with a window of 2^12 bytes: what it reads must have been made with no larger one (block/qcow2-threads.c)."""

MAX_ZSTD_WINDOW = 128 << 20
"""Bytes. ``zstd --ultra -22`` uses as much; the kernel takes no more."""


def deflate_zlib(data: bytes | memoryview, level: int = DEFAULT_LEVEL) -> bytes:
    """DEFLATE in zlib's frame, levels 1 to 9."""
    if level in ISAL_LEVELS:
        from isal import isal_zlib

        return isal_zlib.compress(data, ISAL_LEVELS[level])
    import deflate

    return bytes(deflate.zlib_compress(data, level))


def deflate_window(data: bytes | memoryview, level: int = DEFAULT_LEVEL) -> bytes:
    """Bare DEFLATE that a reader with QCOW2_WINDOW can inflate, levels 1 to 9."""
    if level in ISAL_LEVELS:
        from isal import isal_zlib

        packer = isal_zlib.compressobj(ISAL_LEVELS[level], isal_zlib.DEFLATED, -QCOW2_WINDOW)
        return packer.compress(data) + packer.flush()
    slow = zlib.compressobj(level, zlib.DEFLATED, -QCOW2_WINDOW)
    return slow.compress(data) + slow.flush()


def inflate(payload: bytes, size: int, *, bare: bool = False) -> bytes | bytearray:
    """At most ``size`` bytes; what follows the stream is ignored. b"" if it is damaged.

    libdeflate is the faster, but gives nothing for a stream that is cut off or longer: what there is then, ISA-L gives.
    """
    import deflate

    try:
        return deflate.deflate_decompress(payload, size) if bare else deflate.zlib_decompress(payload, size)
    except deflate.DeflateError:
        return _inflate_start(payload, size, bare=bare)


def _inflate_start(payload: bytes, size: int, *, bare: bool) -> bytes:
    """The first bytes of a stream that may have no end."""
    from isal import isal_zlib

    broken = cast("type[Exception]", isal_zlib.error)
    try:
        return isal_zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS).decompress(payload, size)
    except broken:
        return b""


def zstd(data: bytes | memoryview, level: int = DEFAULT_ZSTD) -> bytes:
    """One zstd frame (RFC 8878)."""
    import zstandard

    return zstandard.ZstdCompressor(level=level, write_content_size=False).compress(data)


def unzstd(payload: bytes, size: int) -> bytes:
    """At most ``size`` bytes of the first frame; b"" if it is damaged."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
            return reader.read(size)
    except zstandard.ZstdError:
        return b""


class ZstdUnpacker:
    """One zstd frame in pieces, with the attributes of zlib's ``decompressobj``."""

    def __init__(self) -> None:
        import zstandard

        self._frame = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, /) -> bytes:
        """Raises ``zstd_error()``."""
        return self._frame.decompress(data)


def zstd_error() -> type[Exception]:
    """What ``ZstdUnpacker`` raises for damaged data."""
    import zstandard

    return zstandard.ZstdError


def lz4(data: bytes) -> bytes:
    """One bare lz4 block."""
    import lz4.block

    return bytes(lz4.block.compress(data, mode="high_compression", store_size=False))


def unlz4(payload: bytes, size: int) -> bytes:
    """A bare lz4 block that unpacks to at most ``size`` bytes; b"" if it is damaged."""
    import lz4.block

    try:
        return bytes(lz4.block.decompress(payload, uncompressed_size=size))
    except lz4.block.LZ4BlockError:
        return b""
