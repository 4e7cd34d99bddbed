"""What accompanies long work: how far it is, whether it shall stop, how fast it may go.

``Progress`` is shaped like tqdm: ``bar(total, what)`` gives something with ``update(n)``; a total of 0 is work of unknown
length. Every copier takes one ``Control``, which bundles these. Units are bytes unless said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

from imgtool.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""That end the program."""
JSON_INTERVAL = 0.5
"""Seconds between two lines of ``--progress json``."""
ALL = "all disks"
"""What the bar of several disks together is called."""
KEPT_INTERVAL, KEPT_SAMPLES = 1.0, 16
"""Seconds between two states of ``Kept``; the rate is that between so many of them."""


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


@contextmanager
def ends_at_once() -> Iterator[None]:
    """A signal ends the block by StoppedError: it waits for somebody to type, and cannot look at a Stop."""
    def end(signum: int, _frame: FrameType | None) -> None:
        raise StoppedError(signum)

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield
        return
    before = {one: handler for one in SIGNALS if callable(handler := signal.getsignal(one))}  # nohup stays nohup
    try:
        for one in before:
            signal.signal(one, end)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


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


class NoBar:
    def update(self, n: int) -> None:
        pass


class Silent:
    """Nothing is shown: pipes, tests."""

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Bar]:
        yield NoBar()


def watched(progress: Progress) -> bool:
    """Whether anybody sees it: else nothing need be looked at for it."""
    while isinstance(progress, (Named, _Part)):
        progress = progress.below
    return not isinstance(progress, Silent)


@contextmanager
def estimated(progress: Progress, total: Callable[[], int], what: str) -> Iterator[Bar]:
    """A bar of what takes time. ``total`` is nearly that: the bar never goes past it, and is full where the block ends well."""
    size = total() if watched(progress) else 0
    with progress.bar(size, what) as bar:
        upto = _UpTo(bar, size)
        yield upto
        upto.update(upto.left)


class _UpTo:
    def __init__(self, below: Bar, total: int) -> None:
        self._below, self.left = below, total
        self._lock = threading.Lock()

    def update(self, n: int) -> None:
        with self._lock:
            n = min(n, self.left)
            self.left -= n
        if n:
            self._below.update(n)


class Named:
    """Several things under way at once: each line says of which it speaks."""

    def __init__(self, below: Progress, name: str) -> None:
        self.below, self._name = below, name

    def bar(self, total: int, what: str) -> AbstractContextManager[Bar]:
        return self.below.bar(total, f"{what} {self._name}")


@contextmanager
def together(progress: Progress, size: Callable[[int], int], count: int) -> Iterator[Together]:
    """A bar for each of ``count`` disks, and one of all of them. ``size(number)``: bytes that each will move, nearly."""
    several = count > 1 and watched(progress)
    sizes = [size(number) for number in range(count)] if several else [0] * count
    with progress.bar(sum(sizes), ALL) if several else nullcontext(NoBar()) as whole:
        yield Together(progress, sizes, whole)


class Together:
    def __init__(self, below: Progress, sizes: Sequence[int], whole: Bar) -> None:
        self._below, self._sizes, self._whole = below, sizes, whole

    def of(self, number: int, name: str) -> Progress:
        return _Part(Named(self._below, name), self._whole, self._sizes[number])


class _Part:
    """One of several. Its first bar is its share of the whole; later ones look at the same bytes once more."""

    def __init__(self, below: Progress, whole: Bar, size: int) -> None:
        self.below, self._whole, self._size = below, whole, size
        self._first = True

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Bar]:
        first, self._first = self._first, False
        with self.below.bar(total, what) as bar:
            if not first:
                yield bar
                return
            share = _Share(bar, self._whole, total, self._size)
            yield share
            share.end()


class _Share:
    """``size`` of the whole when all of ``total`` is done."""

    def __init__(self, bar: Bar, whole: Bar, total: int, size: int) -> None:
        self._bar, self._whole, self._total, self._size = bar, whole, total, size
        self._done = self._told = 0
        self._lock = threading.Lock()

    def update(self, n: int) -> None:
        self._bar.update(n)
        with self._lock:
            self._done += n
            self._tell(min(self._size, self._size * self._done // self._total) if self._total else 0)

    def end(self) -> None:
        with self._lock:
            self._tell(self._size)

    def _tell(self, done: int) -> None:
        if done > self._told:
            self._whole.update(done - self._told)
            self._told = done


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


class Kept:
    """How far all is, in a small file for other processes, which is replaced at most once a second and is gone at the end.

    ``{"pid", "time", "bars": [{"what", "done", "total", "rate"}], "over": {first word of what: done}}``; ``time`` is in seconds
    since 1970. It is passed on, too.
    """

    def __init__(self, path: Path, below: Progress | None = None) -> None:
        self._path, self._below = path, below or Silent()
        self._bars: list[_KeptBar] = []
        self._over: dict[str, int] = {}
        self._lock = threading.Lock()
        self._said = -KEPT_INTERVAL

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Bar]:
        with self._below.bar(total, what) as below:
            if what == ALL:  # whoever reads the file adds the others up
                yield below
                return
            bar = _KeptBar(self, below, total, what)
            with self._lock:
                self._bars.append(bar)
            self.keep()
            try:
                yield bar
            finally:
                with self._lock:
                    self._bars.remove(bar)
                    kind = what.partition(" ")[0]
                    self._over[kind] = self._over.get(kind, 0) + bar.done
                    if not self._bars:
                        self._said = -KEPT_INTERVAL
                        with suppress(OSError):
                            self._path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Writes the file, if it is time for that. That it cannot be written is no reason to fail."""
        with self._lock:
            if not self._bars or time.monotonic() - self._said < KEPT_INTERVAL:
                return
            self._said = time.monotonic()
            text = json.dumps({"pid": os.getpid(), "time": time.time(), "over": self._over,
                               "bars": [bar.said(self._said) for bar in self._bars]})
            new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                new.write_text(text, encoding="utf-8", errors="surrogateescape")
                new.replace(self._path)


class _KeptBar:
    def __init__(self, kept: Kept, below: Bar, total: int, what: str) -> None:
        self._kept, self._below, self._total, self._what = kept, below, total, what
        self.done = 0
        self._samples = deque([(time.monotonic(), 0)], KEPT_SAMPLES)
        self._lock = threading.Lock()

    def update(self, n: int) -> None:
        with self._lock:
            self.done += n
        self._below.update(n)
        self._kept.keep()

    def said(self, now: float) -> dict[str, object]:
        self._samples.append((now, self.done))
        since, before = self._samples[0]
        rate = (self.done - before) / (now - since) if now > since else 0
        return {"what": self._what, "done": self.done, "total": self._total, "rate": round(rate)}


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
    of: str | None = None
    """``BATCH/NAME``: the machine of a batch that this is done for, as its journal says."""
    disks: Disks = field(default_factory=Disks)
