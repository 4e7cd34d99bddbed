"""migrate: a machine from one place to another, the whole way.

::

    look ─▶ (plan) ─▶ fetch each disk ─▶ adapt ─▶ describe ─▶ define ─▶ (start)           ``host``: disks are files of this host
    look ─▶ (plan) ─▶ stage where it must be ─▶ adapt overlays ─▶ send ─▶ compare ─▶ rename   ``far``

``look``      both sides, what is wrong (``steps/preflight``), the machine as it shall be
``work``      what a stopped run leaves, so that the same command goes on
``fetch``     one disk into a file of this host
``describe``  the description for the target

The source is only read. Every part can be done again: it finds what is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from imgtool import endpoints
from imgtool.endpoints.files import MachineFile
from imgtool.endpoints.uri import shown
from imgtool.errors import RefusedError
from imgtool.journal import Journal, journal, progress_path
from imgtool.model.endpoint import Credentials, Found, Uri
from imgtool.model.migration import Migrated, MigrateRequest
from imgtool.model.problem import Problem
from imgtool.ova.manifest import check_manifest
from imgtool.plan import Plan
from imgtool.progress import Control, Kept, Stop
from imgtool.steps.migrate import far, host, work
from imgtool.steps.migrate.look import Move, looked
from imgtool.steps.migrate.plan import plan_of


def prepare(request: MigrateRequest, control: Control) -> Plan:
    """The steps, their bytes and time, and all findings; nothing is written. Raises UsageError, UnreachableError, …"""
    with looked(request, control) as move:
        return plan_of(move, control)


def migrate(request: MigrateRequest, control: Control, *, keys: Sequence[str] = ()) -> Migrated:
    """Raises RefusedError (a fatal finding), and what copying, adapting and the endpoints raise. The same call then goes on.

    ``keys``: passphrases of the guest's volumes beside those of the key files.
    """
    began = time.monotonic()
    job = work.job_of(request)
    control = replace(control, progress=Kept(progress_path(job), control.progress))
    with journal(job, "migrate", source=shown(request.source), target=shown(request.target), machine=request.name,
                 of=control.of) as book, work.held(request, job) as folder:
        before = folder.finished()
        with looked(request, control, finished=before is not None) as move:
            book.event("looked", machine=move.name, findings=[[one.rule, one.what] for one in move.findings])
            if before is not None and not _there(move, before):
                folder.clear()
                before = None
            done = before or _all(move, folder, book, control, keys)
            if move.target.folder is not None:
                host.forget(move)
            folder.tidy()
            done = _started(move, done, book, control)
            folder.clear()
            result = replace(done, job=job, seconds=round(time.monotonic() - began, 3), source=shown(request.source),
                             target=shown(request.target), problems=move.problems, verified=request.verify)
            book.event("result", result=result)
    return result


def _all(move: Move, folder: work.Work, book: Journal, control: Control, keys: Sequence[str]) -> Migrated:
    """Up to the machine's own name."""
    refuse(move.problems)
    control.disks.there(len(move.seen.parsed.machine.disks))
    if move.request.shutdown_source and move.seen.state.running:
        with book.step("shutdown", machine=move.seen.found.name):
            move.source.shut_down(move.seen.found, control)
    warnings = _packed_as_said(move, book, control)
    way = host.move if move.target.folder is not None else far.move
    done = way(move, folder, book, control, keys)
    done = replace(done, warnings=(*warnings, *done.warnings))
    folder.set_finished(done)
    return done


def _packed_as_said(move: Move, book: Journal, control: Control) -> tuple[str, ...]:
    """The digests in the manifest of an OVF package. Raises DifferError."""
    package = move.source.machine.package if isinstance(move.source, MachineFile) else None
    if package is None:
        return ()
    if not move.request.verify:
        return package.warnings
    with book.step("manifest", package=package.path):
        return *package.warnings, *check_manifest(package, control)


def _there(move: Move, done: Migrated) -> bool:
    """Whether the target still has what a run before has made: somebody may have removed it since."""
    return any(one.name == done.machine for one in move.state.machines) or (done.id.startswith("/") and os.path.exists(done.id))


def _started(move: Move, done: Migrated, book: Journal, control: Control) -> Migrated:
    if not move.request.start:
        return done
    with book.step("start", machine=done.id):
        move.target.start(done.id)
    with book.step("watch", machine=done.id) as told:
        seen = move.target.watch(done.id, control)
        told["seen"] = seen
    return replace(done, started=seen)


def discard(request: MigrateRequest, control: Control) -> list[str]:
    """``--discard-partial``: removes what a stopped run has left, here and at the target; what was removed."""
    job = work.job_of(request)
    with work.held(request, job) as folder, looked(request, control, finished=folder.finished() is not None) as move:
        found = host.discard(move) if move.target.folder is not None else far.discard(move, folder)
        found += [] if folder.empty else [str(folder.path)]
        folder.clear()
    return found


def machines(uri: Uri, credentials: Credentials, stop: Stop) -> list[Found]:
    """``--list``: what there is at a source."""
    with closing(endpoints.source(uri, credentials, stop)) as source:
        return source.machines()


def refuse(problems: Sequence[Problem]) -> None:
    """Raises RefusedError for what is fatal."""
    fatal = [one for one in problems if one.fatal]
    if fatal:
        more = f"; and {len(fatal) - 1} more: --dry-run lists them" if len(fatal) > 1 else ""
        raise RefusedError(fatal[0].what + more, fatal[0].hint)
