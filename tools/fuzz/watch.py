"""One input, and what must hold of it. What does not is kept once for each place in the program."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
import traceback
from pathlib import Path

from imgtool.errors import ImgtoolError
from tools.fuzz.target import Reader

SECONDS = 2.0
"""Of processor time, for one input, in a program that is slowed down by the counting of its branches."""
MEMORY = 256 << 20
"""Bytes by which one input may raise the peak."""
ADDRESS_SPACE = 3 << 30


class Watch:
    """Reads inputs and counts what comes of them."""

    def __init__(self, reader: Reader, kept: Path) -> None:
        self._reader, self._kept = reader, kept
        self.read = self.refused = 0
        self.found: set[str] = set()

    def __call__(self, data: bytes) -> None:
        began, peak, modules = time.process_time(), _peak(), len(sys.modules)
        try:
            self._reader(data)
            self.read += 1
        except ImgtoolError:
            self.refused += 1
        except Exception as error:
            self._found(data, place(error), "".join(traceback.format_exception(error)[-4:]))
        took = time.process_time() - began
        if took > SECONDS and len(sys.modules) == modules:  # importing what counts its branches takes seconds, once
            self._found(data, "slow", f"{took:.1f} s of processor time")
        if (grown := _peak() - peak) > MEMORY:
            self._found(data, "memory", f"{grown >> 20} MiB more")

    def _found(self, data: bytes, what: str, details: str) -> None:
        if what in self.found:
            return
        self.found.add(what)
        name = self._kept / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
        name.write_bytes(data)
        print(f"FOUND {what} in {name}\n{details}", flush=True)


def place(error: BaseException) -> str:
    """What escaped, and the innermost line of the program that let it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/imgtool/" in frame.filename]
    where = f"{frames[-1].filename.rpartition('/imgtool/')[2]}:{frames[-1].lineno}" if frames else "the oracle"
    return f"{type(error).__name__} at {where}" if frames or not str(error) else f"{type(error).__name__}: {str(error)[:60]}"


def limit() -> None:
    """A bomb is a MemoryError here, not the end of the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
