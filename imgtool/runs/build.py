"""A request → a plan. Looks, and writes nothing. The steps are loaded where they are used: each loads much."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imgtool.plan import Plan, Step
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.model import AllocateRequest, ConvertRequest
    from imgtool.model.translation import MachineRequest, TranslateRequest


def convert_plan(request: ConvertRequest, control: Control) -> Plan:
    """Raises what ``convert`` would refuse: a fatal problem has its exit code with ``--dry-run`` too."""
    from imgtool.steps.convert import prepare

    return Plan(steps=(prepare(request, control),))


def translate_plan(request: TranslateRequest, control: Control) -> Plan:
    """Raises what ``translate`` would refuse."""
    from imgtool.steps.translate import prepare

    return prepare(request, control)


def translate_step(request: TranslateRequest) -> Plan:
    """Without looking: ``translate`` looks itself, and is quick."""
    return Plan(steps=(Step(verb="translate", request=request, summary=f"{request.source} → {request.destination or 'stdout'}"),))


def machine_plan(request: MachineRequest, control: Control) -> Plan:
    """Raises what ``convert`` of any disk, or ``translate``, would refuse."""
    from imgtool.steps.machine import prepare

    return prepare(request, control)


def rewrite_plan(convert: ConvertRequest, request: TranslateRequest, control: Control) -> Plan:
    """One disk, then the description that names it. Raises UsageError if the description has no such disk."""
    from imgtool.steps import translate
    from imgtool.steps.convert import prepare

    place = translate.placed(request, convert.source, convert.destination, convert.spec.format)
    described = translate.prepare(replace(request, placed=(place,)), control)
    return Plan(steps=(prepare(convert, control), *described.steps), problems=described.problems)


def allocate_plan(request: AllocateRequest, control: Control) -> Plan:
    from imgtool.steps.allocate import prepare

    return Plan(steps=(prepare(request, control),))
