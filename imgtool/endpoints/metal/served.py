"""A disk of a machine that has no python3 but qemu-nbd: read in parts, hashed here, by the words of ``far/file``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.nbd import FarDisk
from imgtool.endpoints.far.wire import Answer
from imgtool.endpoints.metal.composed import Composed
from imgtool.journal import digest
from imgtool.model.endpoint import Uri
from imgtool.model.metal import PhysicalDisk
from imgtool.model.problem import Problem
from imgtool.progress import Control

PROBLEM = Problem(what="there is no python3 on that machine: qemu-nbd gives its disks, what is compared comes over the way, and "
                       "no disk in use can be copied", hint="install python3 there, if it can be: then it hashes and packs, too")


class ServedFile:
    """Open there. Threads may call at the same time. Raises UnreachableError, FarError (a sector that cannot be read)."""

    def __init__(self, uri: Uri, disk: PhysicalDisk, control: Control) -> None:
        self.path, self.sector = disk.path, disk.sector
        self._disk, self._stop = FarDisk(uri, [(disk.path, "raw")], block=True, control=control), control.stop
        self.size = self._disk.size

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.pread(offset, offset + length, self._stop)

    def ask_read(self, offset: int, length: int, codec_name: str | None = None) -> Future[Answer]:
        """Answered at once: who asks is one of several threads. Nothing is packed there."""
        answer: Future[Answer] = Future()
        data = self.read(offset, length)
        answer.set_result(({"zero": True}, b"") if data.count(0) == length else ({}, data))
        return answer

    def hashes(self, offset: int, length: int, chunk: int) -> list[bytes]:
        end = offset + length
        return [digest(self.read(start, min(chunk, end - start))) for start in range(offset, end, chunk)]

    def hash_of(self, offset: int, length: int, wanted: Sequence[tuple[int, int]]) -> bytes:
        data = bytearray(length)
        for start, end in wanted:
            data[start - offset:end - offset] = self.read(start, end - start)
        return digest(memoryview(data))

    def close(self) -> None:
        self._disk.close()


Readable = FarFile | ServedFile | Composed
"""A disk, by whatever way."""
