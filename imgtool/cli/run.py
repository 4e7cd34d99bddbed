"""run and worker: batches of machines, durable."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgtool.cli import completion, output
from imgtool.cli.images import STOP, AsJson, DryRun, ShowProgress, control_of
from imgtool.errors import ENGINE_HINT, ImgtoolError, MissingToolError, UsageError
from imgtool.units import size

if TYPE_CHECKING:
    from imgtool.model.runbook import Outcome, Runbook, Summary
    from imgtool.runs.engine.worker import Worker
    from imgtool.runs.plans import Planned
    from imgtool.runs.tasks import Group

LOOK_SECONDS = 0.5
"""Between two looks at what has become of the machines."""

Database = Annotated[str | None, typer.Option(
    "--database", metavar="URL", help="postgresql://USER@HOST/NAME, for several workers. Default: SQLite in the state folder.")]
Sees = Annotated[str | None, typer.Option("--sees", metavar="A,B", help="Storage that this host sees, as runbooks say it.")]
Identity = Annotated[str | None, typer.Option("--identity", metavar="NAME", help="Of this worker. Default: made from the host.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.command()(run)
    app.command()(worker)


def run(
    runbook: Annotated[Path, typer.Argument(
        metavar="RUNBOOK", help="A YAML file: machines, and what shall become of them.", autocompletion=completion.runbooks)],
    check: Annotated[bool, typer.Option("--check", help="Say all that is wrong in the runbook, and do nothing.")] = False,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="A machine, or a glob; repeatable.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try machines again that have failed or were cancelled.")] = False,
    notify: Annotated[str | None, typer.Option(
        "--notify", metavar="COMMAND", help="Run it at the end, with the summary as JSON on its standard input.")] = None,
    report: Annotated[Path | None, typer.Option(
        "--report", metavar="FILE", help="The page about the batch; default: reports/BATCH.html in the state folder.")] = None,
    database: Database = None, sees: Sees = None, identity: Identity = None,
    dry_run: DryRun = False, progress: ShowProgress = "auto", as_json: AsJson = False,
) -> None:
    """Carry out a runbook: hundreds of machines, in waves.

    Within limits; stopped, crashed or rebooted, the same command goes on.

    \b
    Examples:
      imgtool run wave1.yaml --dry-run
      imgtool run wave1.yaml --only 'web-*'
    """
    control_of(progress)
    book = _loaded(runbook)
    if check:
        count = sum(len(wave.machines) for wave in book.waves) + len(book.machines)
        output.show({"name": book.name, "waves": len(book.waves), "entries": count},
                    [f"{book.name}: sound; {len(book.waves)} waves, {count} entries"], as_json=as_json)
        return
    from imgtool.runs.tasks import tasks_of

    groups = tasks_of(book, os.path.dirname(os.path.abspath(runbook)), only or (), STOP)
    if dry_run:
        _plan(groups, as_json=as_json)
        return
    with output.interrupted("machines that were under way have not failed", "the same command goes on with them"):
        summary = _carry_out(book, groups, database=database, sees=sees, identity=identity, retry=retry, quiet=progress == "none")
    summary = replace(summary, report=_report(report, book.name, database))
    output.show(summary, table(summary), as_json=as_json)
    _notify([notify] if notify else book.notify or (), summary)
    if summary.done != len(summary.machines):
        raise typer.Exit(ImgtoolError.exit_code)


def worker(
    database: Database = None, sees: Sees = None, identity: Identity = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, max=64, help="Done at once on this host.")] = 2,
) -> None:
    """Take work from a shared database, until it is stopped.

    Each host has one worker.

    \b
    Examples:
      imgtool worker --database postgresql://imgtool@db1/imgtool
      imgtool worker --database postgresql://imgtool@db1/imgtool \\
          --sees san1,nfs2 --steps 4
    """
    engine = _engine()
    with output.interrupted("machines that were under way have not failed", "the next start of this worker goes on with them"), \
            engine.working(engine.database(database), identity=identity, sees=_labels(sees), steps=steps, stop=STOP) as here:
        output.say(f"worker {here.identity}: takes work from {here.store.where.shown}")
        while True:
            here.stop.check()
            time.sleep(LOOK_SECONDS)


def _loaded(path: Path) -> Runbook:
    """Each thing that is wrong has its lines; the exit code is that of wrong use."""
    from imgtool.runs.runbook import load
    from imgtool.runs.runbook.nodes import RunbookError

    try:
        return load(str(path))
    except RunbookError as error:
        for one in error.complaints:
            output.say_error(UsageError(str(one), one.hint))
        raise typer.Exit(UsageError.exit_code) from None


def _engine() -> _Engine:
    """Loaded only here: it takes half a second, and may not be installed."""
    if find_spec("dbos") is None:
        raise MissingToolError("run and worker need the engine, which is not installed", ENGINE_HINT)
    return _Engine()


class _Engine:
    """What of the engine is used here."""

    def __init__(self) -> None:
        from imgtool.runs.engine.store import database
        from imgtool.runs.engine.worker import working

        self.database, self.working = database, working


def _labels(sees: str | None) -> list[str]:
    return [one.strip() for one in (sees or "").split(",") if one.strip()]


def _carry_out(book: Runbook, groups: Sequence[Group], *, database: str | None, sees: str | None, identity: str | None,
               retry: bool, quiet: bool) -> Summary:
    from imgtool.journal import now
    from imgtool.model.runbook import Summary

    began, engine = time.monotonic(), _engine()
    where = engine.database(database)
    labels = _labels(sees) or (_every_label(groups) if where.path else [])
    with engine.working(where, identity=identity, sees=labels, steps=book.limits.per_worker, stop=STOP) as here:
        tasks = {task.name: (task, book.limits) for group in groups for task in group.tasks}
        again = here.store.retry(book.name, tasks, tasks) if retry else []
        for _ in range(2):  # what was added to a batch that was under way is submitted when that has ended
            changed = here.store.submit(book.name, groups, book.limits, now())
            here.audit.event("submitted", batch=book.name, machines=len(tasks), retried=again)
            output.say_warnings(f"{name}: it was submitted with other settings, which stay (--retry: until it has failed)"
                                for name in changed)
            _watch(here, book.name, groups, quiet=quiet)
            if here.store.machines(book.name).keys() >= tasks.keys():
                break
        outcomes = tuple(here.store.outcomes(book.name, groups))
        done = sum(one.state == "done" for one in outcomes)
        here.audit.event("ended", batch=book.name, done=done, failed=len(outcomes) - done)
    return Summary(batch=book.name, machines=outcomes, done=done, failed=len(outcomes) - done,
                   seconds=round(time.monotonic() - began, 3))


def _every_label(groups: Sequence[Group]) -> list[str]:
    """Where one machine does all, it sees all."""
    return sorted({str(task.settings.sees) for group in groups for task in group.tasks if task.settings.sees})


def _watch(here: Worker, batch: str, groups: Sequence[Group], *, quiet: bool) -> None:
    """Until nothing of the batch is to be done. Raises StoppedError."""
    told: dict[str, str] = {}
    while True:
        busy = here.store.busy(batch)
        for one in here.store.outcomes(batch, groups):
            if told.get(one.name, "waiting") != one.state and not quiet:
                output.say(f"{one.name}: {one.state}" + (f": {one.error}" if one.error else ""))
            told[one.name] = one.state
        if not busy:
            return
        here.stop.check()
        time.sleep(LOOK_SECONDS)


def _plan(groups: Sequence[Group], *, as_json: bool) -> None:
    """All plans and all problems in one table; the exit code is that of the first machine that would be refused."""
    from imgtool.runs.plans import plans

    found = list(plans(groups, control_of()))
    document = {"machines": [{"name": one.name, "wave": one.wave, **one.plan.to_json()} for one in found]}
    output.show(document, plan_table(found), as_json=as_json)
    if code := next((one.exit_code for one in found if one.exit_code), 0):
        raise typer.Exit(code)


def plan_table(found: Sequence[Planned]) -> Iterable[str]:
    """A line a machine, its problems below it."""
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        bytes_, seconds = sum(step.bytes for step in one.plan.steps), sum(step.estimate_seconds or 0 for step in one.plan.steps)
        verbs = ", ".join(step.verb for step in one.plan.steps) or "nothing"
        about = f", about {seconds:.0f} s" if seconds else ""
        yield f"{one.name.ljust(width)}  {one.wave}  {verbs}; {size(bytes_)}{about}"
        for problem in one.plan.problems:
            yield f"{'':{width}}  {'FATAL' if problem.fatal else 'warning'}: {problem.what}" + (
                f" ({problem.hint})" if problem.hint else "")
    ready = sum(not one.exit_code for one in found)
    yield f"{ready} of {len(found)} machines can go"


def table(summary: Summary) -> Iterable[str]:
    """What a person is told at the end."""
    width = max((len(one.name) for one in summary.machines), default=0)
    for one in summary.machines:
        yield f"{one.name.ljust(width)}  {one.state:<9}  {one.seconds:8.1f} s" + _why(one)
    yield f"{summary.batch}: {summary.done} of {len(summary.machines)} done, in {summary.seconds:.1f} s"
    if summary.report:
        yield f"report: {summary.report}"


def _why(one: Outcome) -> str:
    return (f"  {one.error}" if one.error else "") + (f" (hint: {one.hint})" if one.hint else "")


def _report(path: Path | None, batch: str, database: str | None) -> str | None:
    """The page about all machines of the batch; where it is. What goes wrong here is said, and changes nothing."""
    from imgtool import files
    from imgtool.journal import state_folder
    from imgtool.runs.jobs import stores
    from imgtool.runs.jobs.overview import overview
    from imgtool.runs.pages.overview import page

    place = path or state_folder() / "reports" / f"{batch}.html"
    try:
        if path is None:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with stores(database) as known:
            seen = overview(known, lambda job: job.batch == batch)
        files.put(str(place), page(seen, title=batch).encode("utf-8", "replace"), replace=True)
    except (ImgtoolError, OSError) as error:
        output.say_warnings([f"no report was written: {error}"])
        return None
    return str(place.absolute())


def _notify(argv: Sequence[str], summary: Summary) -> None:
    """It is given the summary with the machines that are not done. What goes wrong here is said, and changes nothing."""
    if not argv:
        return
    from imgtool import proc

    machines = [asdict(one) for one in summary.machines if one.state != "done"]
    try:
        done = proc.run(argv, stop=STOP, given=json.dumps({**asdict(summary), "machines": machines}).encode())
        if done.returncode:
            output.say_warnings([f"{argv[0]} ended with {done.returncode}"])
    except ImgtoolError as error:
        output.say_warnings([f"{argv[0]}: {error.message}"])
