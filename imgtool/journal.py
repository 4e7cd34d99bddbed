"""What long work leaves behind so that it can go on: the block map of a disk, and the events of a job.

A **block map** stands beside a disk that is being copied (``web01.qcow2.imgtool-partial`` and ``….map``)::

    {"format": "imgtool block map", "version": 1, "size": …, "chunk": …, "source": {…}}\\n
    record, record, …                                                    32 bytes each, appended

A record says that one chunk is in the copy and on the disk: the data is flushed before its record is written. What a crash
tore off at the end does not count, and is cut off when the map is opened again. The digests let a later pass tell whether the
source has changed since, without the old bytes.

A **journal** is a file of JSON lines, one an event, each flushed: who, what, when. It is what ``imgtool jobs`` reads.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import platform
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import IO

from imgtool.errors import DamagedError, ImgtoolError, RefusedError, text_of
from imgtool.storage import raise_os

PARTIAL = ".imgtool-partial"
"""Suffix of a disk that is not whole yet; its map has ``.map`` behind that."""
FORMAT, VERSION = "imgtool block map", 1
RECORD = struct.Struct("<Q16sB3xI")
"""Chunk, digest of its bytes, whether they are all zeros (then nothing was written), CRC-32 of what stands before."""
CHECKED = RECORD.size - 4
DIGEST = 16
MAX_HEADER = 1 << 16


def digest(data: bytes | memoryview) -> bytes:
    """Of a chunk, as the map keeps it: 16 bytes of BLAKE2b."""
    return blake2b(data, digest_size=DIGEST).digest()


class BlockMap:
    """Which chunks of a disk are in the copy. Threads may ``mark`` at the same time; one at a time ``save``\\ s."""

    def __init__(self, file: IO[bytes], size: int, chunk: int) -> None:
        self.size, self.chunk = size, chunk
        self.chunks = -(-size // chunk)
        self._file = file
        self._digests: dict[int, bytes] = {}
        self._zeros: set[int] = set()
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        """Is chunk ``number`` in the copy, and flushed or about to be?"""
        return number in self._digests

    @property
    def done(self) -> int:
        """Bytes of the disk that are in the copy."""
        last = self.chunks - 1
        short = self.chunks * self.chunk - self.size if last in self._digests else 0
        return len(self._digests) * self.chunk - short

    def digest_of(self, number: int) -> bytes | None:
        return self._digests.get(number)

    def is_zero(self, number: int) -> bool:
        return number in self._zeros

    def missing(self) -> Iterator[tuple[int, int, int]]:
        """(chunk, offset, length) of all that is still to be copied, in order."""
        for number in range(self.chunks):
            if number not in self._digests:
                start = number * self.chunk
                yield number, start, min(self.chunk, self.size - start)

    def mark(self, number: int, sum_: bytes, *, zero: bool = False) -> None:
        """The chunk has been written (not flushed yet). A second mark replaces the first."""
        head = struct.pack("<Q16sB3x", number, sum_, zero)
        with self._lock:
            self._set(number, sum_, zero=zero)
            self._waiting.append(head + struct.pack("<I", zlib.crc32(head)))

    def _set(self, number: int, sum_: bytes, *, zero: bool) -> None:
        self._digests[number] = sum_
        (self._zeros.add if zero else self._zeros.discard)(number)

    def save(self, flush_data: Callable[[], object]) -> None:
        """Flushes the data, and then what was marked before that. Raises NoSpaceError, ImgtoolError."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        flush_data()
        _append(self._file, b"".join(waiting))

    def load(self) -> None:
        """Reads the records from where the file stands, and cuts off what is torn."""
        start = self._file.tell()
        records = self._file.read()
        good = 0
        for at in range(0, len(records) - RECORD.size + 1, RECORD.size):
            number, sum_, zero, check = RECORD.unpack_from(records, at)
            if check != zlib.crc32(records[at:at + CHECKED]) or number >= self.chunks:
                break
            self._set(number, sum_, zero=bool(zero))
            good = at + RECORD.size
        self._file.seek(start + good)
        self._file.truncate()


@contextmanager
def block_map(path: str, *, size: int, chunk: int, source: Mapping[str, object]) -> Iterator[BlockMap]:
    """The map at ``path``, found or made; held alone. ``source`` tells this source, in this state, from any other.

    Raises RefusedError where the map is of another source, or another process works on it; DamagedError.
    """
    header = {"format": FORMAT, "version": VERSION, "size": size, "chunk": chunk, "source": dict(source)}
    try:
        file = open(path, "a+b", buffering=0, opener=_private)  # noqa: SIM115 - closed below
    except OSError as error:
        raise_os(error, f"opening {path}")
    with file:
        hold(file, path)
        file.seek(0)
        found = file.readline(MAX_HEADER)
        if not found.endswith(b"\n"):
            file.truncate(0)
            _append(file, json.dumps(header).encode() + b"\n")
        else:
            _check(path, found, header)
        mapped = BlockMap(file, size, chunk)
        mapped.load()
        yield mapped


def _append(file: IO[bytes], data: bytes) -> None:
    """To a file without a buffer: what could not be written is not sent once more when it is closed. Flushed."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest):]
        os.fdatasync(file.fileno())
    except OSError as error:
        raise_os(error, f"writing {file.name}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def hold(file: IO[bytes], path: str) -> None:
    """Locks an open file until it is closed. Raises RefusedError where another process has it."""
    for patience in (0.02, 0.05, 0.1, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if patience is None:
                raise RefusedError(f"{path}: another imgtool is working on it", "wait until it is done, or stop it") from error
            time.sleep(patience)  # who looks whether it is ``held`` has it for a moment
        else:
            return


def held(path: Path) -> bool:
    """Whether a process has locked the file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _check(path: str, found: bytes, header: Mapping[str, object]) -> None:
    try:
        old = json.loads(found)
    except ValueError as error:
        raise DamagedError(f"{path} is not a block map", "--discard-partial removes it") from error
    if not isinstance(old, dict) or old.get("format") != FORMAT or old.get("version") != VERSION:
        raise DamagedError(f"{path} is not a block map that this version reads", "--discard-partial removes it")
    if old != json.loads(json.dumps(header)):
        changed = [key for key in header if old.get(key) != json.loads(json.dumps(header[key]))]
        raise RefusedError(f"{path}: the partial copy is of another source, or the source has changed ({', '.join(changed)})",
                           "--discard-partial removes it, and the copy begins anew")


def state_folder() -> Path:
    """Where journals are kept: ``/var/lib/imgtool`` for root, else below ``$XDG_STATE_HOME`` (XDG base directories)."""
    said = os.environ.get("IMGTOOL_STATE")
    if said:
        return Path(said)
    if os.geteuid() == 0:
        return Path("/var/lib/imgtool")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "imgtool"


def now() -> str:
    """The time as journals say it: texts of it compare as times do."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def jobs_folder() -> Path:
    """Of each job its journal, ``JOB.jsonl``, and, while something moves, how far that is: ``JOB.progress``."""
    return state_folder() / "jobs"


def progress_path(job: str) -> Path:
    """Where ``progress.Kept`` keeps how far a job is."""
    return jobs_folder() / f"{job}.progress"


def appended(path: Path) -> IO[bytes]:
    """The file of a ``Journal``, made where it is missing. Raises NoSpaceError, ImgtoolError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open(path, "a+b", buffering=0, opener=_private)
    except OSError as error:
        raise_os(error, f"opening {path}")


class Journal:
    """The events of one job, appended. What a crash tore stays a line by itself."""

    def __init__(self, file: IO[bytes]) -> None:
        """``file``: as ``appended`` gives it."""
        self._file = file
        self._lock = threading.Lock()

    def event(self, what: str, **details: object) -> None:
        """Flushed when this returns. Secrets are the caller's to leave out: nothing here knows one."""
        line = json.dumps({"time": now(), "event": what, **details}, default=_plain).encode("utf-8", "surrogateescape") + b"\n"
        with self._lock:
            end = self._file.seek(0, os.SEEK_END)
            torn = end and os.pread(self._file.fileno(), 1, end - 1) != b"\n"
            _append(self._file, b"\n" + line if torn else line)

    @contextmanager
    def step(self, verb: str, **details: object) -> Iterator[dict[str, object]]:
        """A part of the job, with its time. What the block puts into the dictionary is told at its end."""
        self.event("begin", verb=verb, **details)
        began, told = time.monotonic(), dict[str, object]()
        yield told
        self.event("end", verb=verb, seconds=round(time.monotonic() - began, 3), **{**details, **told})


@contextmanager
def journal(job: str, verb: str, **details: object) -> Iterator[Journal]:
    """The journal of a job (an id: letters, digits, dashes), held alone; begins or goes on. Raises RefusedError, NoSpaceError."""
    path = jobs_folder() / f"{job}.jsonl"
    with appended(path) as file:
        hold(file, str(path))
        book = Journal(file)
        book.event("start", job=job, verb=verb, user=user(), host=platform.node(), pid=os.getpid(), **details)
        try:
            yield book
        except BaseException as error:
            with suppress(ImgtoolError):  # of the two, what went wrong in the work is to be told
                book.event("failed", error=text_of(error), hint=getattr(error, "hint", None),
                           exit_code=getattr(error, "exit_code", 1))
            raise
        book.event("done")


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def user() -> str:
    """Who runs this process."""
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return str(os.getuid())


def events(path: Path) -> Iterator[dict[str, object]]:
    """Of a journal, oldest first; a line that a crash tore is left out."""
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found
