"""jobs: what migrations do now and did, from their journals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from imgtool.cli import completion, output
from imgtool.cli.images import AsJson

if TYPE_CHECKING:
    from imgtool.runs.jobs import Job

STATES = ("running", "done", "failed", "stopped")
Id = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or the beginning of it.", autocompletion=completion.job_ids)]
jobs = typer.Typer(name="jobs", no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.add_typer(jobs)


@jobs.callback(invoke_without_command=True)
def usual(context: typer.Context) -> None:
    """Say what migrations do now and did; alone it lists them.

    \b
    Examples:
      imgtool jobs
      imgtool jobs show migrate-1a2b
    """
    if context.invoked_subcommand is None:
        show_list()


@jobs.command("list")
def show_list(
    state: Annotated[str | None, typer.Option(
        metavar="STATE", help="Only: running, done, failed, stopped.", autocompletion=lambda: STATES)] = None,
    as_json: AsJson = False,
) -> None:
    """List all jobs, the latest last.

    \b
    Examples:
      imgtool jobs list
      imgtool jobs list --state failed
    """
    from imgtool.runs.jobs import jobs as known

    found = [job for job in known() if state in (None, job.state)]
    rows = [f"{job.id}  {job.state:<8} {job.started[:19]}Z  {job.verb:<8} {job.machine or '?'}" for job in found]
    output.show({"jobs": [asdict(job) for job in found]}, rows or ["no jobs"], as_json=as_json)


@jobs.command()
def show(job: Id, as_json: AsJson = False) -> None:
    """Show a job: its steps, times, bytes, and why it failed.

    \b
    Examples:
      imgtool jobs show migrate-1a2b
      imgtool jobs show migrate-1a2b --json
    """
    from imgtool.runs.jobs import find

    found = find(job)
    output.show(found, _lines(found), as_json=as_json)


@jobs.command()
def logs(job: Id) -> None:
    """Print all events of a job, one JSON object a line.

    \b
    Examples:
      imgtool jobs logs migrate-1a2b
      imgtool jobs logs migrate-1a2b | jq .event
    """
    from imgtool.runs.jobs import find, told

    for event in told(find(job)):
        print(json.dumps(event))


def _lines(job: Job) -> Iterator[str]:
    yield f"{job.id}: {job.verb} of {job.machine or '?'}, {job.state}" + (f", run {job.runs} times" if job.runs > 1 else "")
    yield f"  {job.source} → {job.target}"
    yield f"  begun {job.started}" + (f", ended {job.ended}" if job.ended else "")
    for step in job.steps:
        seconds = "" if step["seconds"] is None else f", {step['seconds']:.1f} s"
        read = f", {output.size(step['bytes_read'])} read" if step["bytes_read"] else ""
        yield f"  {step['state']:<8} {step['verb']} {step['of'] or ''}{seconds}{read}"
    for change in (job.result or {}).get("changes", ()):
        yield f"  changed  {change['where']}: {change['what']}"
    if job.error:
        yield f"  error: {job.error}"
        if job.hint:
            yield f"  hint: {job.hint}"
