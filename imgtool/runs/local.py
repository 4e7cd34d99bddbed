"""Carries a plan out in this process: no engine, no journal."""

from __future__ import annotations

from imgtool.plan import Plan
from imgtool.progress import Control
from imgtool.steps.verbs import function


def run(plan: Plan, control: Control) -> list[object]:
    """The results of the steps, in their order. Raises what a step raises, and stops there."""
    results = []
    for step in plan.steps:
        control.stop.check()
        results.append(function(step.verb)(step.request, control))
    return results
