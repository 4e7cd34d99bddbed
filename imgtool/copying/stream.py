"""Compressed images on all cores: units are read, looked through for zeros and packed by workers, and written in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from imgtool import codec
from imgtool.copying.chunks import Chunk, chunks, units
from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.writeback import Writeback
from imgtool.formats.disk import Disk
from imgtool.formats.qcow2.pack import PackedTarget
from imgtool.formats.qcow2.write import shape
from imgtool.formats.target import create
from imgtool.formats.vmdk.stream import Stream
from imgtool.formats.vmdk.write import GRAIN, stream_descriptor
from imgtool.model import CopyStats, ImageSpec
from imgtool.progress import Control

Pack = Callable[[bytes], bytes]


def _packed(disk: Disk, unit: int, pack: Pack, control: Control, counted: list[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """(guest offset, packed, plain) of each unit that is not zeros, in order."""

    def work(chunk: Chunk) -> list[tuple[int, bytes, bytes]]:
        counted.append(sum(extent.length for extent in chunk.extents))
        control.rate.take(counted[-1], control.stop)
        return [(start, pack(data), data) for start, data in units(disk, chunk, unit)]

    with ThreadPoolExecutor(WORKERS) as pool, control.progress.bar(disk.virtual_size, "convert") as bar:
        done = 0
        for chunk, packed in ordered(pool, work, chunks(disk.content(), disk.virtual_size)):
            control.stop.check()
            yield from packed
            bar.update(chunk.end - done)
            done = chunk.end
        bar.update(disk.virtual_size - done)


def stream(disk: Disk, descriptor: bytes, control: Control, *, level: int, counted: list[int]) -> Iterator[bytes]:
    """The bytes of a streamOptimized VMDK, from its beginning to its end: they may go to a file or over a network."""
    writer = Stream(disk.virtual_size, descriptor)
    yield writer.begin()
    for start, payload, _ in _packed(disk, GRAIN, lambda data: codec.deflate_zlib(data, level), control, counted):
        yield from writer.grain(start, payload)
    yield from writer.end()


def write_stream(disk: Disk, spec: ImageSpec, folder: str, name: str, control: Control) -> CopyStats:
    """A streamOptimized VMDK in a file. Raises NoSpaceError, UsageError, StoppedError."""
    descriptor = stream_descriptor(spec, name, disk.virtual_size)
    counted: list[int] = []
    written, back = 0, Writeback(disk.virtual_size)
    with open(create(folder, name), "wb") as file:
        pieces = stream(disk, descriptor, control, level=spec.compress_level or codec.DEFAULT_LEVEL, counted=counted)
        for piece in pieces:
            back.wrote(file.fileno(), written, len(piece))
            written += file.write(piece)
    return CopyStats(engine="stream", bytes_read=sum(counted), bytes_written=written, detected_zeroes=True)


def write_packed(disk: Disk, spec: ImageSpec, folder: str, name: str, control: Control) -> CopyStats:
    """A compressed qcow2 image. Raises NoSpaceError, UsageError, StoppedError."""
    form, level = shape(spec), spec.compress_level
    zstd = spec.compress_type == "zstd"
    pack: Pack = ((lambda data: codec.zstd(data, level or codec.DEFAULT_ZSTD)) if zstd
                  else (lambda data: codec.deflate_window(data, level or codec.DEFAULT_LEVEL)))
    counted: list[int] = []
    fd = create(folder, name)
    try:
        target = PackedTarget(fd, disk.virtual_size, form, zstd=zstd)
        for start, payload, plain in _packed(disk, form.cluster, pack, control, counted):
            target.cluster(start, payload, plain)
        written = target.finish()
    finally:
        os.close(fd)
    return CopyStats(engine="stream", bytes_read=sum(counted), bytes_written=written, detected_zeroes=True)
