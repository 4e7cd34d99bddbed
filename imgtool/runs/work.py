"""One step of one machine, done so that it can be done again: what is there already, whole and the same, is not made anew.

No engine here: ``engine`` calls this, and so do tests.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgtool import proc
from imgtool.endpoints.uri import shown
from imgtool.errors import DifferError, ImgtoolError, RefusedError, UsageError
from imgtool.frozen import frozen
from imgtool.journal import events, state_folder
from imgtool.model import ConvertRequest, SourceOptions
from imgtool.model.migration import MigrateRequest
from imgtool.model.runbook import Task
from imgtool.model.translation import MachineRequest, TranslateRequest
from imgtool.progress import Control
from imgtool.runs.requests import request_of
from imgtool.runs.tasks import steps_of

HOOKS = ("before", "after")
HOOK_MEMORY = 64 << 30
ASIDE = ("window", "attempts", "on_error", "before", "after", "steps", "sees")
"""Settings that do not change what a step does."""
Result = dict[str, Any]


def parts(task: Task) -> list[str]:
    """What is done for a machine, in this order: ``before``, ``0-migrate``, …, ``after``."""
    middle = [f"{number}-{frozen(step)['verb']}" for number, step in enumerate(steps_of(task))]
    return [*(["before"] if task.settings.before else []), *middle, *(["after"] if task.settings.after else [])]


def copies(part: str) -> bool:
    """Whether it tells of each disk when that is whole (``Control.disks``)."""
    return part.partition("-")[2] in ("migrate", "p2v", "v2p")


def work_id(task: Task, part: str) -> str:
    """The same for the same work: a hash of what is done."""
    settings = {key: value for key, value in frozen(task.settings).items() if key not in ASIDE}
    what = getattr(task.settings, part) if part in HOOKS else frozen(_step(task, part))
    said = json.dumps([task.batch, task.name, part, what, settings, frozen(task.source), frozen(task.target)], sort_keys=True)
    return hashlib.blake2b(said.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def do(task: Task, part: str, control: Control, *, since: str = "") -> Result:
    """Does it, and says what was done. ``since``: when the machine was submitted, as in a journal: what was finished after that
    was finished for it. Raises what the verb raises; UsageError for a verb that this version has not.
    """
    if part in HOOKS:
        return _hook(task, part, control)
    verb, request = request_of(task, _step(task, part))
    if verb == "verify":
        return _verified(request, control)
    there = FOUND.get(type(request))
    if there is not None and (found := there(request, control, since)) is not None:
        _refuse_lost(found, task)
        return {**found, "kept": True}
    done: Result = frozen(_function(verb, task)(request, control))
    _refuse_lost(done, task)
    return done


def _refuse_lost(done: Result, task: Task) -> None:
    """What could not be read of a physical disk is for a person to look at."""
    if lost := sum(disk.get("bytes_lost", 0) for disk in done.get("disks", ()) if isinstance(disk, dict)):
        raise ImgtoolError(f"{task.name}: {lost} bytes could not be read, and are zeros in {done.get('machine')}",
                           "the maps of rescue say where; look at the file systems before it is used")


def _function(verb: str, task: Task) -> Callable[[Any, Control], object]:
    from imgtool.steps.verbs import VERBS, function

    known = "migrate" if verb == "p2v" else verb
    if known not in VERBS:
        raise UsageError(f"{task.name}: this version of imgtool has no {verb}", f"it has {', '.join(VERBS)}")
    return function(known)


def _step(task: Task, part: str) -> object:
    return steps_of(task)[int(part.partition("-")[0])]


def machine_json(task: Task) -> Mapping[str, object]:
    """What a hook gets: no secrets, only where they are."""
    return {"batch": task.batch, "wave": task.wave, "name": task.name,
            "source": frozen(task.source), "target": frozen(task.target),
            "settings": {key: value for key, value in frozen(task.settings).items() if value is not None}}


def _hook(task: Task, part: str, control: Control) -> Result:
    argv = task.settings.before if part == "before" else task.settings.after
    assert argv  # noqa: S101 - ``parts`` has asked
    done = proc.run(argv, stop=control.stop, given=json.dumps(machine_json(task)).encode(),
                    limits=proc.Limits(seconds=None, memory=HOOK_MEMORY))
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ImgtoolError(f"{task.name}: the command {part} its steps, {argv[0]}, ended with {done.returncode}"
                           + (f": {words[-1]}" if words else ""), "run it by hand, then: imgtool jobs retry")
    return {"output": done.stdout[-4096:]}


def _verified(pair: tuple[str, str], control: Control) -> Result:
    from imgtool.steps.verify import verify

    done = verify(*pair, SourceOptions(), control)
    if not done.identical:
        raise DifferError(f"{pair[0]} and {pair[1]} differ: the first byte is {done.first_difference}",
                          "imgtool verify shows more")
    return frozen(done)  # type: ignore[no-any-return]


def _found_migrated(request: MigrateRequest, control: Control, since: str) -> Result | None:
    """The last result in its journal, where that is of this batch."""
    from imgtool.steps.migrate.work import job_of

    path = Path(state_folder(), "jobs", f"{job_of(request)}.jsonl")
    said = [one for one in events(path) if one["event"] == "result"] if path.is_file() else []
    if not said or not since or str(said[-1]["time"]) < since:
        return None
    result = said[-1]["result"]
    return result if isinstance(result, dict) and result.get("target") == shown(request.target) else None


def _found_converted(request: ConvertRequest, control: Control, since: str) -> Result | None:
    """An image of the wanted format that has the same bytes. Raises RefusedError where there is another."""
    from imgtool.formats.disk import open_disk
    from imgtool.steps.verify import verify

    if request.force or not os.path.exists(request.destination):
        return None
    with open_disk(request.destination, stop=control.stop) as disk:
        form = disk.top.format
    reading = SourceOptions(ignore_lock=request.reading.ignore_lock)
    if form != request.spec.format or not verify(request.source, request.destination, reading, control,
                                                 used=request.only_used).identical:
        raise RefusedError(f"{request.destination} exists, and differs from what this step would write",
                           "force: true replaces it")
    return {"source": request.source, "destination": request.destination, "format": form, "verified": True}


def _found_machine(request: MachineRequest, control: Control, since: str) -> Result | None:
    """A folder, or an OVA, whose description names disks that have the same bytes."""
    from imgtool.steps.machine import is_package

    place = Path(request.convert.destination)
    if is_package(request):
        described = [place] if place.is_file() and not request.convert.force else []
    else:
        described = sorted(place.glob(f"*{request.translate.suffix}")) if place.is_dir() else []
    if len(described) != 1:
        return None
    if not _same_disks(request, str(described[0]), control):
        raise RefusedError(f"{place} exists, and is not a copy of {request.convert.source}", "name another place")
    return {"source": request.convert.source, "destination": str(place), "description": described[0].name, "verified": True}


def _same_disks(request: MachineRequest, path: str, control: Control) -> bool:
    from imgtool.endpoints.local import load
    from imgtool.steps.machine import open_disk_of, open_slot
    from imgtool.steps.verify import verify_disks

    old, new = load(request.convert.source), load(path)
    pairs = list(zip(old.parsed.machine.disks, new.parsed.machine.disks, strict=False))
    if not len(pairs) == len(old.parsed.machine.disks) == len(new.parsed.machine.disks):
        return False
    space = os.path.dirname(request.convert.destination)
    for one, other in pairs:
        with (open_disk_of(old, one, request, space, control) as left,
              open_slot(new, other, SourceOptions(), (), space, control.stop) as right):
            if not verify_disks(left, right, control, used=request.convert.only_used).identical:
                return False
    return True


def _found_translated(request: TranslateRequest, control: Control, since: str) -> Result | None:
    """The same text."""
    from imgtool.steps.translate import translation

    path = Path(request.destination or "")
    if request.force or request.new_identity or not path.is_file():
        return None
    if path.read_bytes() != translation(request).rendered.text:
        raise RefusedError(f"{path} exists, and differs from what this step would write", "force: true replaces it")
    return {"source": request.source, "destination": str(path)}


FOUND: Mapping[type, Callable[[Any, Control, str], Result | None]] = {
    MigrateRequest: _found_migrated, ConvertRequest: _found_converted, MachineRequest: _found_machine,
    TranslateRequest: _found_translated}
"""Request → what is there of it already."""
