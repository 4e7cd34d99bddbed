"""A disk whose bytes come from several places, by the words of ``far/file``: mostly from itself, in part from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import Answer
from imgtool.journal import digest


class Part(NamedTuple):
    """[start, end) of the disk is read from ``source``, from ``at`` on."""

    start: int
    end: int
    source: FarFile | bytes
    at: int = 0


class Composed:
    """Threads may call at the same time. What it is made of is closed with it. Raises what a ``FarFile`` raises."""

    def __init__(self, disk: FarFile, parts: Sequence[Part]) -> None:
        """``parts``: sorted, apart from each other."""
        self._disk, self._parts = disk, tuple(parts)
        self.wire, self.path, self.size, self.sector = disk.wire, disk.path, disk.size, disk.sector

    def _pieces(self, start: int, end: int) -> Iterator[Part]:
        """All of a range, by where it comes from."""
        for part in self._parts:
            if part.end <= start or part.start >= end:
                continue
            if start < part.start:
                yield Part(start, part.start, self._disk, start)
            low, high = max(start, part.start), min(end, part.end)
            yield Part(low, high, part.source, part.at + low - part.start)
            start = high
        if start < end:
            yield Part(start, end, self._disk, start)

    def read(self, offset: int, length: int) -> bytes:
        return b"".join(_read(one) for one in self._pieces(offset, offset + length))

    def ask_read(self, offset: int, length: int, codec_name: str | None = None) -> Future[Answer]:
        pieces = [*self._pieces(offset, offset + length)]
        if len(pieces) == 1 and isinstance(pieces[0].source, FarFile):
            return pieces[0].source.ask_read(pieces[0].at, length, codec_name)
        answer: Future[Answer] = Future()
        answer.set_result(({}, self.read(offset, length)))
        return answer

    def hashes(self, offset: int, length: int, chunk: int) -> list[bytes]:
        end = offset + length
        return [self.hash_of(start, min(chunk, end - start), [(start, min(start + chunk, end))])
                for start in range(offset, end, chunk)]

    def hash_of(self, offset: int, length: int, wanted: Sequence[tuple[int, int]]) -> bytes:
        pieces = [*self._pieces(offset, offset + length)]
        if len(pieces) == 1 and isinstance(pieces[0].source, FarFile):
            shift = pieces[0].at - offset
            return pieces[0].source.hash_of(pieces[0].at, length, [(low + shift, high + shift) for low, high in wanted])
        data = bytearray(length)
        for start, end in wanted:
            data[start - offset:end - offset] = self.read(start, end - start)
        return digest(memoryview(data))

    def close(self) -> None:
        for file in {id(one.source): one.source for one in self._parts if isinstance(one.source, FarFile)}.values():
            file.close()
        self._disk.close()


def _read(part: Part) -> bytes:
    length = part.end - part.start
    return part.source[part.at:part.at + length] if isinstance(part.source, bytes) else bytes(part.source.read(part.at, length))
