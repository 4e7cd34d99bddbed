"""Chunks of a copy against the disk that they come from: fetched, and compared without sending them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from imgtool.copying.receive import Chunks, Receiver
from imgtool.endpoints.ranges import Range, Ranges
from imgtool.progress import Bar, Control

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

STREAMS = 8
"""Requests on the way at once."""


class Disk(Protocol):
    """What is read from."""

    def read(self, wanted: Iterable[Range], sink: Sink, control: Control) -> None: ...

    def digest(self, start: int, end: int, used: list[Range]) -> bytes: ...


def in_threads(work: Callable[[threading.Event], None]) -> None:
    """The same in STREAMS threads; who fails sets the event, and its error is raised once all have ended."""
    over = threading.Event()

    def watched() -> None:
        try:
            work(over)
        except BaseException:
            over.set()
            raise

    with ThreadPoolExecutor(STREAMS, thread_name_prefix="metal") as pool:
        futures = [pool.submit(watched) for _ in range(STREAMS)]
    for future in futures:
        future.result()


def fetch(disk: Disk, receiver: Receiver, free: Ranges, numbers: Iterable[int], bar: Bar, control: Control) -> None:
    """Reads whole chunks of the copy; what is free becomes zeros."""
    sink = Chunks(receiver, bar)

    def wanted() -> Iterator[Range]:
        for number in numbers:
            start, end = _span(receiver, number)
            for low, high in free.within(start, end):
                sink.zero(low, high - low)
            yield from free.outside(start, end)

    disk.read(wanted(), sink, control)


def differing(disk: Disk, receiver: Receiver, free: Ranges, numbers: Iterable[int], control: Control) -> list[int]:
    """Chunks that the copy lacks, or whose bytes on the disk, with zeros for what is free, are not those of the copy.

    Hashed at the far end.
    """
    blocks, todo, lock = receiver.blocks, iter(numbers), threading.Lock()
    found: list[int] = []

    def work(over: threading.Event) -> None:
        while not over.is_set():
            with lock:
                number = next(todo, None)
            if number is None:
                return
            control.stop.check()
            start, end = _span(receiver, number)
            if number not in blocks or disk.digest(start, end, [*free.outside(start, end)]) != blocks.digest_of(number):
                found.append(number)

    in_threads(work)
    return sorted(found)


def used_bytes(receiver: Receiver, free: Ranges, numbers: Iterable[int]) -> int:
    """What has to be read of these chunks."""
    spans = (_span(receiver, number) for number in numbers)
    return sum(high - low for start, end in spans for low, high in free.outside(start, end))


def _span(receiver: Receiver, number: int) -> Range:
    start = number * receiver.blocks.chunk
    return start, min(start + receiver.blocks.chunk, receiver.blocks.size)
