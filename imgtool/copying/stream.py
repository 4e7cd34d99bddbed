"""Writes streamOptimized VMDKs on all cores: grains are read, looked through for zeros and deflated by workers, in order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from imgtool import codec
from imgtool.copying.chunks import Chunk, chunks, units
from imgtool.copying.pool import WORKERS, ordered
from imgtool.formats.disk import Disk
from imgtool.formats.vmdk.stream import Stream
from imgtool.formats.vmdk.write import GRAIN
from imgtool.model import CopyStats
from imgtool.progress import Control


def stream(disk: Disk, descriptor: bytes, control: Control, *, level: int) -> Iterator[bytes]:
    """The bytes of the file, from its beginning to its end: they may go to a file or over a network."""
    writer = Stream(disk.virtual_size, descriptor)

    def pack(chunk: Chunk) -> list[tuple[int, bytes]]:
        control.rate.take(chunk.end - chunk.start, control.stop)
        return [(start, codec.deflate_zlib(data, level)) for start, data in units(disk, chunk, GRAIN)]

    yield writer.begin()
    with ThreadPoolExecutor(WORKERS) as pool, control.progress.bar(disk.virtual_size, "compress") as bar:
        done = 0
        for chunk, grains in ordered(pool, pack, chunks(disk.content(), disk.virtual_size)):
            control.stop.check()
            for start, payload in grains:
                yield from writer.grain(start, payload)
            bar.update(chunk.end - done)
            done = chunk.end
        bar.update(disk.virtual_size - done)
    yield from writer.end()


def stats(read: int, written: int) -> CopyStats:
    return CopyStats(engine="stream", bytes_read=read, bytes_written=written, detected_zeroes=True)
