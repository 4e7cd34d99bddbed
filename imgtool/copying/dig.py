"""Gives the space of zeros back: holes are punched where a file has blocks of zeros, and where space was only reserved.

The bytes of the file do not change, whatever its format, so a crash in the middle harms nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from imgtool import storage
from imgtool.copying.pool import WORKERS, ordered
from imgtool.copying.zeros import data_runs
from imgtool.errors import ImgtoolError
from imgtool.formats.target import Payload
from imgtool.progress import Control

READ = 4 << 20


def dig(file: Payload, control: Control) -> None:
    """Raises ImgtoolError where the file system cannot punch holes."""
    size = os.fstat(file.fd).st_size

    def zeros_in(part: tuple[int, int]) -> list[tuple[int, int]]:
        control.rate.take(part[1], control.stop)
        return list(_gaps(part, os.pread(file.fd, part[1], part[0])))

    with ThreadPoolExecutor(WORKERS) as pool, control.progress.bar(os.fstat(file.fd).st_blocks * 512, "thin") as bar:
        for (_, length), gaps in ordered(pool, zeros_in, _parts(file.fd, size, control)):
            for begin, count in gaps:
                _punch(file, begin, count)
            bar.update(length)


def _parts(fd: int, size: int, control: Control) -> Iterator[tuple[int, int]]:
    """Data in pieces; what reads as zeros already loses its reservation at once."""
    for piece in list(storage.pieces(fd, 0, size)):
        if not piece.data:
            storage.punch(fd, piece.offset, piece.length)
            continue
        for at in range(piece.offset, piece.offset + piece.length, READ):
            control.stop.check()
            yield at, min(READ, piece.offset + piece.length - at)


def _gaps(part: tuple[int, int], data: bytes) -> Iterator[tuple[int, int]]:
    offset, _ = part
    position = 0
    for begin, length in data_runs(data):
        if begin > position:
            yield offset + position, begin - position
        position = begin + length
    if position < len(data):
        yield offset + position, len(data) - position


def _punch(file: Payload, offset: int, length: int) -> None:
    if not storage.punch(file.fd, offset, length):
        raise ImgtoolError(f"the file system cannot punch holes into {file.name}", "imgtool convert --thin makes a thin copy")
