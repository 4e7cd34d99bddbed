"""What accompanies long work: how far it is, whether it shall stop, how fast it may go.

``Progress`` is shaped like tqdm: ``bar(total, what)`` gives something with ``update(n)``; a total of 0 is work of unknown
length. Every copier takes one ``Control``, which bundles these. Units are bytes unless said.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import IO, Protocol

from imgtool.errors import StoppedError

JSON_INTERVAL = 0.5
"""Seconds between two lines of ``--progress json``."""


class Stop:
    """Set by a signal; asked by every loop that lasts."""

    def __init__(self, parent: Stop | None = None) -> None:
        """``parent``: stops this one too."""
        self._event = threading.Event()
        self._signum = int(signal.SIGTERM)
        self._parent = parent

    def set(self, signum: int = signal.SIGTERM) -> None:
        self._signum = int(signum)
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set() or (self._parent is not None and self._parent.is_set())

    def check(self) -> None:
        """Raises StoppedError once the stop was asked for."""
        if self._parent is not None:
            self._parent.check()
        if self._event.is_set():
            raise StoppedError(self._signum)


class Rate:
    """At most ``limit`` bytes a second, over all threads that share it; None is no limit."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int, stop: Stop) -> None:
        """Waits until ``count`` bytes may pass."""
        if not self.limit:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self.limit
        while (left := begin - time.monotonic()) > 0:
            stop.check()
            time.sleep(min(left, 0.1))


class Bar(Protocol):
    """A length of work under way."""

    def update(self, n: int) -> object: ...


class Progress(Protocol):
    """Where progress is shown."""

    def bar(self, total: int, what: str) -> AbstractContextManager[Bar]: ...


class _NoBar:
    def update(self, n: int) -> None:
        pass


class Silent:
    """Nothing is shown: pipes, tests."""

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Bar]:
        yield _NoBar()


class Named:
    """Several things under way at once: each line says of which it speaks."""

    def __init__(self, below: Progress, name: str) -> None:
        self._below, self._name = below, name

    def bar(self, total: int, what: str) -> AbstractContextManager[Bar]:
        return self._below.bar(total, f"{what} {self._name}")


class JsonLines:
    """One JSON object a line: ``what, done, total`` (bytes), ``rate`` (bytes a second), ``remaining`` (seconds)."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Bar]:
        bar = _JsonBar(self._out, total, what)
        bar.say()
        yield bar
        bar.say()


class _JsonBar:
    def __init__(self, out: IO[str], total: int, what: str) -> None:
        self._out, self._total, self._what = out, total, what
        self._done = 0
        self._began = self._said = time.monotonic()

    def update(self, n: int) -> None:
        self._done += n
        if time.monotonic() - self._said >= JSON_INTERVAL:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        rate = self._done / max(self._said - self._began, 1e-6)
        remaining = (self._total - self._done) / rate if rate else None
        line = {"what": self._what, "done": self._done, "total": self._total, "rate": round(rate),
                "remaining": None if remaining is None else round(remaining, 1)}
        print(json.dumps(line), file=self._out, flush=True)


class Terminal:
    """tqdm's bar: rate and remaining time."""

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Bar]:
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024, dynamic_ncols=True,
                  leave=False, file=sys.stderr, bar_format=None if total else "{desc} ...") as bar:
            yield bar


class Disks:
    """Told what becomes of the disks of a machine; this one forgets it."""

    def there(self, count: int) -> None:
        """So many are to be copied."""

    def whole(self, number: int, done: object) -> None:
        """Disk ``number`` is copied, compared and flushed: it is not copied again. Threads may call it at the same time."""


@dataclass(frozen=True)
class Control:
    """What every copier is given."""

    progress: Progress = field(default_factory=Silent)
    stop: Stop = field(default_factory=Stop)
    rate: Rate = field(default_factory=Rate)
    disks: Disks = field(default_factory=Disks)
