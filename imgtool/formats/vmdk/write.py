"""Writes VMDKs: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat and vmfs.

Source: VMware, *Virtual Disk Format 5.0*. Layout of a sparse extent: header | descriptor | redundant grain directory, its
tables | grain directory, its tables | grains, from a multiple of 64 KiB on.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imgtool import storage
from imgtool.errors import UsageError
from imgtool.formats.layer import SECTOR
from imgtool.formats.target import FileTarget, Payload, Place, create, seats
from imgtool.formats.vmdk import sparse
from imgtool.formats.vmdk.descriptor import MAX_EXTENTS, ExtentLine, render
from imgtool.model import Allocation, ImageSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

GRAIN = 128 * SECTOR
TABLE_ENTRIES = 512
TABLE_SECTORS = TABLE_ENTRIES * 4 // SECTOR
COVERED = TABLE_ENTRIES * GRAIN
TABLES_KEPT = 64
"""Grain tables that are written at once: of 2 GiB."""
DESCRIPTOR_SECTORS = 20
SPLIT = 4192256 * SECTOR
"""Guest bytes of one extent of a disk split in 2 GB parts: 2047 MiB, VMware's own step."""
MAX_SECTOR = 1 << 32
"""Grain tables have 32-bit sector numbers: a sparse extent of 2 TiB."""
MAX_SPARSE_DATA = (MAX_SECTOR - (1 << 20)) * SECTOR
MAX_FLAT = 62 << 40
"""Bytes: the largest virtual disk of ESXi."""
OPTIONS = ("adapter_type", "hwversion", "toolsversion")
ADAPTERS = ("lsilogic", "buslogic", "ide", "legacyESX")
DEFAULT_HARDWARE = "8"
"""ESXi 5.0; each later host takes it."""
UNMANAGED_TOOLS = "2147483647"
FLAT = ("monolithicFlat", "vmfs", "twoGbMaxExtentFlat")
SPARSE = ("monolithicSparse", "twoGbMaxExtentSparse")
_IMPOSSIBLE = re.compile(r'["\x00-\x1f\x7f]|[\ud800-\udfff]')


class SparseFile:
    """One sparse extent that is being written. ``place`` as in ``Target``, guest offsets from 0."""

    def __init__(self, folder: str, name: str, size: int, *, embedded: bool, whole: bool) -> None:
        import numpy as np

        self.name, self._size, self._embedded = name, size, embedded
        self._tables = max(1, -(-size // COVERED))
        directory = -(-self._tables * 4 // SECTOR)
        self._redundant = 1 + (DESCRIPTOR_SECTORS if embedded else 0)
        self._directory = self._redundant + directory + self._tables * TABLE_SECTORS
        overhead = self._directory + directory + self._tables * TABLE_SECTORS
        self._overhead = -(-overhead * SECTOR // GRAIN) * GRAIN // SECTOR
        self._first_table = directory
        self._next = self._overhead
        self._kept: npt.NDArray[np.uint32] = np.zeros((TABLES_KEPT, TABLE_ENTRIES), np.uint32)
        self._used = range(0)
        self.fd = create(folder, name)
        if whole:
            storage.reserve(self.fd, 0, self._overhead * SECTOR + size, keep_size=True)

    def place(self, start: int, length: int) -> Iterator[Place]:
        end = start + length
        while start < end:
            stop = min(end, (start // COVERED + 1) * COVERED)
            yield from self._place_in_table(start, stop)
            start = stop

    def _place_in_table(self, start: int, end: int) -> Iterator[Place]:
        table = self._use_table(start // COVERED)
        places, self._next = seats(table, GRAIN, self.fd, start, end, self._next, SECTOR)
        if self._next > MAX_SECTOR:
            raise UsageError("a sparse VMDK holds at most 2 TiB of data", "--subformat monolithicFlat or twoGbMaxExtentSparse")
        yield from places

    def _use_table(self, index: int) -> npt.NDArray[np.uint32]:
        """The grain table ``index``. Some neighbours are kept; those before are written and left for good."""
        if index not in self._used:
            if self._used and index // TABLES_KEPT != self._used[0] // TABLES_KEPT:
                self._flush_tables()
            used = self._used or range(index, index + 1)
            self._used = range(min(used[0], index), max(used[-1], index) + 1)
        table: npt.NDArray[np.uint32] = self._kept[index % TABLES_KEPT]
        return table

    def _flush_tables(self) -> None:
        if not self._used:
            return
        first = self._used[0] % TABLES_KEPT
        raw = self._kept[first:first + len(self._used)].astype("<u4").tobytes()
        for directory in (self._redundant, self._directory):
            storage.write_all(self.fd, raw, (directory + self._first_table + self._used[0] * TABLE_SECTORS) * SECTOR)
        self._kept[:] = 0
        self._used = range(0)

    def finish(self, descriptor: bytes) -> None:
        import numpy as np

        self._flush_tables()
        for directory in (self._redundant, self._directory):
            first = directory + self._first_table
            sectors = first + np.arange(self._tables, dtype=np.int64) * TABLE_SECTORS
            storage.write_all(self.fd, sectors.astype("<u4").tobytes(), directory * SECTOR)
        if self._embedded:
            if len(descriptor) > DESCRIPTOR_SECTORS * SECTOR:
                raise UsageError("the name is too long for a VMDK descriptor")
            storage.write_all(self.fd, descriptor, SECTOR)
        storage.write_all(self.fd, self._header().ljust(SECTOR, b"\0"), 0)
        os.ftruncate(self.fd, self._next * SECTOR)

    def _header(self) -> bytes:
        at, length = (1, DESCRIPTOR_SECTORS) if self._embedded else (0, 0)
        return sparse.HEADER.pack(sparse.KDMV, 1, sparse.FLAG_NEWLINE | sparse.FLAG_REDUNDANT, self._size // SECTOR,
                                  GRAIN // SECTOR, at, length, TABLE_ENTRIES, self._redundant, self._directory,
                                  self._overhead, 0, sparse.LINE_ENDS, 0)

    def close(self) -> None:
        os.close(self.fd)


class VmdkTarget:
    """A new VMDK of one of the kinds above. Extents are opened as the copier comes to them."""

    def __init__(self, folder: str, name: str, size: int, image: ImageSpec) -> None:
        self._folder, self._name, self._size, self._image = folder, name, size, image
        self._subformat = image.subformat or "monolithicSparse"
        self._whole = image.allocation != Allocation.THIN
        self._parts: list[FileTarget | SparseFile] = []
        self._lock = threading.Lock()
        self._single = self._subformat == "monolithicSparse"
        self._step = size if self._subformat.startswith("monolithic") or self._subformat == "vmfs" else SPLIT
        self.window = min(self._step, TABLES_KEPT * COVERED) if self._subformat in SPARSE else 0
        self._names = self._part_names()
        self.members = [name] if self._single else [*self._names, name]

    def _part_names(self) -> list[str]:
        count = max(1, -(-self._size // self._step))
        stem = os.path.splitext(self._name)[0]
        if self._single:
            return [self._name]
        directory = os.path.dirname(self._folder)
        for tag in ("", f"-{secrets.token_hex(3)}"):
            names = [part_name(stem + tag, self._subformat, number) for number in range(1, count + 1)]
            if tag or not any(os.path.lexists(os.path.join(directory, part)) for part in names):
                break
        return names

    def _part(self, index: int) -> FileTarget | SparseFile:
        with self._lock:  # one thread expects while another one places
            while len(self._parts) <= index:
                self._parts.append(self._made(len(self._parts)))
            return self._parts[index]

    def _made(self, number: int) -> FileTarget | SparseFile:
        size = min(self._step, self._size - number * self._step)
        if self._subformat in SPARSE:
            return SparseFile(self._folder, self._names[number], size, embedded=self._single, whole=self._whole)
        return FileTarget(self._folder, self._names[number], size, allocation=self._image.allocation)

    def _by_part(self, start: int, length: int) -> Iterator[tuple[FileTarget | SparseFile, int, int, int]]:
        """(part, where it begins on the disk, start and length in it) of each piece of a range of the disk."""
        end = start + length
        while start < end:
            index = start // self._step
            base, stop = index * self._step, min(end, (index + 1) * self._step)
            yield self._part(index), base, start - base, stop - start
            start = stop

    def expect(self, start: int, length: int) -> None:
        for part, _, begin, count in self._by_part(start, length):
            if isinstance(part, FileTarget):
                part.expect(begin, count)

    def place(self, start: int, length: int) -> Iterator[Place]:
        for part, base, begin, count in self._by_part(start, length):
            for place in part.place(begin, count):
                yield place._replace(start=place.start + base)

    def finish(self) -> None:
        self._part(len(self._names) - 1)
        raw = self._descriptor()
        for part in self._parts:
            if isinstance(part, SparseFile):
                part.finish(raw)
        if not self._single:
            with open(os.path.join(self._folder, self._name), "xb") as file:
                file.write(raw)

    def _descriptor(self) -> bytes:
        kind = {"vmfs": "VMFS", "monolithicFlat": "FLAT", "twoGbMaxExtentFlat": "FLAT"}.get(self._subformat, "SPARSE")
        lines = tuple(
            ExtentLine("RW", min(self._step, self._size - index * self._step) // SECTOR, kind, name)
            for index, name in enumerate(self._names))
        return _described(self._image, lines, thin=self._subformat == "vmfs" and not self._whole)

    def payload(self) -> list[Payload]:
        return [Payload(name, part.fd) for name, part in zip(self._names, self._parts, strict=True)]

    def close(self) -> None:
        for part in self._parts:
            part.close()


def _described(image: ImageSpec, lines: tuple[ExtentLine, ...], *, thin: bool = False) -> bytes:
    return render(image.subformat or "monolithicSparse", lines, adapter=image.option("adapter_type") or "lsilogic",
                  hardware=image.option("hwversion") or DEFAULT_HARDWARE,
                  tools=image.option("toolsversion") or UNMANAGED_TOOLS, thin=thin)


def stream_descriptor(image: ImageSpec, name: str, size: int) -> bytes:
    """The descriptor that stands in a streamOptimized file."""
    return _described(image, (ExtentLine("RW", size // SECTOR, "SPARSE", name),))


def part_name(stem: str, subformat: str, number: int) -> str:
    """The name of an extent, as VMware gives it."""
    if subformat in ("monolithicFlat", "vmfs"):
        return f"{stem}-flat.vmdk"
    letter = "f" if subformat == "twoGbMaxExtentFlat" else "s"
    return f"{stem}-{letter}{number:03}.vmdk"


def check_options(image: ImageSpec, name: str, size: int) -> None:
    """Raises UsageError for what a VMDK cannot be."""
    for key, value in image.options:
        if key not in OPTIONS:
            raise UsageError(f"-o {key}: not an option of VMDK here", f"known: {', '.join(OPTIONS)}")
        if not re.fullmatch(r"[A-Za-z0-9.]{1,32}", value):
            raise UsageError(f"-o {key}={value}: letters and digits only")
    if (adapter := image.option("adapter_type")) and adapter not in ADAPTERS:
        raise UsageError(f"-o adapter_type={adapter}: one of {', '.join(ADAPTERS)}")
    if _IMPOSSIBLE.search(name):
        raise UsageError("a VMDK descriptor cannot hold this name: it has quotes, control characters or no valid UTF-8")
    if not size:
        raise UsageError("a VMDK of 0 bytes is impossible")
    if size > MAX_FLAT:
        raise UsageError(f"{size} bytes are more than a VMDK may have (62 TiB)")
    if str(image.subformat).startswith("twoGb") and size > MAX_EXTENTS * SPLIT:
        raise UsageError(f"{size} bytes are too many for extents of 2 GB: at most {MAX_EXTENTS} of them are read",
                         "--subformat monolithicSparse or monolithicFlat")
