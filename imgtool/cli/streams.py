"""stdin, stdout and stderr as the program needs them, whatever it was started with."""

from __future__ import annotations

import io
import os
import sys


def prepare() -> None:
    """Closed ones become ``/dev/null``: else an image that is opened gets the number of one, and what is said goes into it.

    Nor does a stderr that is full, or that nobody reads any more, end work that is under way, or change its exit code.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    heard = io.BufferedWriter(_Unheard(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(heard, encoding, "backslashreplace", line_buffering=True)


class _Unheard(io.FileIO):
    """What cannot be written is dropped."""

    def write(self, data: object, /) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        try:
            return super().write(data) or size  # type: ignore[arg-type]  # None: a pipe that is full and does not wait
        except OSError:
            return size
