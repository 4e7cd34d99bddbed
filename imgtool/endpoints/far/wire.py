"""The near end of ``program``: requests go out, answers come back in any order."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any

from imgtool.endpoints.far.answers import Said, understood
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError, UnreachableError

HEAD = struct.Struct(">II")
LARGEST = 256 << 20
"""Bytes of the words of an answer, or of what comes with them."""
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

    def __init__(self, to_far: IO[bytes], from_far: IO[bytes], name: str, why: Callable[[], str] | None = None) -> None:
        """``why``: gives the last words of what carries the pipes, when they have ended."""
        self.name, self._why = name, why
        self.received = 0
        """Bytes that have come over the way."""
        self._to, self._from = to_far, from_far
        self._waiting: dict[int, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._next = 0
        self._gone: str | None = None
        threading.Thread(target=self._listen, daemon=True, name=f"far {name}").start()

    @property
    def gone(self) -> bool:
        return self._gone is not None

    def ask(self, op: str, payload: bytes | memoryview = b"", **details: object) -> Future[Answer]:
        """The answer to come. Raises (then, or when the answer is looked at) UnreachableError, ImgtoolError."""
        future: Future[Answer] = Future()
        with self._lock:
            if self._gone:
                raise UnreachableError(f"{self.name}: {self._gone}")
            self._next += 1
            self._waiting[self._next] = future
            text = json.dumps({"id": self._next, "op": op, **details}).encode("utf-8", "surrogateescape")
            try:
                self._to.write(HEAD.pack(len(text), len(payload)) + text)
                self._to.write(payload)
                self._to.flush()
            except OSError as error:
                raise UnreachableError(f"{self.name}: the connection is gone ({os.strerror(error.errno or 0)})") from error
        return future

    def call(self, op: str, payload: bytes | memoryview = b"", **details: object) -> Answer:
        return self.ask(op, payload, **details).result()

    def _listen(self) -> None:
        why = ""
        try:
            while True:
                text, length = HEAD.unpack(self._exactly(HEAD.size))
                self._deliver(understood(self._exactly(text)), self._exactly(length))
                self.received += HEAD.size + text + length
        except EOFError:  # also in the middle of an answer
            pass
        except (OSError, ValueError) as error:
            why = f"the far end sent something else than answers ({error})"
        why = why or (f"the connection ended: {self._why()}" if self._why else "the connection ended")
        with self._lock:
            self._gone = why
            left = list(self._waiting.values())
            self._waiting.clear()
        for future in left:
            future.set_exception(UnreachableError(f"{self.name}: {why}"))

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
        if "error" in answer:
            number = answer.get("errno")
            number = number if isinstance(number, int) else None
            error = ERRORS.get(number or 0, FarError)(f"{self.name}: {answer['error']}")
            if isinstance(error, FarError):
                error.errno = number
            future.set_exception(error)
        else:
            future.set_result((answer, payload))
