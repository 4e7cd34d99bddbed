"""A part of a machine while a thread of this process does it, and what the engine's steps wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from imgtool.frozen import frozen
from imgtool.model.runbook import Task
from imgtool.progress import Disks, Stop
from imgtool.runs.engine import worker

LOOK_SECONDS = 0.1
"""Between two looks at which disks are whole; the end of the thread is noticed at once."""


class Doing(Disks):
    """One attempt. The thread begins when the first step waits, and opens source and target once for all of them."""

    def __init__(self, task: Task, part: str, said: dict[str, Any], attempt: int) -> None:
        self._what = task, part, said, attempt
        self._stop: Stop | None = None
        self._end: asyncio.Future[dict[str, Any]] | None = None
        self._count: int | None = None
        self._whole: dict[int, dict[str, Any]] = {}

    def there(self, count: int) -> None:
        self._count = count

    def whole(self, number: int, done: object) -> None:
        said = frozen(done)
        worker.current().audit.event("disk", **worker.known(*self._what[:2]), disk=number, result=said)
        self._whole[number] = worker.short(said)

    async def count(self) -> int:
        """Of its disks; none where all was done already. Raises ImgtoolError."""
        await self._until(lambda: self._count is not None)
        return self._count or 0

    async def disk(self, number: int) -> dict[str, Any]:
        """What became of it, once it is whole. Raises ImgtoolError."""
        await self._until(lambda: number in self._whole)
        return self._whole.get(number, {"kept": True})

    async def result(self) -> dict[str, Any]:
        """Of all. Raises ImgtoolError."""
        return await self._until(lambda: False) or {}

    async def _until(self, ready: Callable[[], bool]) -> dict[str, Any] | None:
        """Or until the thread has ended: what it gives. Raises what it raised."""
        if self._end is None:
            self._stop, running = worker.current().begin(*self._what, self)
            self._end = asyncio.wrap_future(running)
        while not ready():
            if self._end.done():
                return self._end.result()
            await asyncio.wait({self._end}, timeout=LOOK_SECONDS)
        return None

    async def end(self) -> None:
        """The thread is told to stop, and its end is waited for."""
        if self._stop is None or self._end is None:
            return
        if not self._end.done():
            self._stop.set()
            await asyncio.wait({self._end})
        if not self._end.cancelled():
            self._end.exception()  # asked for, so that asyncio does not report it as lost
