"""The near end of ``program``: requests go out, answers come back in any order."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any

from imgtool.endpoints.far.answers import Said, understood
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError, StoppedError, UnreachableError
from imgtool.progress import Stop

HEAD = struct.Struct(">II")
LARGEST = 256 << 20
"""Bytes of the words of an answer, or of what comes with them."""
HEARD_OUT, LOOK = 5.0, 0.2
"""Seconds that a far end may be silent once the caller was stopped; between two looks whether he was."""
Answer = tuple[dict[str, Any], bytes]
ERRORS: dict[int, type[ImgtoolError]] = {errno.ENOSPC: NoSpaceError, errno.EDQUOT: NoSpaceError, errno.EBUSY: RefusedError,
                                         errno.EROFS: RefusedError, errno.EEXIST: RefusedError}
"""What an error number at the far end is here; others are ImgtoolError."""


class FarError(ImgtoolError):
    """The far end could not do it."""

    errno: int | None = None
    """Of errno(3), where its kernel gave one."""


class Wire:
    """A conversation with ``far`` over two pipes. Threads may ask at the same time."""

    def __init__(self, to_far: IO[bytes], from_far: IO[bytes], name: str, why: Callable[[], str] | None = None,
                 stop: Stop | None = None, cut: Callable[[], None] | None = None) -> None:
        """``why``: gives the last words of what carries the pipes, when they have ended. ``cut``: ends it.

        Once ``stop`` is set, a far end that hangs is cut off, and who waits for it gets StoppedError.
        """
        self.name, self._why, self._stop = name, why, stop or Stop()
        self._answers = 0
        self._to, self._from = to_far, from_far
        self._waiting: dict[int, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._next = 0
        self._gone: str | None = None
        self._over = threading.Event()
        threading.Thread(target=self._listen, daemon=True, name=f"far {name}").start()
        if stop and cut:
            threading.Thread(target=self._watch, args=(stop, cut), daemon=True, name=f"stop {name}").start()

    @property
    def gone(self) -> bool:
        return self._gone is not None

    def ask(self, op: str, payload: bytes | memoryview = b"", **details: object) -> Future[Answer]:
        """The answer to come. Raises (then, or when the answer is looked at) UnreachableError, ImgtoolError, StoppedError."""
        future: Future[Answer] = Future()
        with self._lock:
            if self._gone:
                raise self._lost(self._gone)
            self._next += 1
            self._waiting[self._next] = future
            text = json.dumps({"id": self._next, "op": op, **details}).encode("utf-8", "surrogateescape")
            try:
                self._to.write(HEAD.pack(len(text), len(payload)) + text)
                self._to.write(payload)
                self._to.flush()
            except OSError as error:
                raise self._lost(f"the connection is gone ({os.strerror(error.errno or 0)})") from error
        return future

    def call(self, op: str, payload: bytes | memoryview = b"", **details: object) -> Answer:
        return self.ask(op, payload, **details).result()

    def _lost(self, why: str) -> ImgtoolError:
        try:
            self._stop.check()
        except StoppedError as stopped:
            return stopped
        return UnreachableError(f"{self.name}: {why}")

    def _watch(self, stop: Stop, cut: Callable[[], None]) -> None:
        """A thread that waits for an answer, or writes into a full pipe, cannot look at the Stop."""
        seen, since = -1, time.monotonic()
        while not self._over.wait(LOOK):
            if not stop.is_set() or not self._waiting or self._answers != seen:
                seen, since = self._answers, time.monotonic()
            elif time.monotonic() - since > HEARD_OUT:
                cut()
                return

    def _listen(self) -> None:
        why = ""
        try:
            while True:
                text, length = HEAD.unpack(self._exactly(HEAD.size))
                self._deliver(understood(self._exactly(text)), self._exactly(length))
        except EOFError:  # also in the middle of an answer
            pass
        except (OSError, ValueError) as error:
            why = f"the far end sent something else than answers ({error})"
        why = why or (f"the connection ended: {self._why()}" if self._why else "the connection ended")
        with self._lock:
            self._gone = why
            left = list(self._waiting.values())
            self._waiting.clear()
        self._over.set()
        for future in left:
            future.set_exception(self._lost(why))

    def _exactly(self, count: int) -> bytes:
        if count > LARGEST:
            raise ValueError(f"{count} bytes at once")
        data = self._from.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _deliver(self, answer: Said, payload: bytes) -> None:
        with self._lock:
            future = self._waiting.pop(answer["id"], None)
        if future is None:
            return
        self._answers += 1
        if "error" in answer:
            number = answer.get("errno")
            number = number if isinstance(number, int) else None
            error = ERRORS.get(number or 0, FarError)(f"{self.name}: {answer['error']}")
            if isinstance(error, FarError):
                error.errno = number
            future.set_exception(error)
        else:
            future.set_result((answer, payload))
