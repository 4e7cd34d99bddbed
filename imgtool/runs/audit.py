"""Who did what, when, with which versions and checksums: JSON lines, appended and flushed, kept when the database's rows go.

One file for each host, in the state folder. No secret comes here: tasks only say where secrets are.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imgtool import __version__
from imgtool.journal import Journal, appended, events, state_folder, user

NAME = "audit.jsonl"


def path() -> Path:
    return state_folder() / NAME


def told() -> Iterator[dict[str, Any]]:
    """All events of this host, oldest first."""
    if path().is_file():
        yield from events(path())


class Audit:
    """The file of this host, for one process. ``worker``: its identity, or what else speaks (``run``, ``jobs``)."""

    def __init__(self, worker: str) -> None:
        self._journal = Journal(appended(path()))
        self._who = {"worker": worker, "host": platform.node(), "pid": os.getpid(), "user": user()}

    def event(self, what: str, **details: object) -> None:
        """Flushed when this returns. Raises NoSpaceError."""
        self._journal.event(what, **self._who, **details)

    def begins(self, **details: object) -> None:
        """This process begins to work; what another of the same worker had begun has ended with it."""
        self.event("worker", imgtool=__version__, python=platform.python_version(), **details)
