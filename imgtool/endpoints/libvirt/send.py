"""One disk of this machine becomes a file of a far one, chunk by chunk; stopped at any point, it goes on from what is there.

::

    FOLDER/web01-0.qcow2.imgtool-partial     there: chunks in any order, metadata last, then renamed
    STATE/web01-0.qcow2.map                  here: which chunks are there, and flushed
    STATE/web01-0.qcow2.there                here: which file (inode) the map speaks of
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from imgtool import codec, files
from imgtool.copying.pool import ordered
from imgtool.copying.receive import Receiver, file_size, receiving_by
from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.ranges import Ranges
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError, UnreachableError
from imgtool.formats.disk import Disk
from imgtool.journal import PARTIAL
from imgtool.model import Allocation, ImageSpec, Kind
from imgtool.model.endpoint import NewDisk
from imgtool.progress import Bar, Control, Stop

STREAMS = 4
TRIES, PAUSE = 6, 0.5
"""Connections over which nothing comes through; seconds before the second, then twice as many."""
PROBE = 2 << 20
FAST = 60 << 20
"""Bytes a second. Over a slower line what is sent is packed: one core packs more than that."""


@dataclass(frozen=True, kw_only=True)
class Job:
    new: NewDisk
    path: str
    """There, its final name."""
    state: str
    """A folder here."""
    mode: int
    owner: tuple[int, int] | None

    @property
    def partial(self) -> str:
        return self.path + PARTIAL

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(format=self.new.format)


def map_path(state: str, new: NewDisk) -> str:
    return os.path.join(state, f"{new.name}.map")


def record_path(state: str, new: NewDisk) -> str:
    return os.path.join(state, f"{new.name}.there")


class Medium:
    """The file there, as ``copying.receive`` writes it. What was a hole when it was opened is not punched again."""

    def __init__(self, file: FarFile, allocation: Allocation, *, packed: bool) -> None:
        self._file, self._allocation, self._packed = file, allocation, packed
        self._held = Ranges(file.data(0, file.size))

    def write(self, offset: int, data: memoryview | bytes) -> None:
        self._file.write(offset, data, pack=_pack if self._packed else None)

    def hole(self, offset: int, length: int) -> None:
        if self._allocation is Allocation.EAGER:
            self._file.hole(offset, length, written=True)
        elif any(self._held.within(offset, offset + length)):
            self._file.hole(offset, length)

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Thick: all of it has its place."""
        if self._allocation is not Allocation.THIN:
            yield start, end
            return
        yield from self._file.data(start, end)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def flush(self) -> None:
        self._file.flush()


def _pack(data: bytes) -> bytes:
    return codec.deflate_zlib(data, 1)


def disk(connect: Callable[[], Wire], job: Job, source: Disk, control: Control) -> None:
    """Sends it, over as many connections as it takes. Raises RefusedError, NoSpaceError, UnreachableError."""
    failures, reached = 0, -1
    with control.progress.bar(source.virtual_size, f"send {job.new.name}") as bar:
        shown = _Shown(bar)
        while True:
            try:
                return _over(connect(), job, source, control, shown)
            except UnreachableError as error:
                failures = 0 if shown.done > reached else failures + 1
                reached = max(reached, shown.done)
                if failures >= TRIES:
                    raise UnreachableError(str(error), "the same command goes on where it stopped") from error
                _sleep(PAUSE * 2 ** failures, control.stop)


class _Shown:
    """A bar that does not run backwards where a part is sent again."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self.done = bar, 0

    def at(self, done: int) -> None:
        if done > self.done:
            self._bar.update(done - self.done)
            self.done = done


def _over(wire: Wire, job: Job, source: Disk, control: Control, shown: _Shown) -> None:
    if not _begun(wire, job, source.virtual_size):
        shown.at(source.virtual_size)
        return
    file = FarFile(wire, job.partial, write=True)
    medium = Medium(file, job.new.allocation, packed=_rate(wire) < FAST)
    try:
        with receiving_by(medium, map_path(job.state, job.new), size=source.virtual_size, spec=job.spec,
                          source=job.new.state) as receiver:
            _fill(source, receiver, control, shown)
            receiver.close_up()
            if job.new.allocation is not Allocation.THIN:
                file.reserve()
                file.flush()
        file.close()
    except NoSpaceError as error:
        raise NoSpaceError(str(error), "make room there, and run the same command again: it goes on; --discard-partial "
                                       "removes what is there") from error
    _publish(wire, job)


def _begun(wire: Wire, job: Job, size: int) -> bool:
    """False where all of it is there already. Raises RefusedError where what is there is not what we have put there."""
    record = _record(record_path(job.state, job.new))
    whole, part = _stat(wire, job.path), _stat(wire, job.partial)
    if whole["found"]:
        if record == _identity(whole):
            return False
        raise RefusedError(f"{wire.name}: {job.path} exists", "choose another name for the machine, or remove that file")
    if part["found"]:
        if record != _identity(part):
            raise RefusedError(f"{wire.name}: {job.partial} is there, and nothing here tells what it holds",
                               "another imgtool may be at work; if not, --discard-partial removes it")
        return True
    with suppress(FileNotFoundError):
        os.unlink(map_path(job.state, job.new))
    wire.call("create", path=job.partial, size=file_size(size, job.spec))
    text = json.dumps(_identity(_stat(wire, job.partial))).encode()
    files.put(record_path(job.state, job.new), text, replace=True)
    return True


def _stat(wire: Wire, path: str) -> dict[str, Any]:
    return wire.call("stat", path=path)[0]


def _identity(said: dict[str, Any]) -> dict[str, object]:
    return {"inode": said["inode"], "device": said["device"]}


def _record(path: str) -> object:
    with suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return json.load(file)
    return None


def _rate(wire: Wire) -> float:
    """Bytes a second of the line, measured with bytes that nobody can pack."""
    noise = os.urandom(PROBE)
    times = []
    for payload in (b"", noise):
        began = time.monotonic()
        wire.call("hello", payload)
        times.append(time.monotonic() - began)
    return PROBE / max(times[1] - times[0], 1e-6)


def _fill(source: Disk, receiver: Receiver, control: Control, shown: _Shown) -> None:
    shown.at(receiver.blocks.done)

    def one(part: tuple[int, int, int]) -> None:
        number, start, length = part
        data = chunk_of(source, start, length)
        if data is None:
            receiver.take_zeros(number)
            return
        control.rate.take(length, control.stop)
        receiver.take(number, memoryview(data))

    with ThreadPoolExecutor(STREAMS, thread_name_prefix="send") as pool:
        for _ in ordered(pool, one, _watched(receiver, control.stop)):
            shown.at(receiver.blocks.done)


def _watched(receiver: Receiver, stop: Stop) -> Iterator[tuple[int, int, int]]:
    for part in receiver.missing():
        stop.check()
        yield part


def chunk_of(source: Disk, start: int, length: int) -> bytearray | None:
    """The guest's bytes; None where they are known to be zeros."""
    data: bytearray | None = None
    for extent in source.content(start, start + length):
        if extent.kind == Kind.DATA:
            data = bytearray(length) if data is None else data
            source.read_into(extent, memoryview(data)[extent.start - start:extent.end - start])
    return data


def _publish(wire: Wire, job: Job) -> None:
    """Its final name, for QEMU alone. The record stays until a machine has it."""
    uid, gid = job.owner or (-1, -1)
    try:
        wire.call("mode", path=job.partial, mode=job.mode, uid=uid, gid=gid)
    except UnreachableError:
        raise
    except ImgtoolError:  # who is not root there gives nothing away: libvirt does it, at each start
        wire.call("mode", path=job.partial, mode=job.mode)
    wire.call("rename", path=job.partial, to=job.path)
    with suppress(FileNotFoundError):
        os.unlink(map_path(job.state, job.new))


def is_ours(wire: Wire, path: str, record: str) -> bool:
    """Whether a whole file there is one that we have sent, and that no finished machine has."""
    whole = _stat(wire, path)
    return bool(whole["found"]) and _record(record) == _identity(whole)


def discard(wire: Wire, path: str, *, whole: bool) -> None:
    wire.call("remove", path=path + PARTIAL)
    if whole:
        wire.call("remove", path=path)


def _sleep(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stop.check()
        time.sleep(0.1)


