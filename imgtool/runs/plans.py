"""``run --dry-run``: what would be done for each machine, and all that is in the way, without writing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from imgtool.errors import ImgtoolError, RefusedError
from imgtool.frozen import frozen
from imgtool.model import ConvertRequest
from imgtool.model.migration import MigrateRequest
from imgtool.model.problem import Problem
from imgtool.model.runbook import AdaptStep, Task
from imgtool.model.translation import MachineRequest, TranslateRequest
from imgtool.plan import Plan, Step
from imgtool.progress import Control
from imgtool.runs import build
from imgtool.runs.requests import request_of
from imgtool.runs.tasks import Group, steps_of


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A machine's plan, or why there is none."""

    name: str
    wave: str
    plan: Plan
    exit_code: int = 0
    """That it would end with at once."""


def plans(groups: Iterable[Group], control: Control) -> Iterator[Planned]:
    """Machine by machine; what one raises is a fatal problem of that one. Raises StoppedError."""
    for task in (task for group in groups for task in group.tasks):
        control.stop.check()
        yield _planned(task, control)


def _planned(task: Task, control: Control) -> Planned:
    whole, code = Plan(steps=()), 0
    for number, step in enumerate(steps_of(task)):
        try:
            one = _plan(task, step, control, first=number == 0)
        except ImgtoolError as error:
            one = Plan(steps=(), problems=(Problem(what=error.message, hint=error.hint, fatal=True),))
            code = code or error.exit_code
        whole = replace(whole, machine=whole.machine or one.machine, steps=(*whole.steps, *one.steps),
                        problems=(*whole.problems, *one.problems))
    if any(one.fatal for one in whole.problems):
        code = code or RefusedError.exit_code
    return Planned(name=task.name, wave=task.wave, plan=whole, exit_code=code)


def _plan(task: Task, step: object, control: Control, *, first: bool) -> Plan:
    """What is made by the steps before cannot be looked at yet: nor can a description that names the disks of ``adapt``."""
    verb, request = request_of(task, step) if first or not isinstance(step, AdaptStep) else ("adapt", None)
    if first and isinstance(request, MigrateRequest):
        from imgtool.steps.migrate import prepare

        return prepare(request, control)
    if first and isinstance(request, ConvertRequest):
        return build.convert_plan(request, control)
    if first and isinstance(request, MachineRequest):
        return build.machine_plan(request, control)
    if first and isinstance(request, TranslateRequest):
        return build.translate_plan(request, control)
    return Plan(steps=(Step(verb=verb, request=frozen(step), summary=f"{verb} {task.name}"),))
