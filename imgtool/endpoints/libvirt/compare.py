"""What lies at the far end against the disk that was sent: tables are read back, the guest's bytes are hashed there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from imgtool.copying.pool import ordered
from imgtool.copying.receive import CHUNK
from imgtool.endpoints.far.file import PIECE, FarFile
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.libvirt.send import chunk_of
from imgtool.endpoints.ranges import Ranges, pieces
from imgtool.errors import DifferError
from imgtool.formats.disk import Disk
from imgtool.formats.qcow2 import header
from imgtool.formats.qcow2.late import Layout, layout
from imgtool.formats.qcow2.read import COPIED
from imgtool.journal import digest
from imgtool.model import ImageSpec
from imgtool.progress import Control, Stop

STREAMS = 4
KEEP = "the storage there may be failing: keep the source; --discard-partial removes what was sent"


def compare(wire: Wire, path: str, form: str, source: Disk, control: Control) -> None:
    """Raises DifferError."""
    file = FarFile(wire, path)
    size = source.virtual_size
    try:
        held = _Raw(file, size) if form == "raw" else _Qcow2(file, layout(size, ImageSpec(format="qcow2")))
        with ThreadPoolExecutor(STREAMS) as pool, control.progress.bar(size, "verify there") as bar:
            work = _starts(size, control.stop)
            for start, same in ordered(pool, lambda start: held.same(start, _chunk(source, start, size)), work):
                if not same:
                    raise DifferError(f"{wire.name}: {path} differs from what was sent, in the {CHUNK >> 20} MiB from byte "
                                      f"{start} on", KEEP)
                bar.update(min(CHUNK, size - start))
    finally:
        file.close()


def _starts(size: int, stop: Stop) -> Iterator[int]:
    for start in range(0, size, CHUNK):
        stop.check()
        yield start


def _chunk(source: Disk, start: int, size: int) -> bytearray | None:
    return chunk_of(source, start, min(CHUNK, size - start))


class _Raw:
    def __init__(self, file: FarFile, size: int) -> None:
        self._file, self._held = file, Ranges(file.data(0, file.size))
        if file.size != size:
            raise DifferError(f"{file.wire.name}: {file.path} has {file.size} bytes instead of {size}", KEEP)

    def same(self, start: int, data: bytearray | None, *, base: int = 0) -> bool:
        """``data``: None for zeros, of a length that does not matter then."""
        file, at = self._file, base + start
        if data is None:
            return all(_zeros(file.read(low, high - low)) for low, high in pieces(self._held.within(at, at + CHUNK), PIECE))
        inside = max(0, min(len(data), file.size - at))
        if not _zeros(memoryview(data)[inside:]):
            return False
        return not inside or file.hashes(at, inside, inside)[0] == digest(memoryview(data)[:inside])


def _zeros(data: bytes | bytearray | memoryview) -> bool:
    return bytes(data).count(0) == len(data)


class _Qcow2(_Raw):
    """Each cluster of the guest is at its own place, or nowhere: so ``late`` writes it, and so it must be found."""

    def __init__(self, file: FarFile, plan: Layout) -> None:
        self._file, self._held, self._plan = file, Ranges(file.data(0, file.size)), plan
        self._tables: dict[int, bytes] = {}
        self._check_header()
        raw = file.read(plan.cluster, plan.l1_count * 8)
        self._l1 = struct.unpack(f">{plan.l1_count}Q", raw)

    def _check_header(self) -> None:
        plan = self._plan
        said = header.V2.unpack(self._file.read(0, header.V2.size))
        wanted = (header.MAGIC, 3, 0, 0, plan.cluster.bit_length() - 1, plan.size, 0, plan.l1_count, plan.cluster, plan.table_at,
                  plan.table_clusters, 0, 0)
        if said != wanted:
            raise DifferError(f"{self._file.wire.name}: {self._file.path} has another header than was written", KEEP)

    def same(self, start: int, data: bytearray | None, *, base: int = 0) -> bool:
        cluster = self._plan.cluster
        empty = []
        for at in range(start, min(start + CHUNK, self._plan.size), cluster):
            entry = self._entry(at // cluster)
            if entry not in (0, (self._plan.data_at + at) | COPIED):
                return False
            if not entry:
                empty.append(at - start)
        if data is None:
            nowhere = len(empty) * cluster >= min(CHUNK, self._plan.size - start)
            return nowhere or super().same(start, None, base=self._plan.data_at)
        fits = all(_zeros(memoryview(data)[at:at + cluster]) for at in empty)
        return fits and super().same(start, data, base=self._plan.data_at)

    def _entry(self, number: int) -> int:
        """Of the table for guest cluster ``number``."""
        index, at = divmod(number, self._plan.cluster // 8)
        place = self._l1[index]
        if not place:
            return 0
        if place != (self._plan.l2_at + index * self._plan.cluster) | COPIED:
            return 1  # nothing that could be right
        table = self._tables.get(index) or bytes(self._file.read(place & ~COPIED, self._plan.cluster))
        if index not in self._tables:
            self._tables = {index: table}  # chunks come in order: the next ones want the same
        return int(struct.unpack_from(">Q", table, at * 8)[0])
