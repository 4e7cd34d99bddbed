"""The workflows. Their order of calls is what a stopped run goes on by: raise VERSION when it changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from imgtool.errors import ImgtoolError
from imgtool.frozen import thawed
from imgtool.model.runbook import Task
from imgtool.runs.engine import worker
from imgtool.runs.engine.store import ENDED, VMS, Failed

log = logging.getLogger(__name__)
ATTEMPTS = 3
RETRY_SECONDS, RETRY_MOST = 10.0, 600.0
"""Between two attempts: the first time, and at most."""
WATCH_SECONDS = 1.0
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
        states = await asyncio.to_thread(worker.current().store.states, ids)
        failed = [one for one, state in states.items() if state in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")]
        if stops and failed and not told:
            told.update(failed)
            await asyncio.to_thread(worker.current().store.withdraw, ids)
        if all(state in ENDED for state in states.values()) and len(states) == len(ids):
            return failed
        await asyncio.sleep(WATCH_SECONDS)


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
    attempts = task["settings"]["attempts"] or ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            return await work(task, part, said, attempt)
        except Failed as error:
            if not error.again or attempt == attempts:
                raise
        await DBOS.sleep_async(min(RETRY_SECONDS * 2 ** (attempt - 1), RETRY_MOST))
    raise AssertionError(attempts)


@DBOS.step(name="work", preemptible=True)
async def work(task: dict[str, Any], part: str, said: dict[str, Any], attempt: int) -> dict[str, Any]:
    """In a thread, which is stopped, and waited for, when this is cancelled. Raises Failed."""
    here = worker.current()
    stop, future = here.begin(thawed(Task, task), part, said, attempt)
    waiting = asyncio.wrap_future(future)
    try:
        done = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({waiting})
        log.debug("%s: ended by %r", part, waiting.exception())  # asked for, so that asyncio does not report it as lost
        raise
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
