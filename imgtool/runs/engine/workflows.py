"""The workflows. Their order of calls is what a stopped run goes on by: raise VERSION when it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from imgtool.errors import ImgtoolError
from imgtool.frozen import thawed
from imgtool.model.runbook import Task
from imgtool.runs.engine import worker
from imgtool.runs.engine.doing import Doing
from imgtool.runs.engine.store import ENDED, VMS, Failed
from imgtool.runs.work import copies

T = TypeVar("T")
ATTEMPTS = 3
RETRY_SECONDS, RETRY_MOST = 10.0, 600.0
"""Between two attempts: the first time, and at most."""
WATCH_SECONDS, WATCH_PART = 1.0, 10
"""Between two looks at a wave; and how many times as long as a look takes, which grows with the batch."""
Place = list[str]
"""A queue, and the partition of it, or ""."""


@DBOS.workflow(name="batch")
async def batch(waves: list[dict[str, Any]], said: dict[str, Any]) -> dict[str, Any]:
    """``waves``: name, on_error, machines (the arguments of ``machine``, with an id each)."""
    for wave in waves:
        begun = await clock()
        for one in wave["machines"]:
            window = thawed(Task, one["task"]).settings.window
            early = window.not_before.timestamp() - begun if window and window.not_before else 0
            await enqueue([VMS, ""], one["id"], machine, one["task"], one["ways"], one["said"], delay=early)
        failed = await watch([one["id"] for one in wave["machines"]], wave["on_error"] == "stop")
        if failed and wave["on_error"] == "stop":
            return {"stopped": wave["name"], "failed": failed}
    return {"stopped": None}


@DBOS.step(name="watch", preemptible=True)
async def watch(ids: list[str], stops: bool) -> list[str]:
    """Until all have ended; those that failed. ``stops``: the first failure takes back what has not begun."""
    told: set[str] = set()
    while True:
        begun = time.monotonic()
        states = await asyncio.to_thread(worker.current().store.states, ids)
        failed = [one for one, state in states.items() if state in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")]
        if stops and failed and not told:
            told.update(failed)
            await asyncio.to_thread(worker.current().store.withdraw, ids)
        if all(state in ENDED for state in states.values()) and len(states) == len(ids):
            return failed
        await asyncio.sleep(max(WATCH_SECONDS, WATCH_PART * (time.monotonic() - begun)))


@DBOS.workflow(name="machine")
async def machine(task: dict[str, Any], ways: dict[str, list[Place]], said: dict[str, Any]) -> dict[str, Any]:
    """``ways``: part → the places that it needs; ``said``: since, done (parts), rate."""
    await _opened(thawed(Task, task))
    made = {}
    for part, way in ways.items():
        if part not in said["done"]:
            handle = await enqueue(way[0], f"{DBOS.workflow_id}/{part}", slot, way, task, part, said)
            made[part] = await handle.get_result()
    return made


async def _opened(task: Task) -> None:
    """Waits for the window; most often the queue has."""
    window = task.settings.window
    if window is None:
        return
    now = await clock()
    if window.until and now > window.until.timestamp():
        raise Failed(f"{task.name}: its window closed at {window.until.isoformat()} before it could begin",
                     "give it a later window, then: imgtool run RUNBOOK --retry", 1)
    if window.not_before and now < window.not_before.timestamp():
        await DBOS.sleep_async(window.not_before.timestamp() - now)


@DBOS.step(name="clock")
async def clock() -> float:
    """Once: a run that goes on must not decide anew."""
    return time.time()


@DBOS.workflow(name="slot")
async def slot(way: list[Place], task: dict[str, Any], part: str, said: dict[str, Any]) -> dict[str, Any]:
    """Holds the first place of the way while the rest is done."""
    if len(way) > 1:
        handle = await enqueue(way[1], f"{DBOS.workflow_id}+", slot, way[1:], task, part, said)
        return await handle.get_result()  # type: ignore[no-any-return]
    attempts, seen = task["settings"]["attempts"] or ATTEMPTS, Seen()
    for attempt in range(1, attempts + 1):
        doing = Doing(thawed(Task, task), part, said, attempt)
        try:
            return await _steps(doing, seen, copies(part))
        except Failed as error:
            if not error.again or attempt == attempts:
                raise
        finally:
            await doing.end()
        await DBOS.sleep_async(min(RETRY_SECONDS * 2 ** (attempt - 1), RETRY_MOST))
    raise AssertionError(attempts)


@dataclass
class Seen:
    """What attempts before have done."""

    count: int | None = None
    copied: int = 0


async def _steps(doing: Doing, seen: Seen, copying: bool) -> dict[str, Any]:
    """One for each disk that is copied, and one for all the rest. All of them wait for one thread."""
    if copying and seen.count is None:
        seen.count = await disks(doing)
    while seen.copied < (seen.count or 0):
        await disk(doing, seen.copied)
        seen.copied += 1
    return await work(doing)


@DBOS.step(name="disks", preemptible=True)
async def disks(doing: Doing) -> int:
    """How many a machine has. Raises Failed."""
    return await told(doing.count())


@DBOS.step(name="disk", preemptible=True)
async def disk(doing: Doing, number: int) -> dict[str, Any]:
    """Copied, compared and flushed: it is not copied again. Raises Failed."""
    return await told(doing.disk(number))


@DBOS.step(name="work", preemptible=True)
async def work(doing: Doing) -> dict[str, Any]:
    """All, or what is left of it. Raises Failed."""
    return await told(doing.result())


async def told(waiting: Coroutine[Any, Any, T]) -> T:
    """What a thread says, as the database is to keep it. Raises Failed."""
    here = worker.current()
    try:
        done = await waiting
    except ImgtoolError as error:
        await here.forever_if_stopped()
        raise Failed(error.message, error.hint, error.exit_code, again=worker.may_help(error)) from None
    await here.forever_if_stopped()
    return done


async def enqueue(place: Sequence[str], workflow_id: str, function: Any, *arguments: Any, delay: float = 0) -> Any:
    """An id that is there already is that workflow. ``delay``: seconds until it may begin."""
    queue, key = place
    how = SetEnqueueOptions(queue_partition_key=key or None, delay_seconds=delay if delay > 0 else None)
    with SetWorkflowID(workflow_id), how:
        return await DBOS.enqueue_workflow_async(queue, function, *arguments)
