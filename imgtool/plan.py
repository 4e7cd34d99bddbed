"""What shall be done, before it is done: steps, and problems found on the way. Pure.

A step's id is a hash of what it does, so that the same work has the same id in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass

from imgtool.model import Problem


@dataclass(frozen=True, kw_only=True)
class Step:
    verb: str
    """A key of ``steps.verbs.VERBS``."""
    summary: str
    request: object
    """The frozen dataclass that the verb takes."""
    bytes: int = 0
    """Of the guest's disk, at most."""
    estimate_seconds: float | None = None
    notes: tuple[str, ...] = ()
    """What happens within, and why in this way."""

    @property
    def id(self) -> str:
        request = asdict(self.request) if is_dataclass(self.request) else self.request  # type: ignore[arg-type]
        what = json.dumps([self.verb, request], default=str, sort_keys=True)
        return hashlib.blake2b(what.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def _about(step: Step) -> str:
    """How long, where that was measured."""
    return "" if step.estimate_seconds is None else f" (about {max(1, round(step.estimate_seconds))} s)"


@dataclass(frozen=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...] = field(default=())
    machine: str | None = None
    """Its name at the target, where a whole machine moves."""

    def to_json(self) -> Mapping[str, object]:
        return {
            **({"machine": self.machine} if self.machine is not None else {}),
            "steps": [{"id": step.id, "verb": step.verb, "summary": step.summary, "bytes": step.bytes,
                       "estimate_seconds": step.estimate_seconds, "notes": list(step.notes)} for step in self.steps],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def explain(self) -> Iterator[str]:
        """What ``--dry-run`` prints."""
        for number, step in enumerate(self.steps, 1):
            yield f"{number}. {step.verb}: {step.summary}{_about(step)}"
            yield from (f"     {note}" for note in step.notes)
        for problem in self.problems:
            yield f"{'FATAL' if problem.fatal else 'warning'}: {problem.what}" + (f" ({problem.hint})" if problem.hint else "")
