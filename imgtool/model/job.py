"""What is known of work that is done or was: a single command, or a machine of a batch. Sizes are bytes, times seconds, UTC.

::

    Overview ─▶ Wave, Cause, Flow             made from the jobs (``runs/jobs/overview``)
       └─▶ Job ─▶ JobStep                     from journals, the engine's database and the audit
             └──▶ Going                       what moves at this moment
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ACTIVE = ("running", "waiting")
"""States of what will go on without anybody's doing."""
STATES = ("running", "failed", "stopped", "waiting", "cancelled", "done")
"""The one that a person should see first is first."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """A length of work under way."""

    what: str
    done: int
    total: int
    """0: not known."""
    rate: int
    """Bytes a second, of the last quarter of a minute."""
    remaining: float | None

    @property
    def percent(self) -> int | None:
        """None: not known. What a disk has got while it was copied may be more than was counted before."""
        return min(100, 100 * self.done // self.total) if self.total else None


@dataclass(frozen=True, kw_only=True)
class JobStep:
    """A part of a job."""

    verb: str
    of: str | None
    """A disk, a machine."""
    state: str
    """running, done, failed, stopped."""
    seconds: float | None
    bytes_read: int | None
    started: str
    ended: str | None = None
    attempts: int = 1
    worker: str | None = None
    work: str | None = None
    """Id of the work of a batch: the same work has the same."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Since it last began; a machine of a batch, over all its attempts."""

    id: str
    """Of a machine of a batch ``BATCH/NAME``."""
    verb: str
    state: str
    """One of STATES. stopped: killed or interrupted, the same command goes on."""
    machine: str | None
    source: str | None
    target: str | None
    started: str | None
    """RFC 3339. None: it waits for an earlier wave."""
    ended: str | None
    error: str | None = None
    """The last; where it is still under way, that of an attempt before."""
    hint: str | None = None
    exit_code: int | None = None
    steps: tuple[JobStep, ...] = ()
    """In their order."""
    result: dict[str, Any] | None = None
    runs: int = 1
    """How often it was begun."""
    retries: int = 0
    """Of its steps, and of itself."""
    batch: str | None = None
    wave: str | None = None
    source_host: str | None = None
    target_host: str | None = None
    worker: str | None = None
    """Who works, or worked, on it."""
    going: tuple[Going, ...] = ()
    bytes_read: int = 0
    """By its steps, with what is under way."""
    rate: int | None = None
    remaining: float | None = None
    """Of what is under way, not of the steps to come."""


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Of a batch: machines by their state."""

    batch: str
    name: str
    machines: int
    states: dict[str, int]
    bytes_read: int
    rate: int


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why jobs have failed: those that have failed alike."""

    error: str
    hint: str | None
    exit_code: int | None
    jobs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How much was read in a time."""

    start: str
    seconds: float
    rate: int
    """Bytes a second, the mean."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that ``jobs list --json`` and the pages say."""

    time: str
    paused: bool
    jobs: tuple[Job, ...]
    waves: tuple[Wave, ...] = ()
    causes: tuple[Cause, ...] = ()
    flow: tuple[Flow, ...] = ()
