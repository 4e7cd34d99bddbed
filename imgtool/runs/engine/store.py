"""The engine's database, from any process: submit, look, cancel, pause, resume, retry. It starts no worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from dbos import DBOS, DBOSClient

from imgtool.errors import UnreachableError, UsageError
from imgtool.frozen import frozen, thawed
from imgtool.journal import state_folder
from imgtool.model.runbook import Limits, OnError, Outcome, Task
from imgtool.runs.tasks import Group
from imgtool.runs.work import copies, parts, work_id

APPLICATION = "imgtool"
VERSION = "2"
"""Of the order of calls in the workflows: raised when that changes. Work of another version stays where it is."""
VMS, BATCHES, HERE = "vms", "batches", "here"
STEPS = ("work-", "host-")
"""How queues begin in which steps are done."""
MACHINES = 50
"""Under way on one worker, most of them waiting."""
MOST = 64
"""The largest limit of a host."""
STATES = {"SUCCESS": "done", "ERROR": "failed", "CANCELLED": "cancelled", "PENDING": "running", "ENQUEUED": "waiting",
          "DELAYED": "waiting", "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed"}
"""The engine's words → ours."""
Edited = tuple[Task, Limits]
ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
ALIVE = """
    SELECT count(*) FROM pg_locks, (SELECT hashtext(%s)::bigint AS key) AS wanted
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = (key >> 32) & 4294967295 AND objid::bigint = key & 4294967295
"""
"""Whether anybody has the advisory lock: its key in two halves, as PostgreSQL's manual says of pg_locks."""
POLL = 0.5
"""Seconds between two looks at a queue."""
logging.getLogger("dbos").setLevel(logging.CRITICAL)


def queue_of(kind: str, limit: int) -> str:
    return f"{kind}-{min(limit, MOST)}"


def host_queue(identity: str) -> str:
    """Of what was handed over to one worker."""
    return f"host-{identity}"


def lock_of(identity: str) -> str:
    """What PostgreSQL's advisory lock of a worker is the hash of."""
    return f"imgtool {identity}"


@dataclass(frozen=True)
class Database:
    """Where the engine keeps its state."""

    url: str

    @property
    def path(self) -> str | None:
        """Of SQLite's file."""
        return self.url.removeprefix("sqlite:///") if self.url.startswith("sqlite:///") else None

    @property
    def shown(self) -> str:
        """Without a password."""
        split = urlsplit(self.url)
        return self.path or f"{split.scheme}://{split.hostname}{split.path}"

    def create(self) -> None:
        """The tables. Raises UnreachableError."""
        if self.path:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        reached(self, lambda: DBOS.migrate(self.url))


def database(text: str | None) -> Database:
    """``--database``; the default is SQLite in the state folder. Raises UsageError."""
    if text is None:
        return Database(f"sqlite:///{state_folder() / 'batches.sqlite'}")
    if not text.startswith(("postgresql://", "postgres://")):
        raise UsageError("--database takes postgresql://USER@HOST/NAME", "without it, SQLite in the state folder is used")
    return Database(text.replace("postgres://", "postgresql://", 1))


def reached(where: Database, work: Callable[[], Any]) -> Any:
    """Raises UnreachableError where the database does not answer, or did not let us in."""
    from psycopg import Error
    from sqlalchemy.exc import DBAPIError

    try:
        return work()
    except (DBAPIError, Error) as error:
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UnreachableError(f"the database {where.shown}: {why}",
                               "is it running, and may we in? --database, PGPASSWORD, ~/.pgpass") from None


class Failed(Exception):  # noqa: N818 - what the database keeps of an error: made of its arguments alone
    """(message, hint, exit code, whether another try may help)."""

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 1, again: bool = False) -> None:
        super().__init__(message, hint, exit_code, again)
        self.message, self.hint, self.exit_code, self.again = message, hint, exit_code, again

    def __str__(self) -> str:
        return self.message


def machine_id(batch: str, name: str, attempt: int = 1) -> str:
    """Of a machine's workflow; all below it begins with that and a slash."""
    return f"{batch}/{quote(name, safe=' ')}" + (f":{attempt}" if attempt > 1 else "")


def machine_of(workflow: str) -> str:
    """The id of the machine's workflow that it is, or is below."""
    return "/".join(workflow.split("/")[:2])


def parsed_id(workflow: str) -> tuple[str, str, int]:
    """(batch, machine, attempt) of what ``machine_id`` made, and of what is below it."""
    batch, _, rest = workflow.partition("/")
    name, _, attempt = rest.partition("/")[0].partition(":")
    return batch, unquote(name), int(attempt or 1)


def ways(task: Task, limits: Limits) -> dict[str, list[list[str]]]:
    """Part → the places (queue, partition) that it needs, in the order in which they are taken."""
    work = [f"work-{task.settings.sees or HERE}", ""]
    source = dict(limits.source_hosts).get(task.source_host, limits.per_source_host)
    target = dict(limits.target_hosts).get(task.target_host, limits.per_target_host)
    hosts = [[queue_of("sources", source), task.source_host]]
    hosts += [[queue_of("targets", target), task.target_host]] if target else []
    found = {}
    for part in parts(task):
        found[part] = [*(hosts if copies(part) else []), work]
    return found


class Store:
    """A client of the database, which is there already."""

    def __init__(self, where: Database, *, patient: bool = True) -> None:
        """``patient``: an outage of the database is waited out; else it is an error."""
        self.where = where
        self._client: DBOSClient = reached(where, lambda: DBOSClient(
            system_database_url=where.url, application_name=APPLICATION, retry_connection_errors=patient))

    def close(self) -> None:
        self._client.destroy()

    @property
    def made(self) -> bool:
        """Whether the tables are there: the first worker makes them. Raises UnreachableError."""
        from sqlalchemy.exc import OperationalError, ProgrammingError

        try:
            self._client.list_workflows(limit=1)
            self._client.list_queues()
        except ProgrammingError:  # PostgreSQL: undefined_table, invalid_schema_name
            return False
        except OperationalError as error:
            if self.where.path and "no such" in str(error):
                return False
            reached(self.where, self._client.list_queues)
        return True

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Of machines of one batch: id of the last attempt → the engine's state, of those that are there."""
        if not ids:
            return {}
        wanted, batch = {parsed_id(one)[1] for one in ids}, parsed_id(ids[0])[0]
        return {row.workflow_id: row.status for name, row in self.machines(batch).items() if name in wanted}

    def batches(self, batch: str | None = None, *, given: bool = False) -> list[Any]:
        """The engine's rows, oldest first; one for each time that something was submitted."""
        rows = self._client.list_workflows(name="batch", workflow_id_prefix=batch, load_input=given, load_output=False)
        return [one for one in rows if batch in (None, one.workflow_id.partition(":")[0])]

    def machines(self, batch: str, *, given: bool = False) -> dict[str, Any]:
        """Name → the engine's row of its last attempt (``given``: with what it was given)."""
        found = self._under(f"{batch}/", name="machine", load_input=given)
        return {parsed_id(one.workflow_id)[1]: one for one in sorted(found, key=lambda one: parsed_id(one.workflow_id)[2])}

    def every_machine(self) -> list[Any]:
        """The engine's rows of all batches and attempts."""
        return self._client.list_workflows(name="machine", load_input=False)

    def at_work(self) -> dict[str, str]:
        """Machine's id → who works on it now."""
        rows = self._client.list_workflows(name="slot", status="PENDING", load_input=False, load_output=False)
        return {machine_of(one.workflow_id): str(one.executor_id) for one in rows if (one.queue_name or "").startswith(STEPS)}

    def below(self, machine: str, *, given: bool = False) -> list[Any]:
        """The engine's rows of a machine's parts, in the order of their making."""
        return self._under(f"{machine}/", load_input=given)

    def _under(self, prefix: str, **how: Any) -> list[Any]:
        """For SQLite's LIKE, ``Web01`` begins with ``web01``, too."""
        rows = self._client.list_workflows(workflow_id_prefix=prefix, **how)
        return [one for one in rows if one.workflow_id.startswith(prefix)]

    def submit(self, batch: str, groups: Sequence[Group], limits: Limits, since: str) -> list[str]:
        """What is there already stays as it is; the names of machines that have begun with other settings."""
        self._queues(groups, limits)
        there = self.machines(batch, given=True)
        waves, other = [], []
        for group in groups:
            machines = []
            for task in group.tasks:
                said = frozen(task)
                if task.name in there and there[task.name].input["args"][0] != said:
                    other.append(task.name)
                machines.append({"id": machine_id(batch, task.name), "task": said, "ways": ways(task, limits),
                                 "said": {"since": since, "done": [], "rate": limits.bytes_per_second}})
            stops = any(task.settings.on_error is OnError.STOP for task in group.tasks)
            waves.append({"name": group.name, "on_error": "stop" if stops else "continue", "machines": machines})
        every = {task.name for group in groups for task in group.tasks}
        runs = self.batches(batch)
        if not runs or (not every <= there.keys() and runs[-1].status in ENDED):
            number = f":{len(runs) + 1}" if runs else ""
            self._enqueue("batch", BATCHES, f"{batch}{number}", waves, frozen(limits))
        return other

    def _enqueue(self, function: str, queue: str, workflow: str, *arguments: Any) -> None:
        self._client.enqueue({"workflow_name": function, "queue_name": queue, "workflow_id": workflow, "app_version": VERSION},
                             *arguments)

    def _queues(self, groups: Sequence[Group], limits: Limits) -> None:
        """Limits as the runbook says them now; what an operator has paused stays paused."""
        paused = {one.name for one in self._client.list_queues() if one.worker_concurrency == 0}
        needed: dict[str, tuple[int | None, int | None]] = {BATCHES: (None, None), VMS: (MACHINES, None)}
        for task in (task for group in groups for task in group.tasks):
            for way in ways(task, limits).values():
                for queue, key in way:
                    needed[queue] = (None, int(queue.rpartition("-")[2])) if key else (limits.per_worker, None)
        for name, (worker, partition) in needed.items():
            self._client.register_queue(
                name, worker_concurrency=worker, partition_concurrency=partition, polling_interval_sec=POLL,
                on_conflict="never_update" if name in paused else "always_update")

    def withdraw(self, ids: Iterable[str]) -> list[str]:
        """Cancels those machines that have not begun."""
        taken = [one for one, state in self.states(list(ids)).items() if state not in ENDED and not self._begun(one)]
        self.cancel(taken)
        return taken

    def _begun(self, machine: str) -> bool:
        return any((one.queue_name or "").startswith(STEPS) and one.status != "ENQUEUED" for one in self.below(machine))

    def cancel(self, ids: Sequence[str]) -> None:
        """Machines, or batches, with all below. What runs is ended within two seconds."""
        if ids:
            self._client.cancel_workflows(list(ids), cancel_children=True)

    def resume(self, machine: str) -> list[str]:
        """What was cancelled goes on, the deepest first, each in its own queue; their ids."""
        rows = [one for one in [*self.below(machine, given=True), *self._rows([machine])] if one.status == "CANCELLED"]
        rows.sort(key=lambda one: -len(one.workflow_id))
        for one in rows:
            self._client.resume_workflow(one.workflow_id, queue_name=_queue(one))
        return [one.workflow_id for one in rows]

    def workers(self) -> dict[str, bool]:
        """Who has work under way → whether that worker is there now. On SQLite all are taken to be."""
        rows = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        return {who: self.alive(who) for who in sorted({str(one.executor_id) for one in rows if one.executor_id})}

    def alive(self, identity: str) -> bool:
        """Whether a worker holds the lock of its identity. That it does not is no proof that its host is down."""
        if self.where.path:
            return True
        import psycopg

        with reached(self.where, lambda: psycopg.connect(self.where.url, autocommit=True)) as connection:
            (found,) = connection.execute(ALIVE, [lock_of(identity)]).fetchone()
        return bool(found)

    def hand_over(self, to: str | None = None, machines: Sequence[str] | None = None) -> list[str]:
        """What workers that are gone for good had under way goes to the worker ``to``, or to all that see its storage; ids.

        ``machines``: ids, only those; None: all. Make sure first that the hosts are down: what still runs there would be done
        twice. Raises UsageError where ``to`` is not at work, or the database bears one worker only.
        """
        if self.where.path:
            raise UsageError("this database has one worker: there is no other to hand over to",
                             "imgtool run RUNBOOK goes on with its work; several workers need --database postgresql://…")
        if to is not None:
            if not self.alive(to):
                raise UsageError(f"the worker {to} is not running", f"start it: imgtool worker --identity {to} --database …")
            self._client.register_queue(host_queue(to), worker_concurrency=self._per_worker(), polling_interval_sec=POLL,
                                        on_conflict="never_update")
        gone = [who for who, there in self.workers().items() if not there]
        rows = self._client.list_workflows(executor_id=gone, status="PENDING", load_output=False) if gone else []
        taken = [one for one in rows if machines is None or machine_of(one.workflow_id) in machines]
        for one in taken:
            queue = _queue(one)
            self._client.resume_workflow(one.workflow_id, queue_name=host_queue(to) if to and queue.startswith(STEPS) else queue)
        return [one.workflow_id for one in taken]

    def retry(self, batch: str, names: Iterable[str], edited: Mapping[str, Edited] | None = None) -> list[str]:
        """Another attempt of machines that have failed, and those that were cancelled go on; what is done stays done. Their ids.

        ``edited``: with what their runbook says now.
        """
        made, wanted = [], set(names)
        for name, row in self.machines(batch, given=True).items():
            if name in wanted and row.status == "CANCELLED" and edited is None:
                made += self.resume(row.workflow_id)[-1:]
            elif name in wanted and STATES[row.status] in ("failed", "cancelled"):
                made.append(machine_id(batch, name, parsed_id(row.workflow_id)[2] + 1))
                self._enqueue("machine", VMS, made[-1], *self._again(row, (edited or {}).get(name)))
        return made

    def _again(self, row: Any, edited: Edited | None) -> tuple[Any, Any, Any]:
        """What the next attempt is given. Work is done if the same work was."""
        task, way, said = row.input["args"]
        done = {*said["done"], *(one.workflow_id.rpartition("/")[2] for one in self.below(row.workflow_id)
                                 if one.status == "SUCCESS" and not one.workflow_id.endswith("+"))}
        if edited is not None:
            old, (new, limits) = thawed(Task, task), edited
            done = {part for part in done & set(parts(new)) if work_id(old, part) == work_id(new, part)}
            task, way = frozen(new), ways(new, limits)
        return task, way, {**said, "done": sorted(done)}

    def pause(self) -> None:
        """No machine and no step begins on any worker; what runs goes on."""
        for queue in self._client.list_queues():
            queue.set_worker_concurrency(0)

    def unpause(self) -> None:
        """With the limits of the batch that was submitted last."""
        limit = self._per_worker()
        for queue in self._client.list_queues():
            of_worker = queue.name.startswith(STEPS)
            queue.set_worker_concurrency(MACHINES if queue.name == VMS else limit if of_worker else None)

    def _per_worker(self) -> int:
        last = self.batches(given=True)
        return int(last[-1].input["args"][1]["per_worker"]) if last else Limits().per_worker

    @property
    def paused(self) -> bool:
        return any(one.worker_concurrency == 0 for one in self._client.list_queues())

    def _rows(self, ids: list[str]) -> list[Any]:
        return self._client.list_workflows(workflow_ids=ids)

    def busy(self, batch: str) -> bool:
        """Whether anything of it is still to be done."""
        return any(one.status not in ENDED for one in [*self.batches(batch), *self.machines(batch).values()])

    def outcomes(self, batch: str, groups: Sequence[Group]) -> Iterator[Outcome]:
        """Of each machine, in the order of the runbook."""
        rows = self.machines(batch)
        for task in (task for group in groups for task in group.tasks):
            yield _outcome(task, rows.get(task.name))


def _outcome(task: Task, row: Any) -> Outcome:
    if row is None:
        return Outcome(name=task.name, wave=task.wave, state="waiting", error="not begun: an earlier wave failed", exit_code=1,
                       hint="imgtool jobs retry the failed ones, then run the runbook again")
    state = STATES[row.status]
    begun, ended = row.created_at or 0, row.updated_at or time.time() * 1000
    known = Outcome(name=task.name, wave=task.wave, state=state, seconds=round((ended - begun) / 1000, 1))
    if state == "failed":
        error = row.error
        return replace(known, error=str(error), hint=getattr(error, "hint", None), exit_code=getattr(error, "exit_code", 1))
    if state == "cancelled":
        return replace(known, error="cancelled", hint=f"imgtool jobs resume {row.workflow_id}", exit_code=1)
    return replace(known, steps=tuple(row.output or ()) if state == "done" else ())


def _queue(row: Any) -> str:
    """Where a workflow was enqueued; a cancelled one has forgotten it."""
    if row.name == "slot":
        return str(row.input["args"][0][0][0])
    return VMS if row.name == "machine" else BATCHES
