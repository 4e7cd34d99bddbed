"""Disks read over HTTPS by several connections at once, in ranges, so that a cut costs little and a stopped run goes on.

A connection asks for ``REQUEST`` bytes and hands them on in pieces of ``PIECE``: what was handed on is done, only the piece
that was under way when a connection broke is read again. Threads suffice: reading into a buffer releases the interpreter lock.
Larger pieces leave the processor's cache and are slower. Connections join one after another while those that are there leave
half of the processors idle: where the network is the limit there are soon as many as the session allows; where decrypting is,
more of them would only be in each other's way.

The server sends holes as zeros: they become holes again here, but cost the line as much as data. Of a disk that takes far less
than its size (``RemoteDisk.allocated``), a lease sends less.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imgtool.copying.zeros import all_zero
from imgtool.endpoints.vsphere import tls
from imgtool.endpoints.vsphere.folder import Folder, StorePath, refusal
from imgtool.errors import DamagedError, ImgtoolError, UnreachableError, text_of
from imgtool.model.endpoint import Extent
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

log = logging.getLogger(__name__)

PIECE = 1 << 20
REQUEST = 32 << 20
FIRST = 2
"""Connections at the beginning."""
ATTEMPTS = 8
"""In a row without a byte: with the pauses between them about a minute."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds; also of what a server asks for in Retry-After."""
RESET = struct.pack("ii", 1, 0)
"""``struct linger`` of socket(7): close sends a reset."""
LOOK = 0.2
"""Seconds between two looks whether to stop."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server may be silent, and how often it may fail. Seconds."""

    answer: float = tls.ANSWER_SECONDS
    attempts: int = ATTEMPTS
    pause: float = FIRST_PAUSE


def read(folder: Folder, extents: Iterable[Extent], wanted: Iterable[tuple[int, int]], sink: Sink, control: Control, *,
         patience: Patience | None = None) -> None:
    """Reads the ranges ``wanted`` (start, end) of a disk into ``sink``; holes between the extents are zeros.

    What the sink is given to write never crosses a multiple of PIECE of the disk: a block map with that chunk gets whole chunks,
    but for those in which an extent ends.
    At most as many connections as the session allows. Raises UnreachableError, RefusedError, DamagedError, StoppedError; what the
    sink has been given by then is whole.
    """
    job = _Job(folder, tuple(extents), wanted, sink, control, patience or Patience())
    with ThreadPoolExecutor(folder.session.streams, thread_name_prefix="range") as pool:
        futures: list[Future[None]] = []
        try:
            _carry_out(job, lambda: futures.append(pool.submit(job.work)), futures)
        finally:
            job.end()
    for future in futures:
        future.result()


def _carry_out(job: _Job, join: Callable[[], None], futures: list[Future[None]]) -> None:
    """Until all are done or one has failed. ``join`` adds a connection. Raises StoppedError and what the first has raised."""
    most, waiting = job.folder.session.streams, True
    while len(futures) < min(FIRST, most):
        join()
    while waiting:
        job.control.stop.check()
        done, left = wait(futures, LOOK, FIRST_EXCEPTION)
        for future in done:
            future.result()
        waiting = bool(left)
        if job.idle() and not done and len(futures) < most:
            join()


@dataclass(frozen=True)
class Range:
    """Of one file: bytes ``start`` to ``end``, that go to ``start + shift`` of the disk."""

    extent: Extent
    start: int
    end: int

    @property
    def shift(self) -> int:
        return self.extent.start - self.extent.offset


@dataclass
class Load:
    """Of the processors, by the connections of one disk."""

    processors: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    since: float = field(default_factory=time.monotonic)
    spent: float = 0.0

    def share(self, now: float) -> float:
        """Since it was asked before, or made."""
        share = self.spent / (self.processors * max(now - self.since, 1e-6))
        self.since, self.spent = now, 0.0
        return share


class _Job:
    """What the connections of one disk share."""

    def __init__(self, folder: Folder, extents: tuple[Extent, ...], wanted: Iterable[tuple[int, int]], sink: Sink,
                 control: Control, patience: Patience) -> None:
        self.folder, self.sink, self.control, self.patience = folder, sink, control, patience
        self._lock = threading.Lock()
        self._ranges = cut(extents, wanted, sink, REQUEST)
        self._open: set[http.client.HTTPSConnection] = set()
        self._over = False
        self._load = Load()

    def spent(self, seconds: float) -> None:
        """Of a processor's time, by a connection."""
        with self._lock:
            self._load.spent += seconds

    def idle(self) -> bool:
        """Whether the connections have left half of the processors idle since this was asked before."""
        with self._lock:
            return self._load.share(time.monotonic()) < 0.5

    def next(self) -> Range | None:
        with self._lock:
            return None if self._over else next(self._ranges, None)

    def end(self) -> None:
        """Closes what is open, so that nobody waits for a server that is silent.

        Not by SSLSocket.shutdown: that takes TLS off first, and a thread that is reading would go on with the encrypted bytes.
        """
        with self._lock:
            self._over = True
            opened = list(self._open)
        for made in opened:
            if (sock := made.sock) is not None:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def check(self) -> None:
        self.control.stop.check()
        if self._over:
            raise _OverError

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, LOOK))

    def connect(self) -> http.client.HTTPSConnection:
        session = self.folder.session
        made = tls.connection(session.account.host, session.account.port, session.context, self.patience.answer)
        with self._lock:
            self._open.add(made)
        return made

    def close(self, made: http.client.HTTPSConnection) -> None:
        """At once, with a reset: what is left of an answer is not wanted, and the server need not try to send it."""
        with self._lock:
            self._open.discard(made)
        if made.sock is not None:
            with suppress(OSError):  # closed already: the handshake failed
                made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        made.close()

    def work(self) -> None:
        """One connection, from the first range to the last."""
        with suppress(_OverError):
            _Worker(self).run()


class _OverError(Exception):
    """Another connection has failed: nothing more to do."""


def cut(extents: tuple[Extent, ...], wanted: Iterable[tuple[int, int]], sink: Sink, request: int) -> Iterator[Range]:
    """Requests, in ascending order, at multiples of ``request``. What no extent holds is told to the sink."""
    for start, end in _joined(wanted, request):
        position = start
        for extent in extents:
            begin, stop = max(position, extent.start), min(end, extent.start + extent.length)
            if begin >= stop:
                continue
            if begin > position:
                sink.zero(position, begin - position)
            position = stop
            shift = extent.start - extent.offset
            while begin < stop:
                to = min(stop, (begin // request + 1) * request)
                yield Range(extent, begin - shift, to - shift)
                begin = to
        if position < end:
            sink.zero(position, end - position)


def _joined(wanted: Iterable[tuple[int, int]], request: int) -> Iterator[tuple[int, int]]:
    """Neighbours as one, so that chunk after chunk does not become request after request."""
    start = end = 0
    for begin, stop in wanted:
        if begin != end or end // request > start // request:
            if end > start:
                yield start, end
            start = begin
        end = stop
    if end > start:
        yield start, end


class _Failure(Exception):  # noqa: N818 - an event, not an error yet
    """An attempt that brought nothing more; ``again`` says after how many seconds the server wants to be asked again."""

    def __init__(self, error: ImgtoolError, again: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.again = error, again


class _Worker:
    def __init__(self, job: _Job) -> None:
        self._job = job
        self._made: http.client.HTTPSConnection | None = None
        self._buffer = memoryview(bytearray(PIECE))

    def run(self) -> None:
        try:
            while (wanted := self._job.next()) is not None:
                self._all(wanted)
        finally:
            self._drop()

    def _all(self, wanted: Range) -> None:
        """A range to its end, in as many attempts as it takes; those that brought something do not count."""
        position, failed, clock = wanted.start, 0, time.thread_time()
        while position < wanted.end:
            before = position
            try:
                with self._job.folder.session.slots:
                    for reached in self._attempt(wanted, position):
                        position, before_it, clock = reached, clock, time.thread_time()
                        self._job.spent(clock - before_it)
                        self._job.check()
            except _Failure as failure:
                self._drop()
                failed = failed + 1 if position == before else 1
                if failed >= self._job.patience.attempts:
                    raise failure.error from failure
                log.debug("%s: %s, once more", wanted.extent.path, failure)
                self._job.pause(self._delay(failed, failure.again))

    def _delay(self, failed: int, again: float | None) -> float:
        """Doubled each time, and of random length, so that the connections do not all come back at once."""
        if again is not None:
            return min(again, LONGEST_PAUSE)
        return min(self._job.patience.pause * 2.0 ** (failed - 1), LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def _drop(self) -> None:
        if self._made is not None:
            self._job.close(self._made)
        self._made = None

    def _attempt(self, wanted: Range, position: int) -> Iterator[int]:
        """Asks from ``position`` on; gives the position after each piece that the sink has. Raises _Failure."""
        cookie = self._job.folder.session.cookie()
        with self._breaking(wanted):
            answer = self._ask(wanted, position, cookie)
        self._judge(answer, wanted, position, cookie)
        while position < wanted.end:
            piece = self._buffer[:min(PIECE - (position + wanted.shift) % PIECE, wanted.end - position)]
            with self._breaking(wanted):
                _fill(answer, piece)
            self._job.control.rate.take(len(piece), self._job.control.stop)
            self._job.check()
            self._hand_on(position + wanted.shift, piece)
            position += len(piece)
            yield position
        with self._breaking(wanted):
            answer.read()  # its end, so that the connection can be used again

    @contextmanager
    def _breaking(self, wanted: Range) -> Iterator[None]:
        """What breaks a connection is a _Failure. Errors of the sink are none."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self._job.check()
            host, why = self._job.folder.session.account.host, text_of(error)
            raise _Failure(UnreachableError(f"{host}: reading {wanted.extent.path} broke off: {why}",
                                            "run the same command again: it goes on here")) from error

    def _ask(self, wanted: Range, position: int, cookie: str) -> http.client.HTTPResponse:
        folder = self._job.folder
        if self._made is None:
            self._made = self._job.connect()
            self._made.connect()
            self._job.check()  # the end of the job shuts down only what is connected
        self._made.request("GET", folder.url(StorePath.parse(wanted.extent.path)),
                           headers={"Cookie": cookie, "Range": f"bytes={position}-{wanted.end - 1}"})
        return self._made.getresponse()

    def _judge(self, answer: http.client.HTTPResponse, wanted: Range, position: int, cookie: str) -> None:
        """Raises unless these are the bytes that were asked for."""
        session, what = self._job.folder.session, wanted.extent.path
        if answer.status in (http.client.PARTIAL_CONTENT, http.client.REQUESTED_RANGE_NOT_SATISFIABLE):
            said = str(answer.headers.get("Content-Range", ""))
            if said.partition("/")[0] != f"bytes {position}-{wanted.end - 1}":
                raise DamagedError(f"{what}: asked for bytes {position} to {wanted.end - 1}, got {said[:60]!r}",
                                   "the file is shorter than its descriptor says, or was changed")
            return
        error = refusal(answer.status, what, session)
        if answer.status == http.client.UNAUTHORIZED:
            session.renew(cookie)
            raise _Failure(error, 0)
        if answer.status in (http.client.SERVICE_UNAVAILABLE, http.client.TOO_MANY_REQUESTS, http.client.BAD_GATEWAY,
                             http.client.GATEWAY_TIMEOUT, http.client.INTERNAL_SERVER_ERROR):
            raise _Failure(error, _seconds(answer.headers.get("Retry-After")))
        raise error

    def _hand_on(self, offset: int, piece: memoryview) -> None:
        if all_zero(piece):
            self._job.sink.zero(offset, len(piece))
        else:
            self._job.sink.write(offset, piece)


def _fill(answer: http.client.HTTPResponse, piece: memoryview) -> None:
    have = 0
    while have < len(piece):
        count = answer.readinto(piece[have:])
        if not count:
            raise http.client.IncompleteRead(b"", len(piece) - have)
        have += count


def _seconds(text: str | None) -> float | None:
    """Of Retry-After; dates, which hosts do not send, are passed over."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else None
