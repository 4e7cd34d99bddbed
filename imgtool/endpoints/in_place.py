"""A disk that this process can read where it lies, as a Reader."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from imgtool.copying.pool import WORKERS, ordered
from imgtool.endpoints.ranges import pieces
from imgtool.formats.disk import Disk
from imgtool.model import ImageFile, Kind
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

PIECE = 1 << 20


class InPlace:
    """``resumes``: a stopped copy may go on, since the files still say whether they are the same."""

    resumes = True

    def __init__(self, disk: Disk, state: Mapping[str, object] | None = None) -> None:
        """``state``: where its files here do not tell it: they are copies of others."""
        self.disk: Disk | None = disk
        self._disk = disk
        self.size = disk.virtual_size
        self.state: Mapping[str, object] = state or {"files": [_file_state(file) for file in disk.files]}

    def holes(self) -> Iterator[tuple[int, int]]:
        for extent in self._disk.content():
            if extent.kind != Kind.DATA:
                yield extent.start, extent.end

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="read") as pool:
            for _ in ordered(pool, lambda piece: self._piece(piece, sink, control), pieces(wanted, PIECE)):
                control.stop.check()

    def _piece(self, piece: tuple[int, int], sink: Sink, control: Control) -> None:
        start, end = piece
        for extent in self._disk.content(start, end):
            if extent.kind != Kind.DATA:
                sink.zero(extent.start, extent.length)
                continue
            control.rate.take(extent.length, control.stop)
            room = memoryview(bytearray(extent.length))
            self._disk.read_into(extent, room)
            sink.write(extent.start, room)


def _file_state(file: ImageFile) -> list[object]:
    status = os.fstat(file.fd)
    return [os.path.abspath(file.path), status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns]
