"""A request → a plan. Looks, and writes nothing."""

from __future__ import annotations

from dataclasses import replace

from imgtool.model import AllocateRequest, ConvertRequest
from imgtool.model.translation import MachineRequest, TranslateRequest
from imgtool.plan import Plan, Step
from imgtool.progress import Control
from imgtool.steps.allocate import prepare as prepare_allocate
from imgtool.steps.convert import prepare as prepare_convert
from imgtool.steps.translate import placed
from imgtool.steps.translate import prepare as prepare_translate


def convert_plan(request: ConvertRequest, control: Control) -> Plan:
    """Raises what ``convert`` would refuse: a fatal problem has its exit code with ``--dry-run`` too."""
    return Plan(steps=(prepare_convert(request, control),))


def translate_plan(request: TranslateRequest, control: Control) -> Plan:
    """Raises what ``translate`` would refuse."""
    return prepare_translate(request, control)


def translate_step(request: TranslateRequest) -> Plan:
    """Without looking: ``translate`` looks itself, and is quick."""
    return Plan(steps=(Step(verb="translate", request=request, summary=f"{request.source} → {request.destination or 'stdout'}"),))


def machine_plan(request: MachineRequest, control: Control) -> Plan:
    """Raises what ``convert`` of any disk, or ``translate``, would refuse."""
    from imgtool.steps.machine import prepare

    return prepare(request, control)


def rewrite_plan(convert: ConvertRequest, request: TranslateRequest, control: Control) -> Plan:
    """One disk, then the description that names it. Raises UsageError if the description has no such disk."""
    request = replace(request, placed=(placed(request, convert.source, convert.destination, convert.spec.format),))
    described = prepare_translate(request, control)
    return Plan(steps=(prepare_convert(convert, control), *described.steps), problems=described.problems)


def allocate_plan(request: AllocateRequest, control: Control) -> Plan:
    return Plan(steps=(prepare_allocate(request, control),))
