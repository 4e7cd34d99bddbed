"""What of a disk no file system uses, and therefore need not be read.

Of disks at rest the libguestfs appliance finds it, for all disks of the machine at once (a volume group may lie on several). Of
a file system that is mounted to be written only the kernel that has it mounted knows: it is asked (``getfsmap``: ext4 and XFS),
also while the file system is frozen. Swap in use is left out but for its head.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import FarError
from imgtool.endpoints.metal.chunks import in_threads
from imgtool.endpoints.metal.nbd import BLOCK, served
from imgtool.endpoints.metal.served import Readable
from imgtool.endpoints.ranges import Range, Ranges, inward
from imgtool.errors import ImgtoolError, MissingToolError
from imgtool.journal import digest
from imgtool.model.metal import PhysicalDisk, RawBytes
from imgtool.progress import Stop

log = logging.getLogger(__name__)

UNIT = 64 << 10
"""Smaller gaps are read: a request costs more."""
YOUNG = 60.0
"""Seconds in which a map that was just made is not looked after."""
SWAP_HEAD = 64 << 10


class Map:
    """What need not be read of a disk, and the blocks of ``nbd.BLOCK`` bytes that were read to find that: number → digest."""

    def __init__(self, free: Ranges, seen: Mapping[int, bytes], warnings: Sequence[str] = ()) -> None:
        self.free, self.seen, self.warnings = free, seen, tuple(warnings)
        self.made = time.monotonic()

    def young(self) -> bool:
        return time.monotonic() - self.made < YOUNG

    def holds(self, file: Readable, stop: Stop) -> bool:
        """Whether the disk still has those blocks: nobody has written to a file system without changing one of them."""
        todo, lock = iter(sorted(self.seen)), threading.Lock()
        changed: list[int] = []

        def work(over: threading.Event) -> None:
            while not over.is_set() and not changed:
                with lock:
                    number = next(todo, None)
                if number is None:
                    return
                stop.check()
                start = number * BLOCK
                length = min(BLOCK, file.size - start)
                if file.hashes(start, length, length) != [self.seen[number]]:
                    changed.append(number)

        in_threads(work)
        return not changed


def at_rest(files: Sequence[Readable], stop: Stop) -> list[Map]:
    """Of disks that nobody writes to. A disk that the appliance cannot make sense of is read whole. Raises MissingToolError."""
    from imgtool.guests.used import unused

    seen: list[dict[int, bytes]] = [{} for _ in files]
    try:
        with ExitStack() as stack:
            offered = [RawBytes(uri=f"nbd+unix:///?socket={stack.enter_context(served(_watched(file, blocks), file.size))}",
                                size=file.size, sector=file.sector) for file, blocks in zip(files, seen, strict=True)]
            free, warnings = unused(offered, stop)
    except MissingToolError as error:
        raise MissingToolError(error.message, f"{error.hint}; or --whole reads every byte") from error
    except ImgtoolError as error:
        if stop.is_set():
            raise
        return [Map(Ranges(), blocks, [f"{file.path} is read whole: {error}"]) for file, blocks in zip(files, seen, strict=True)]
    return [Map(Ranges(inward(ranges, UNIT)), blocks, warnings) for ranges, blocks in zip(free, seen, strict=True)]


def _watched(file: Readable, blocks: dict[int, bytes]) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        data = bytes(file.read(offset, length))
        blocks.setdefault(offset // BLOCK, digest(data))
        return data

    return read


def in_use(file: FarFile, disk: PhysicalDisk) -> Map:
    """Of a disk with mounted file systems, as they are now; of those that know no such map, nothing."""
    found: list[Range] = []
    warnings = []
    for place in disk.places:
        if place.mount is None:
            found.append((place.start + SWAP_HEAD, place.start + place.size))
            continue
        try:
            answer, _ = file.wire.call("free", mount=place.mount)
        except FarError as error:
            warnings.append(f"{place.mount} is read whole: its file system does not say what it uses ({error})")
            continue
        if answer["device"] != place.device:
            warnings.append(f"{place.mount} is read whole: something else is mounted over it")
            continue
        found += [(place.start + low, place.start + high) for low, high in answer["ranges"] if 0 <= low < high <= place.size]
    return Map(Ranges(inward(found, UNIT)), {}, warnings)

