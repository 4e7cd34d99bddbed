"""A disk of a far host, read over NBD: qemu-nbd there, its socket forwarded by ssh, several reads in flight.

::

    libnbd ── socket here ── ssh -L ── socket there ── qemu-nbd (read only, formats given, nothing probed)
                              │
                              └── its standard input: when that ends, for whatever reason, the shell there ends qemu-nbd

After a cut the reading goes on over a new connection, if the disk is still the same.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import secrets
import select
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from imgtool import files, proc
from imgtool.copying.pool import ordered
from imgtool.endpoints.far import ssh, tunnel
from imgtool.endpoints.far.wire import FarError
from imgtool.errors import DamagedError, ImgtoolError, RefusedError, UnreachableError
from imgtool.formats.disk import Disk
from imgtool.formats.foreign import load_nbd
from imgtool.model.endpoint import Uri
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

STREAMS = 4
PART, PIECE = 4 << 20, 1 << 20
"""What one request asks for, and what a sink is given at once."""
STATUS = 1 << 30
"""Bytes that one question for zeros and holes covers."""
GAP, MOST = 256 << 10, 64 << 20
ZERO = 2
"""Bit of ``base:allocation``."""
TRIES, PAUSE = 8, 0.5
"""Connections that are tried without one byte coming over them; seconds before the second, then twice as many."""
READY_SECONDS = 60
SERVE = """PATH=$PATH:/usr/sbin:/sbin
umask 077
folder=$1 graph=$2
shift 2
mkdir "$folder" || exit 1
trap 'exit 1' HUP INT PIPE TERM
trap 'kill -9 "$server" 2>/dev/null; rm -rf "$folder"' EXIT
for one in "$@"; do stat -L -c 'file %s %i %d %y' -- "$one" || exit 1; done
qemu-nbd --read-only --persistent --shared=16 --socket="$folder/s" "$graph" </dev/null >"$folder/said" 2>&1 &
server=$!
while [ ! -S "$folder/s" ]; do
  kill -0 "$server" 2>/dev/null || { cat "$folder/said" >&2; exit 1; }
  sleep 0.05
done
echo ready
cat >/dev/null"""
"""Shell: serves the image until standard input ends."""


def graph(layers: Sequence[tuple[str, str]], *, block: bool) -> str:
    """In QEMU's words: each file and each format given."""
    node: dict[str, object] | None = None
    for number, (path, form) in reversed(list(enumerate(layers))):
        device = block and number == 0
        file: dict[str, object] = {"driver": "host_device" if device else "file", "filename": path}
        if device:
            file["cache"] = {"direct": True}  # the page cache may have what was there before the last mount
        here: dict[str, object] = {"driver": form, "file": file}
        if node is not None or form == "qcow2":
            here["backing"] = node
        node = here
    return "json:" + json.dumps(node)


class Link:
    """One qemu-nbd, and connections to it. Threads may use it at the same time."""

    def __init__(self, uri: Uri, layers: Sequence[tuple[str, str]], *, block: bool, stop: Stop) -> None:
        self.state: list[str] = []
        self.dead = False
        self._stack = ExitStack()
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        folder = self._stack.enter_context(files.scratch("nbd"))
        self._socket = os.path.join(folder, "s")
        there = f"/tmp/imgtool-{secrets.token_hex(8)}"  # noqa: S108 - made there, for us alone, or it fails
        argv = ssh.argv(uri, ["sh", "-c", SERVE, "sh", there, graph(layers, block=block), *(path for path, _ in layers)],
                        options=tunnel.options(self._socket, f"{there}/s"))
        try:
            pipes = self._stack.enter_context(proc.pipes(argv, keep=ssh.KEEP))
            self._await(pipes, uri, len(layers), stop)
        except BaseException:
            self._stack.close()
            raise

    def _await(self, pipes: proc.Pipes, uri: Uri, layers: int, stop: Stop) -> None:
        said = b""
        end = time.monotonic() + READY_SECONDS
        while b"ready\n" not in said:
            stop.check()
            if time.monotonic() > end:
                raise UnreachableError(f"{uri.host}: qemu-nbd was not ready within {READY_SECONDS} s")
            if select.select([pipes.back], [], [], 0.2)[0]:
                piece = os.read(pipes.back.fileno(), 1 << 16)
                if not piece:
                    raise _refused(uri, pipes.last_words())
                said += piece
        self.state = [line for line in said.decode(errors="replace").splitlines() if line.startswith("file ")]
        if len(self.state) != layers:
            raise DamagedError(f"{uri.host}: asked about {layers} files, it spoke of {len(self.state)}",
                               "does a login there print something by itself?")

    @contextmanager
    def handle(self) -> Iterator[Any]:
        """A connection of its own; one that failed is not used again."""
        try:
            found = self._idle.get_nowait()
        except queue.Empty:
            found = load_nbd().NBD()
            found.add_meta_context("base:allocation")
            found.connect_unix(self._socket)
        yield found
        self._idle.put(found)

    def close(self) -> None:
        with suppress(queue.Empty):
            while True:
                with suppress(load_nbd().Error):
                    self._idle.get_nowait().shutdown()
        self._stack.close()


def _refused(uri: Uri, words: str) -> ImgtoolError:
    return in_use(uri, words) or tunnel.refused(uri, words)


def in_use(uri: Uri, words: str) -> RefusedError | None:
    """QEMU's words where a machine has the image open."""
    if "another process using" in words or "Failed to get" in words:
        return RefusedError(f"{uri.host}: the disk is in use: {words}", "power the machine off")
    return None


class FarDisk:
    """A ``Reader`` over NBD."""

    resumes = True
    disk: Disk | None = None

    def __init__(self, uri: Uri, layers: Sequence[tuple[str, str]], *, block: bool, control: Control) -> None:
        """Raises MissingToolError, UnreachableError, RefusedError (in use), DamagedError; nothing is open then."""
        load_nbd()
        self._uri, self._layers, self._block = uri, layers, block
        self._lock = threading.Lock()
        self._failures = 0
        self._link = Link(uri, layers, block=block, stop=control.stop)
        self._state = self._link.state
        try:
            self.size: int = self._ask(lambda handle: handle.get_size(), control.stop)
        except BaseException:
            self.close()
            raise
        self.state: Mapping[str, object] = {"files": [[path, said] for (path, _), said in zip(layers, self._state, strict=True)]}

    def holes(self) -> Iterator[tuple[int, int]]:
        for start, end, zero in self._map(0, self.size, Stop()):
            if zero:
                yield start, end

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        """Raises UnreachableError once the far end cannot be reached any more."""
        def fetch(part: tuple[int, int]) -> None:
            control.rate.take(part[1] - part[0], control.stop)
            data = memoryview(self._ask(lambda handle: handle.pread(part[1] - part[0], part[0]), control.stop))
            start = part[0]
            while start < part[1]:
                end = min(part[1], start // PIECE * PIECE + PIECE)
                sink.write(start, data[start - part[0]:end - part[0]])
                start = end

        with ThreadPoolExecutor(STREAMS, thread_name_prefix="nbd") as pool:
            for _ in ordered(pool, fetch, self._parts(wanted, sink, control)):
                control.stop.check()

    def pread(self, start: int, end: int, stop: Stop) -> bytes:
        """Raises UnreachableError, FarError (a bad sector).

        In one piece (DF): of a read that it may answer in several, QEMU ends the connection where it fails.
        """
        nbd = load_nbd()

        def one(handle: Any) -> bytes:
            try:
                return bytes(handle.pread_structured(end - start, start, lambda *_: 0, flags=nbd.CMD_FLAG_DF))
            except nbd.Error as error:
                if error.errnum == errno.EIO and handle.aio_is_ready():  # it still speaks to us
                    bad = FarError(f"{self._uri.host}: {self._layers[0][0]} cannot be read at byte {start} or behind it")
                    bad.errno = errno.EIO
                    raise bad from error
                raise

        found: bytes = self._ask(one, stop)
        return found

    def _parts(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> Iterator[tuple[int, int]]:
        """What must be asked for; zeros go to the sink at once."""
        for first, last in wanted:
            for start, end, zero in _joined(self._map(first, last, control.stop)):
                control.stop.check()
                if zero:
                    sink.zero(start, end - start)
                    continue
                while start < end:
                    until = min(end, start // PART * PART + PART)
                    yield start, until
                    start = until  # noqa: PLW2901

    def _map(self, start: int, end: int, stop: Stop) -> Iterator[tuple[int, int, bool]]:
        """(start, end, reads as zeros), complete and in order. Raises DamagedError where the far end says nothing of a range."""
        while start < end:
            asked = start
            for length, flags in self._ask(lambda handle, at=start: _status(handle, at, min(STATUS, end - at)), stop):
                until = min(start + length, end)
                if until > start:
                    yield start, until, bool(flags & ZERO)
                start = until
            if start == asked:
                path = self._layers[0][0]
                raise DamagedError(f"{self._uri.host}: qemu-nbd does not say what {path} holds from byte {start} on",
                                   "look at it there: qemu-img map IMAGE")

    def _ask(self, work: Any, stop: Stop) -> Any:
        """Over a new connection where the old one was cut."""
        nbd = load_nbd()
        while True:
            stop.check()
            link = self._link
            try:
                with link.handle() as handle:
                    found = work(handle)
            except nbd.Error as error:
                self._again(link, error, stop)
            else:
                self._failures = 0
                return found

    def _again(self, link: Link, error: Exception, stop: Stop) -> None:
        """Once for all threads whose connection was cut. Raises UnreachableError, DamagedError."""
        with self._lock:
            while link is self._link:
                self._failures += 1
                if self._failures > TRIES:
                    raise UnreachableError(f"{self._uri.host}: reading {self._layers[0][0]}: {error}",
                                           "the same command goes on where it stopped") from error
                if self._failures > 1:
                    _sleep(PAUSE * 2 ** (self._failures - 2), stop)
                if not link.dead:
                    link.dead = True
                    link.close()
                with suppress(UnreachableError):
                    self._link = self._opened(stop)

    def _opened(self, stop: Stop) -> Link:
        link = Link(self._uri, self._layers, block=self._block, stop=stop)
        if link.state != self._state:
            link.close()
            raise DamagedError(f"{self._uri.host}: {self._layers[0][0]} has changed while it was read",
                               "see who writes to it, and begin again with --discard-partial")
        return link

    def close(self) -> None:
        if not self._link.dead:
            self._link.close()


def _joined(ranges: Iterator[tuple[int, int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Short zeros between data are read with it: a question more costs more than they do."""
    begin = until = 0
    for start, end, zero in ranges:
        if zero and (begin == until or end - start >= GAP):
            if until > begin:
                yield begin, until, False
            yield start, end, True
            begin = until = end
        else:
            begin, until = (begin, end) if until > begin else (start, end)
            if until - begin >= MOST:  # reading begins before all of the map is known
                yield begin, until, False
                begin = until
    if until > begin:
        yield begin, until, False


def _status(handle: Any, offset: int, length: int) -> list[tuple[int, int]]:
    found: list[int] = []

    def on_extents(context: str, _offset: int, entries: list[int], _error: object) -> None:
        if context == "base:allocation":
            found.extend(entries)

    handle.block_status(length, offset, on_extents)
    return list(zip(found[::2], found[1::2], strict=True))


def _sleep(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stop.check()
        time.sleep(0.1)
