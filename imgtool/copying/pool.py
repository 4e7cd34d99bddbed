"""Work on all cores, in order, with a bounded number of pieces in flight: memory does not grow with the disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from imgtool.errors import StoppedError

if TYPE_CHECKING:
    from imgtool.progress import Stop

In = TypeVar("In")
Out = TypeVar("Out")

DISKS_AT_ONCE = 2
"""Disks under way: one waits for the storage while the other computes; more only make the storage jump."""
WORKERS = max(2, min(4, os.cpu_count() or 2))
"""That compute."""
UNPACKING = 8
"""That compute and wait for the storage by turns."""
WAITING = 16
"""That wait for the storage: the requests that it has at a time, whatever the number of processors."""
IN_FLIGHT = 2 * WORKERS


def ordered(pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In],
            ahead: int = IN_FLIGHT) -> Iterator[tuple[In, Out]]:
    """``work`` of each item, in the order of the items; at most ``ahead`` are begun ahead. Raises what ``work`` raises."""
    waiting: deque[tuple[In, Future[Out]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def disks_together(one: Callable[[int], Out], count: int, stop: Stop) -> list[Out]:
    """``one(0)``, ``one(1)``, …, DISKS_AT_ONCE of them together. The first that fails sets ``stop``, and is what is raised.

    ``stop``: one that only they look at, whose parent is the caller's. Raises StoppedError.
    """
    with ThreadPoolExecutor(DISKS_AT_ONCE, thread_name_prefix="disk") as pool:
        running = [pool.submit(one, number) for number in range(count)]
        done, waiting = wait(running, return_when=FIRST_EXCEPTION)
        if waiting or any(job.exception() for job in done):
            stop.set()
            for job in waiting:
                job.cancel()
    errors = [error for job in running if not job.cancelled() and (error := job.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error
    stop.check()
    return [job.result() for job in running]


class Turns:
    """For the part of the work of each item that must be done in the order of the items: they have numbers, from 0 on.

    Workers begin items in their order, so that who waits here waits only for those that have begun.
    """

    def __init__(self) -> None:
        self._next = 0
        self._over: set[int] = set()
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Until all with lower numbers are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)

    def over(self, number: int) -> None:
        """Also for those that failed, before or in their turn: the others must not wait for ever."""
        with self._changed:
            self._over.add(number)
            while self._next in self._over:
                self._over.remove(self._next)
                self._next += 1
            self._changed.notify_all()
