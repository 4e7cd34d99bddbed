"""Machines of batches: that they are there, and their state, from the engine's database; what they did, from audit and journals.

The audit and the journals are those of this host: of a step that another worker did, the database has the state alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from imgtool.endpoints.uri import parse, shown
from imgtool.errors import ImgtoolError, RefusedError, UsageError
from imgtool.journal import held
from imgtool.model.job import ACTIVE, Job, JobStep
from imgtool.runs import audit
from imgtool.runs.engine.store import ENDED, STATES, Store, database, machine_of, parsed_id, reached
from imgtool.runs.jobs.going import Moving, moving
from imgtool.runs.jobs.journals import last_run, of_machine
from imgtool.runs.jobs.steps import measured, read_by, steps

Event = dict[str, Any]
Task = Mapping[str, Any]
T = TypeVar("T")
BATCH_ENDED = ("failed", "cancelled")


@dataclass(frozen=True)
class _Seen:
    """What the database and the audit say at one time."""

    rows: Mapping[tuple[str, str], Any]
    """(batch, machine) → the engine's row of its last attempt."""
    at_work: Mapping[str, str]
    told: Mapping[tuple[str, str], list[Event]]
    alone: bool
    """The database is of this host only, and no process works with it."""


class Batches:
    """A store of jobs."""

    def __init__(self, url: str | None) -> None:
        self._where = database(url)
        self._store = Store(self._where, patient=False)

    def close(self) -> None:
        self._store.close()

    @property
    def made(self) -> bool:
        """Whether anything was ever submitted there."""
        return self._store.made

    def _asked(self, work: Callable[[], T]) -> T:
        return reached(self._where, work)  # type: ignore[no-any-return]

    @property
    def paused(self) -> bool:
        return self._asked(lambda: self._store.paused)

    def pause(self) -> None:
        """No machine and no step begins, on any worker, until ``unpause``."""
        self._asked(self._store.pause)
        audit.Audit("jobs").event("paused")

    def unpause(self) -> None:
        self._asked(self._store.unpause)
        audit.Audit("jobs").event("unpaused")

    @property
    def alone(self) -> bool:
        """Whether nobody takes work: of a database that is shared nobody can tell."""
        return self._where.path is not None and not held(Path(f"{self._where.path}.lock"))

    def jobs(self) -> list[Job]:
        seen, found = self._seen(), dict[tuple[str, str], Job]()
        for row in self._asked(lambda: self._store.batches(given=True)):
            for one in (one for wave in row.input["args"][0] for one in wave["machines"]):
                key = (one["task"]["batch"], one["task"]["name"])
                found[key] = _job(one["task"], seen.rows.get(key), seen, ended=row.status in ENDED)
        return list(found.values())

    def _seen(self) -> _Seen:
        rows: dict[tuple[str, str], Any] = {}
        for row in sorted(self._asked(self._store.every_machine), key=lambda row: parsed_id(row.workflow_id)[2]):
            rows[parsed_id(row.workflow_id)[:2]] = row
        return _Seen(rows=rows, at_work=self._asked(self._store.at_work), told=_told(), alone=self.alone)

    def whole(self, job: Job) -> Job:
        """With the steps of the journals of its parts."""
        inner: dict[str, list[JobStep]] = {}
        for _, said in of_machine(job.id):
            run = last_run(said)
            verb = str(run[0].get("verb"))
            inner.setdefault(verb, []).extend(steps(run, runs=job.state == "running"))
        made: list[JobStep] = []
        for step in job.steps:
            made += [step, *(replace(one, worker=step.worker) for one in inner.pop(step.verb.partition("-")[2], ()))]
        return replace(job, steps=tuple(made), result=_result(job))

    def events(self, job: Job) -> list[Event]:
        said = [one for one in audit.told() if _key(one) == _ids(job)]
        said += [one for _, found in of_machine(job.id) for one in found]
        return sorted(said, key=lambda one: str(one["time"]))

    def cancel(self, jobs: Sequence[Job]) -> None:
        """What runs is ended within two seconds."""
        over = [job.id for job in jobs if job.state in ("done", *BATCH_ENDED)]
        if len(over) == len(jobs):
            raise RefusedError(f"{', '.join(over[:10])}: nothing is under way", f"imgtool jobs show {over[0]}")
        ids = [one for job in jobs if job.id not in over for one in self._workflows(job)]
        batches = self._whole_batches(jobs)
        self._asked(lambda: self._store.cancel([*batches, *ids]))
        self._say("cancelled", jobs)

    def resume(self, jobs: Sequence[Job]) -> None:
        fitting = [job for job in jobs if job.state == "cancelled"]
        if not fitting:
            raise UsageError(f"{jobs[0].id} is {jobs[0].state}, not cancelled", _next(jobs[0].id, jobs[0].state))
        for one in [*(one for job in fitting for one in self._workflows(job)), *self._whole_batches(fitting)]:
            self._asked(lambda one=one: self._store.resume(one))  # type: ignore[misc]
        self._say("resumed", fitting)

    def retry(self, jobs: Sequence[Job]) -> None:
        fitting = [job for job in jobs if job.state in BATCH_ENDED]
        if not fitting:
            raise UsageError(f"{jobs[0].id} is {jobs[0].state}: nothing of it has failed", _next(jobs[0].id, jobs[0].state))
        for batch in sorted({str(job.batch) for job in fitting}):
            names = [str(job.machine) for job in fitting if job.batch == batch]
            self._asked(lambda batch=batch, names=names: self._store.retry(batch, names))  # type: ignore[misc]
        self._say("retried", fitting)

    def hand_over(self, to: str, jobs: Sequence[Job]) -> list[str]:
        """What lost workers had under way (of ``jobs``; none: all) goes to the worker ``to``; ids. Raises UsageError."""
        ids = [one for job in jobs for one in self._workflows(job)] if jobs else None  # what is named may not have begun: none
        taken = sorted({machine_of(one) for one in self._asked(lambda: self._store.hand_over(to, ids))})
        audit.Audit("jobs").event("handed over", to=to, jobs=taken)
        return taken

    def _workflows(self, job: Job) -> list[str]:
        """Of its last attempt, if it has begun one."""
        row = self._asked(lambda: self._store.machines(str(job.batch))).get(str(job.machine))
        return [row.workflow_id] if row is not None else []

    def _whole_batches(self, jobs: Sequence[Job]) -> list[str]:
        """Of those batches of which all that is under way is named."""
        named, every = {job.id for job in jobs}, self.jobs()
        batches = {job.batch for job in jobs} - {job.batch for job in every if job.state in ACTIVE and job.id not in named}
        return [row.workflow_id for batch in batches for row in self._asked(lambda b=batch: self._store.batches(b))]  # type: ignore[misc]

    def _say(self, what: str, jobs: Iterable[Job]) -> None:
        audit.Audit("jobs").event(what, jobs=[job.id for job in jobs])


def _ids(job: Job) -> tuple[str, str]:
    return str(job.batch), str(job.machine)


def _key(event: Event) -> tuple[str, str]:
    return str(event.get("batch")), str(event.get("machine"))


def _told() -> dict[tuple[str, str], list[Event]]:
    """Of this host's audit what is about machines; of results only how much was read."""
    found: dict[tuple[str, str], list[Event]] = {}
    for one in audit.told():
        if "part" in one:
            brief = {**one, "result": {"bytes_read": read_by(one["result"]) or 0}} if "result" in one else one
            found.setdefault(_key(one), []).append(brief)
    return found


def _job(task: Task, row: Any, seen: _Seen, *, ended: bool) -> Job:
    """``row``: None, where it waits for an earlier wave; ``ended``: the batch, so that it will never begin."""
    key = (str(task["batch"]), str(task["name"]))
    told, state = seen.told.get(key, []), _state(row, seen, ended=ended)
    known = Job(
        id="/".join(key), verb=_verb(task), state=state, machine=key[1], batch=key[0], wave=task["wave"],
        source=_place(task["source"]), target=_place(task["target"]), source_host=task["source_host"],
        target_host=task["target_host"], started=told[0]["time"] if told else None, ended=None, hint=_next("/".join(key), state))
    if row is None:
        return known
    made = steps(told, runs=state == "running")
    known = replace(
        _with_error(known, row, told), started=known.started or _time(row.created_at), steps=tuple(made),
        ended=_time(row.updated_at) if row.status in ENDED else None, worker=_worker(row, told, seen),
        runs=parsed_id(row.workflow_id)[2])
    works = sorted({str(step.work) for step in made if step.state == "running"})
    return measured(replace(known, retries=known.runs - 1 + sum(step.attempts - 1 for step in made)),
                    sum((moving(work) for work in works), Moving()))


def _with_error(known: Job, row: Any, told: Sequence[Event]) -> Job:
    """The last: that it ended by, or that of a step that is to be tried again."""
    if known.state == "failed" and row.error is not None:
        return replace(known, error=str(row.error), hint=getattr(row.error, "hint", None) or known.hint,
                       exit_code=getattr(row.error, "exit_code", 1))
    last = next((one for one in reversed(told) if one["event"] in ("failed", "end")), {})
    if known.state == "done" or last.get("event") != "failed":
        return known
    return replace(known, error=last["error"], hint=known.hint or last.get("hint"), exit_code=last.get("exit_code"))


def _state(row: Any, seen: _Seen, *, ended: bool) -> str:
    """The engine calls a machine running that waits for its place at a host, or for a process."""
    if row is None:
        state = "cancelled" if ended else "waiting"
    else:
        state = STATES[row.status]
        if state == "running" and row.workflow_id not in seen.at_work:
            state = "waiting"
    return "stopped" if state in ACTIVE and seen.alone else state


def _worker(row: Any, told: Sequence[Event], seen: _Seen) -> str | None:
    return seen.at_work.get(row.workflow_id) or (str(told[-1]["worker"]) if told else None)


def _verb(task: Task) -> str:
    return "+".join(step["verb"] for step in task["settings"]["steps"] or [{"verb": "migrate"}])


def _place(endpoint: Task | None) -> str | None:
    with suppress(ImgtoolError):
        return shown(parse(endpoint["uri"])) if endpoint else None
    return None


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _next(job: str, state: str) -> str | None:
    """What a person may do about it."""
    return {"failed": f"imgtool jobs retry {job}", "stopped": "imgtool run RUNBOOK goes on with it",
            "cancelled": f"imgtool jobs resume {job}"}.get(state)


def _result(job: Job) -> dict[str, Any] | None:
    """Of its last part that has one."""
    said = [one for one in audit.told() if _key(one) == _ids(job) and one["event"] == "end"]
    return said[-1].get("result") if said else None


