"""What was done, and is being done, by whatever process: it is read from what that leaves, and no worker is started.

``journals``   single commands: migrate, p2v, v2p
``batches``    machines of runbooks: the engine's database, and for what they do the audit and the journals
``going``      how far a process is, at this moment
``steps``      events → steps
``overview``   waves, causes of failures, throughput: made from the jobs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from imgtool.errors import ENGINE_HINT, MissingToolError, UsageError
from imgtool.journal import state_folder
from imgtool.model.job import Job

ENGINE_DATABASE = "batches.sqlite"
"""In the state folder: what the engine uses where no other database is named."""


class JobStore(Protocol):
    """One kind of job. Raises UnreachableError where a database does not answer."""

    @property
    def paused(self) -> bool:
        """Whether nothing new begins."""

    def jobs(self) -> list[Job]:
        """All, without what takes long to find."""

    def whole(self, job: Job) -> Job:
        """One of them, with all that is known."""

    def events(self, job: Job) -> list[dict[str, Any]]:
        """All that its journals say, oldest first."""

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ends them; what they have done so far stays, and can be gone on with. Raises RefusedError."""

    def resume(self, jobs: Sequence[Job]) -> None:
        """Those that were cancelled go on. Raises UsageError."""

    def retry(self, jobs: Sequence[Job]) -> None:
        """Those that have failed are tried again. Raises UsageError."""

    def close(self) -> None: ...


@contextmanager
def stores(database: str | None) -> Iterator[list[JobStore]]:
    """Those that there are. ``database``: of the engine; None is its file in the state folder, if that is there.

    Raises MissingToolError, UnreachableError, UsageError.
    """
    from imgtool.runs.jobs.journals import Journals

    found: list[JobStore] = [Journals()]
    if database is not None or (state_folder() / ENGINE_DATABASE).is_file():
        if find_spec("dbos") is not None:
            from imgtool.runs.jobs.batches import Batches

            batches = Batches(database)
            if batches.made:
                found.append(batches)
            else:
                batches.close()
        elif database is not None:
            raise MissingToolError("the database of batches needs the engine, which is not installed", ENGINE_HINT)
    try:
        yield found
    finally:
        for store in found:
            store.close()


def chosen(known: Sequence[JobStore], names: Sequence[str]) -> list[tuple[JobStore, list[Job]]]:
    """What names mean, by store: an id, the beginning of one id, a batch (all its machines). Raises UsageError."""
    every = [(store, store.jobs()) for store in known]
    wanted: dict[str, Job] = {}
    for name in names:
        wanted.update({job.id: job for job in _meant(name, [job for _, jobs in every for job in jobs])})
    found = [(store, [job for job in jobs if job.id in wanted]) for store, jobs in every]
    return [(store, jobs) for store, jobs in found if jobs]


def _meant(name: str, jobs: Sequence[Job]) -> list[Job]:
    exact = [job for job in jobs if job.id == name] or [job for job in jobs if job.batch == name]
    if exact:
        return exact
    fitting = [job for job in jobs if job.id.startswith(name)] or [job for job in jobs if job.machine == name]
    if len(fitting) != 1:
        if not fitting:
            raise UsageError(f"no job begins with {name!r}", "imgtool jobs lists them")
        ids = ", ".join(job.id for job in fitting[:10])
        raise UsageError(f"{len(fitting)} jobs begin with {name!r}", f"say which one: {ids}{', …' if len(fitting) > 10 else ''}")
    return fitting


def find(known: Sequence[JobStore], name: str) -> tuple[JobStore, Job]:
    """The one job that a name means, whole. Raises UsageError."""
    (store, jobs), *more = chosen(known, [name])
    if more or len(jobs) != 1:
        raise UsageError(f"{name} is a batch of {len(jobs)} machines", f"imgtool jobs show {jobs[0].id}")
    return store, store.whole(jobs[0])
