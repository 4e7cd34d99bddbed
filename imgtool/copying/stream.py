"""Compressed images on all cores: units are read, looked through for zeros and packed by workers, and written in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from imgtool import codec
from imgtool.copying.chunks import Chunk, chunks, units
from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.writeback import Writeback
from imgtool.formats.disk import Disk
from imgtool.formats.measure import data_length, work
from imgtool.formats.qcow2.pack import PackedTarget
from imgtool.formats.qcow2.write import shape
from imgtool.formats.target import create
from imgtool.formats.vmdk.stream import Stream, joined
from imgtool.formats.vmdk.write import GRAIN, stream_descriptor
from imgtool.model import CopyStats, ImageSpec
from imgtool.progress import Control, estimated

Pack = Callable[[memoryview], bytes]
Packed = list[tuple[int, bytes]]
"""Guest offset and packed bytes of the units of a chunk that are not zeros."""
Made = TypeVar("Made")


def _packed(disk: Disk, unit: int, pack: Pack, made: Callable[[Packed], Made], control: Control,
            counted: list[int]) -> Iterator[Made]:
    """What workers make of the chunks, in order; of none that is all zeros."""

    def one(chunk: Chunk) -> Made | None:
        count = data_length(chunk.extents)
        control.rate.take(count, control.stop)
        counted.append(count)
        packed = [(start, pack(data)) for start, data in units(disk, chunk, unit)]
        return made(packed) if packed else None

    with ThreadPoolExecutor(WORKERS) as pool, estimated(control.progress, lambda: work(disk), "convert") as bar:
        for chunk, result in ordered(pool, one, chunks(disk.content(), disk.virtual_size)):
            control.stop.check()
            if result is not None:
                yield result
            bar.update(data_length(chunk.extents))


def stream(disk: Disk, descriptor: bytes, control: Control, *, level: int, counted: list[int]) -> Iterator[bytes]:
    """The bytes of a streamOptimized VMDK, from its beginning to its end: they may go to a file or over a network."""
    writer = Stream(disk.virtual_size, descriptor)
    yield writer.begin()
    for run in _packed(disk, GRAIN, lambda data: codec.deflate_zlib(data, level), joined, control, counted):
        yield from writer.grains(run)
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
    form, zstd = shape(spec), spec.compress_type == "zstd"
    level = spec.compress_level or (codec.DEFAULT_ZSTD if zstd else codec.DEFAULT_LEVEL)

    def pack(data: memoryview) -> bytes:
        packed = codec.zstd(data, level) if zstd else codec.deflate_window(data, level)
        return packed if len(packed) < form.cluster else bytes(data)

    counted: list[int] = []
    fd = create(folder, name)
    try:
        target = PackedTarget(fd, disk.virtual_size, form, zstd=zstd)
        for packed in _packed(disk, form.cluster, pack, list, control, counted):
            for start, payload in packed:
                target.cluster(start, payload)
        written = target.finish()
    finally:
        os.close(fd)
    return CopyStats(engine="stream", bytes_read=sum(counted), bytes_written=written, detected_zeroes=True)
