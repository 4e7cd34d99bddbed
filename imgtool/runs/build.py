"""A request → a plan. Looks, and writes nothing."""

from __future__ import annotations

from imgtool.model import AllocateRequest, ConvertRequest
from imgtool.plan import Plan
from imgtool.progress import Control
from imgtool.steps.allocate import prepare as prepare_allocate
from imgtool.steps.convert import prepare as prepare_convert


def convert_plan(request: ConvertRequest, control: Control) -> Plan:
    """Raises what ``convert`` would refuse: a fatal problem has its exit code with ``--dry-run`` too."""
    return Plan(steps=(prepare_convert(request, control),))


def allocate_plan(request: AllocateRequest, control: Control) -> Plan:
    return Plan(steps=(prepare_allocate(request, control),))
