"""Work on all cores, in order, with a bounded number of pieces in flight: memory does not grow with the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

WORKERS = max(2, min(4, os.cpu_count() or 2))
IN_FLIGHT = 2 * WORKERS


def ordered(pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In]) -> Iterator[tuple[In, Out]]:
    """``work`` of each item, in the order of the items; at most IN_FLIGHT are begun ahead. Raises what ``work`` raises."""
    waiting: deque[tuple[In, Future[Out]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= IN_FLIGHT:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
