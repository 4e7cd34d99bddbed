"""A process that takes work: one identity, one lock, threads for its steps."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dbos import DBOS, DBOSConfig, error

from imgtool.errors import ImgtoolError, NotAdmittedError, StoppedError, UnreachableError
from imgtool.journal import progress_path
from imgtool.model.runbook import Task
from imgtool.progress import Control, Disks, Kept, Rate, Stop
from imgtool.runs.audit import Audit
from imgtool.runs.engine.identity import held, identity_here
from imgtool.runs.engine.store import (
    APPLICATION,
    BATCHES,
    HERE,
    MOST,
    VERSION,
    VMS,
    Database,
    Failed,
    Store,
    host_queue,
    queue_of,
)
from imgtool.runs.work import do, work_id

SELDOM = 60.0
"""Seconds between two messages of the engine that are alike."""

def may_help(raised: ImgtoolError) -> bool:
    """Whether another try can end otherwise."""
    return isinstance(raised, UnreachableError) and not isinstance(raised, NotAdmittedError)


@dataclass
class Worker:
    """Of this process. Changed by the engine's threads: ``rates`` only, under its lock."""

    identity: str
    store: Store
    audit: Audit
    stop: Stop
    threads: ThreadPoolExecutor
    rates: dict[str, Rate] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, task: Task, part: str, said: dict[str, Any], attempt: int,
              disks: Disks) -> tuple[Stop, Future[dict[str, Any]]]:
        """A part, in a thread. What it raises is an ImgtoolError."""
        stop = Stop(self.stop)
        with self.lock:
            rate = self.rates.setdefault(task.batch, Rate(said.get("rate")))
        going = Kept(progress_path(work_id(task, part)))
        control = Control(stop=stop, rate=rate, progress=going, disks=disks, of=f"{task.batch}/{task.name}")
        return stop, self.threads.submit(self._do, task, part, said, attempt, control)

    def _do(self, task: Task, part: str, said: dict[str, Any], attempt: int, control: Control) -> dict[str, Any]:
        what = known(task, part)
        self.audit.event("begin", **what, attempt=attempt, source_host=task.source_host, target_host=task.target_host)
        try:
            control.stop.check()
            done = do(task, part, control, since=said["since"])
        except Exception as raised:
            told = raised if isinstance(raised, ImgtoolError) else ImgtoolError(f"{type(raised).__name__}: {raised}",
                                                                              "this is a bug of imgtool: report it")
            how = "stopped" if isinstance(raised, StoppedError) else "failed"
            self.audit.event(how, **what, error=told.message, hint=told.hint, exit_code=told.exit_code)
            raise told from raised
        self.audit.event("end", **what, result=done)
        return short(done)

    async def forever_if_stopped(self) -> None:
        """A process that ends must not have its steps written down as failed: they go on in the next."""
        if self.stop.is_set():
            await asyncio.Event().wait()


def known(task: Task, part: str) -> dict[str, str]:
    """What each line of the audit says of a part."""
    return {"batch": task.batch, "wave": task.wave, "machine": task.name, "part": part, "work": work_id(task, part)}


SHORT = ("machine", "id", "destination", "description", "job", "bytes_read", "bytes_written", "bytes_cloned", "seconds",
         "verified", "identical", "kept", "source", "engine", "checksum")


def short(result: dict[str, Any]) -> dict[str, Any]:
    """What the database keeps of a result; all of it is in the audit."""
    return {key: result[key] for key in SHORT if key in result}


_current: list[Worker] = []


def current() -> Worker:
    return _current[-1]


@contextmanager
def working(database: Database, *, identity: str | None, sees: Sequence[str], steps: int, stop: Stop) -> Iterator[Worker]:
    """Takes work while the block lasts. ``steps``: at once; ``sees``: labels of storage.

    The worker's ``stop`` is set by the caller's, and where another process has taken its identity. Raises RefusedError,
    UnreachableError.
    """
    from imgtool.runs.engine import workflows  # noqa: F401 - registers them

    who, stop = identity or identity_here(), Stop(stop)  # set at the end: the caller's own goes on
    database.create()
    with held(database, who, stop), ThreadPoolExecutor(steps, thread_name_prefix="step") as threads:
        store = Store(database)
        worker = Worker(identity=who, store=store, audit=Audit(who), stop=stop, threads=threads)
        worker.audit.begins(database=database.shown, sees=list(sees), steps=steps)
        _current.append(worker)
        config: DBOSConfig = {
            "name": APPLICATION, "system_database_url": database.url, "executor_id": who,
            "application_version": VERSION, "log_level": "CRITICAL", "run_migrations": False,
        }
        DBOS(config=config)
        _listen_to_engine()
        DBOS.listen_queues([*_queues(sees), host_queue(who)])
        DBOS.launch()
        try:
            yield worker
        finally:
            stop.set()
            threads.shutdown(wait=True, cancel_futures=True)
            DBOS.destroy()
            store.close()
            _current.pop()


EXPECTED = (Failed, error.DBOSWorkflowCancelledError, error.DBOSAwaitedWorkflowCancelledError)

NORMAL = ("was cancelled", "task cancelled", "no longer owned by this execution")
"""What the engine warns of when somebody cancels."""


class _Seldom(logging.Filter):
    """One message of a kind in a minute: an outage says the same thing hundreds of times, with a traceback each.

    That a machine failed or was cancelled is told elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], EXPECTED):
            return False
        if any(words in record.getMessage() for words in NORMAL):
            return False
        kind, now = f"{record.module}:{record.lineno}", time.monotonic()
        if now - self._said.get(kind, -SELDOM) < SELDOM:
            return False
        self._said[kind] = now
        record.msg, record.args = f"engine: {record.getMessage().splitlines()[0][:200]}", ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def _listen_to_engine() -> None:
    """Its warnings, on stderr."""
    engine, handler = logging.getLogger("dbos"), logging.StreamHandler()
    handler.addFilter(_Seldom())
    for old in list(engine.handlers):
        engine.removeHandler(old)
    engine.addHandler(handler)
    engine.propagate = False
    engine.setLevel(logging.WARNING)


def _queues(sees: Sequence[str]) -> list[str]:
    """All that this worker serves, whether they are there yet or not."""
    numbered = [queue_of(kind, number) for kind in ("sources", "targets") for number in range(1, MOST + 1)]
    return [BATCHES, VMS, *numbered, *(f"work-{one}" for one in (HERE, *sees))]
