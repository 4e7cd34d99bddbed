"""A disk of a libvirt host that is this machine: its file is opened in place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from imgtool.endpoints import Sink
from imgtool.endpoints.libvirt.disks import Behind, check_chain
from imgtool.formats.disk import Disk, open_disk
from imgtool.model import Extent, Kind
from imgtool.progress import Control

PIECE = 1 << 20


class NearDisk:
    """A ``Reader`` over a disk that is open here."""

    resumes = True

    def __init__(self, disk: Disk) -> None:
        self.disk: Disk | None = disk
        self._disk = disk
        self.size = disk.virtual_size
        self.state: Mapping[str, object] = {"files": [_file_state(file.path, file.fd) for file in disk.files]}

    def holes(self) -> Iterator[tuple[int, int]]:
        yield from ((extent.start, extent.end) for extent in self._disk.content() if extent.kind != Kind.DATA)

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        room = bytearray(PIECE)
        for start, end in wanted:
            for extent in self._disk.content(start, end):
                self._give(extent, memoryview(room), sink, control)

    def _give(self, extent: Extent, room: memoryview, sink: Sink, control: Control) -> None:
        if extent.kind != Kind.DATA:
            sink.zero(extent.start, extent.length)
            return
        start = extent.start
        while start < extent.end:
            control.stop.check()
            end = min(extent.end, start // PIECE * PIECE + PIECE)
            control.rate.take(end - start, control.stop)
            self._disk.read_into(extent.part(start, end), room[:end - start])
            sink.write(start, room[:end - start])
            start = end


def _file_state(path: str, fd: int) -> list[object]:
    status = os.fstat(fd)
    return [path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev]


@contextmanager
def opened(behind: Behind, folders: Sequence[str], control: Control) -> Iterator[NearDisk]:
    """``folders``: of storage pools, in which images below it may lie. Raises RefusedError, DamagedError."""
    with open_disk(behind.file(), source_format=behind.format, allow_external=True, stop=control.stop) as disk:
        check_chain(behind, [(layer.path, layer.format) for layer in disk.layers], folders)
        yield NearDisk(disk)
