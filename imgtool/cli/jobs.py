"""jobs and dashboard: what single commands and batches do now and did, and what an operator does to them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from imgtool.cli import completion, output
from imgtool.cli.images import STOP, AsJson
from imgtool.cli.job_lines import job_lines, table
from imgtool.errors import ENGINE_HINT, UsageError

if TYPE_CHECKING:
    from imgtool.model.job import Job, Overview
    from imgtool.runs.jobs import JobStore
    from imgtool.runs.jobs.batches import Batches

WATCH_SECONDS = 2.0
CLEAR = "\x1b[H\x1b[J"
"""A terminal's: home, and nothing below (ECMA-48: CUP, ED)."""

Id = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the beginning of it; BATCH/MACHINE.",
                                   autocompletion=completion.job_ids)]
Ids = Annotated[list[str], typer.Argument(metavar="JOB", help="As of show; several; or BATCH, for all of it.",
                                          autocompletion=completion.job_ids)]
MaybeIds = Annotated[list[str] | None, typer.Argument(
    metavar="JOB", help="As of cancel. Without: what was paused goes on.", autocompletion=completion.job_ids)]
Database = Annotated[str | None, typer.Option(
    "--database", metavar="URL", help="postgresql://USER@HOST/NAME. Default: the SQLite file in the state folder.")]
State = Annotated[str | None, typer.Option(
    metavar="STATE", help="Only: running, waiting, done, failed, stopped, cancelled; several with commas.",
    autocompletion=lambda: ("running", "waiting", "done", "failed", "stopped", "cancelled"))]
InWave = Annotated[str | None, typer.Option("--wave", metavar="NAME", help="Only of this wave, or of this batch.")]
AtHost = Annotated[str | None, typer.Option("--host", metavar="NAME", help="Only from, to or on this host; may be a glob.")]


class _Jobs(TyperGroup):
    """``imgtool jobs`` alone, or with options only, lists them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        helps = args and args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if helps or (args and not args[0].startswith("-")) else ["list", *args])


jobs = typer.Typer(name="jobs", cls=_Jobs, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.add_typer(jobs)
    app.command()(dashboard)


@jobs.callback()
def about() -> None:
    """Say what commands and batches do and did.

    Alone, or with options only, it lists them.

    \b
    Examples:
      imgtool jobs
      imgtool jobs --watch
    """


@jobs.command("list")
def show_list(
    state: State = None, wave: InWave = None, host: AtHost = None, database: Database = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until nothing is under way.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that needs nothing else.")] = None,
    as_json: AsJson = False,
) -> None:
    """List all jobs, the latest of a kind last.

    \b
    Examples:
      imgtool jobs list --state failed
      imgtool jobs list --wave pilot --html pilot.html
    """
    if watch and (as_json or html):
        raise UsageError("--watch is for people: it cannot be combined with --json or --html")
    wanted = _wanted(state, wave, host)
    seen = _look(database, wanted)
    if html:
        _write_page(html, seen)
    elif watch:
        _watch(lambda: _look(database, wanted))
    else:
        output.show(seen, table(seen, output.columns()), as_json=as_json)


@jobs.command()
def show(job: Id, database: Database = None, as_json: AsJson = False) -> None:
    """Show a job: steps, bytes, rate, why it failed.

    \b
    Examples:
      imgtool jobs show migrate-1a2b
      imgtool jobs show wave1/web01 --json
    """
    from imgtool.runs.jobs import find

    with _stores(database) as known:
        _, found = find(known, job)
    output.show(found, job_lines(found), as_json=as_json)


@jobs.command()
def logs(job: Id, database: Database = None) -> None:
    """Print all events of a job, one JSON object a line.

    \b
    Examples:
      imgtool jobs logs migrate-1a2b
      imgtool jobs logs wave1/web01 | jq .event
    """
    from imgtool.runs.jobs import find

    with _stores(database) as known:
        store, found = find(known, job)
        for event in store.events(found):
            print(json.dumps(event))


@jobs.command()
def cancel(job: Ids, database: Database = None) -> None:
    """End what runs.

    What is there is kept, and can be gone on with.

    \b
    Examples:
      imgtool jobs cancel migrate-1a2b
      imgtool jobs cancel wave1/web01 wave1/web02
    """
    _each(job, database, lambda store, found: store.cancel(found), "cancelled")


@jobs.command()
def retry(job: Ids, database: Database = None) -> None:
    """Try again what has failed or was cancelled.

    \b
    Examples:
      imgtool jobs retry wave1/web01
      imgtool jobs retry wave1
    """
    _each(job, database, lambda store, found: store.retry(found), "tried again")


@jobs.command()
def pause(database: Database = None) -> None:
    """Let nothing new begin, until resume.

    That holds for all batches of the database. What runs goes on.

    \b
    Examples:
      imgtool jobs pause
      imgtool jobs pause --database postgresql://imgtool@db1/imgtool
    """
    with _stores(database) as known:
        _batches(known).pause()
    output.say("paused: what runs goes on, nothing new begins (imgtool jobs resume)")


@jobs.command()
def resume(
    job: MaybeIds = None,
    on: Annotated[str | None, typer.Option(
        "--on", metavar="WORKER", help="It takes over what workers that are gone for good had under way.")] = None,
    database: Database = None,
) -> None:
    """Go on with what was paused, cancelled, or lost.

    Before --on make sure that the lost worker's host is down: what still runs there would be done twice.

    \b
    Examples:
      imgtool jobs resume wave1/web01
      imgtool jobs resume --on conv2 --database postgresql://imgtool@db1/imgtool
    """
    if on:
        _hand_over(on, job or [], database)
        return
    if job:
        _each(job, database, lambda store, found: store.resume(found), "resumed")
        return
    with _stores(database) as known:
        batches = _batches(known)
        batches.unpause()
        _say_if_alone(batches)


def dashboard(
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free.")] = 0,
    database: Database = None,
) -> None:
    """Show jobs in a browser of this host.

    Waves, machines, throughput, failures by cause. It only reads. It prints its
    address, which is secret. From afar: ssh -L 8080:127.0.0.1:8080 HOST.

    \b
    Examples:
      imgtool dashboard
      imgtool dashboard --port 8080
    """
    from imgtool.runs.dashboard import serving

    _look(database)  # what is wrong with it is said now
    with serving(lambda: _look(database), port) as address:
        print(address, flush=True)
        while not STOP.is_set():
            time.sleep(0.2)
    STOP.check()


@contextmanager
def _stores(database: str | None) -> Iterator[list[JobStore]]:
    from imgtool.journal import state_folder
    from imgtool.runs.jobs import ENGINE_DATABASE, stores

    if database is None and find_spec("dbos") is None and (state_folder() / ENGINE_DATABASE).is_file():
        output.say_warnings([f"batches are not shown: the engine is not installed; {ENGINE_HINT}"])
    with stores(database) as known:
        yield known


def _look(database: str | None, wanted: Callable[[Job], bool] = lambda job: True) -> Overview:
    """Anew each time: a database may be made, or go away, while somebody watches."""
    from imgtool.runs.jobs.overview import overview

    with _stores(database) as known:
        return overview(known, wanted)


def _wanted(state: str | None, wave: str | None, host: str | None) -> Callable[[Job], bool]:
    """Raises UsageError."""
    from imgtool.model.job import STATES

    states = [one.strip() for one in state.split(",")] if state else list(STATES)
    if unknown := [one for one in states if one not in STATES]:
        raise UsageError(f"--state {unknown[0]}: not a state", f"there are: {', '.join(STATES)}")

    def fits(job: Job) -> bool:
        places = [str(one) for one in (job.source_host, job.target_host, job.worker) if one]
        return (job.state in states and (wave is None or wave in (job.wave, job.batch))
                and (host is None or any(fnmatchcase(one, host) for one in places)))

    return fits


def _write_page(path: Path, seen: Overview) -> None:
    from imgtool import files
    from imgtool.runs.pages.overview import page

    files.put(str(path), page(seen).encode("utf-8", "replace"), replace=True)


def _watch(look: Callable[[], Overview]) -> None:
    """Until nothing is under way. Raises StoppedError."""
    from imgtool.model.job import ACTIVE

    terminal = sys.stdout.isatty()
    while True:
        seen = look()
        text = "\n".join(output.printable(line) for line in table(seen, output.columns()))
        print(f"{CLEAR}{text}" if terminal else f"{text}\n", flush=True)
        if not any(job.state in ACTIVE for job in seen.jobs):
            return
        for _ in range(int(WATCH_SECONDS / 0.1)):
            STOP.check()
            time.sleep(0.1)


def _each(names: Sequence[str], database: str | None, work: Callable[[JobStore, list[Job]], None], what: str) -> None:
    """Each store gets those of its own; what it does is said."""
    from imgtool.runs.jobs import chosen

    with _stores(database) as known:
        for store, found in chosen(known, names):
            work(store, found)
            output.say(f"{what}: {', '.join(job.id for job in found[:20])}"
                       + (f" and {len(found) - 20} more" if len(found) > 20 else ""))
            if what != "cancelled":
                _say_if_alone(store)


def _hand_over(to: str, names: Sequence[str], database: str | None) -> None:
    """Raises UsageError."""
    from imgtool.runs.jobs import chosen

    with _stores(database) as known:
        wanted = [job for _, found in chosen(known, names) for job in found]
        taken = _batches(known).hand_over(to, wanted)
    output.say(f"{to} takes over: {', '.join(taken[:20]) or 'nothing: no worker that is gone has anything under way'}")


def _batches(known: Sequence[JobStore]) -> Batches:
    """Raises UsageError."""
    for store in known:
        if hasattr(store, "unpause"):
            return store  # type: ignore[return-value]
    raise UsageError("there are no batches on this host", "--database postgresql://… names where they are; "
                     "a single command is ended with: imgtool jobs cancel")


def _say_if_alone(store: object) -> None:
    if getattr(store, "alone", False):
        output.say_warnings(["no process takes work: imgtool run RUNBOOK goes on with it"])
