"""What is looked for before the first byte is copied: rules, each with an id, a level and a remedy.

``RULES`` is the list that ``docs/reference/preflight.md`` shows; one function a rule, in ``source``, ``target`` and ``guest``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgtool.model.problem import Problem
from imgtool.model.situation import Finding, Level, Situation
from imgtool.steps.preflight import guest, source, target

Check = Callable[[Situation], Iterator[str]]
"""What is wrong, in words; one for each thing that is."""


@dataclass(frozen=True)
class Rule:
    id: str
    level: Level
    check: Check
    hint: str


def _rules(*modules: object) -> Iterator[Rule]:
    for module in modules:
        for row in module.RULES:  # type: ignore[attr-defined]
            yield Rule(*row)


RULES: tuple[Rule, ...] = tuple(_rules(source, target, guest))


def findings(situation: Situation) -> tuple[Finding, ...]:
    """All that the rules have to say, fatal ones first."""
    found = [Finding(rule=rule.id, level=rule.level, what=what, hint=rule.hint)
             for rule in RULES for what in rule.check(situation)]
    return tuple(sorted(found, key=lambda one: list(Level).index(one.level)))


def problems(found: tuple[Finding, ...]) -> tuple[Problem, ...]:
    """Findings as a plan has them."""
    return tuple(Problem(what=f"{one.what} [{one.rule}]", hint=one.hint, fatal=one.level == Level.FATAL) for one in found)
