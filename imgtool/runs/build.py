"""A request → a plan. Looks, and writes nothing."""

from __future__ import annotations

from imgtool.model import AllocateRequest, ConvertRequest
from imgtool.plan import Plan
from imgtool.progress import Control
from imgtool.steps import allocate, convert


def convert_plan(request: ConvertRequest, control: Control) -> Plan:
    """Raises what ``convert`` would refuse: a fatal problem has its exit code with ``--dry-run`` too."""
    return Plan(steps=(convert.prepare(request, control),))


def allocate_plan(request: AllocateRequest, control: Control) -> Plan:
    return Plan(steps=(allocate.prepare(request, control),))
