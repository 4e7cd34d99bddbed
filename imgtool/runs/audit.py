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
from imgtool.journal import Journal, events, state_folder, user
from imgtool.storage import raise_os

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
        place = path()
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = open(os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "ab")  # noqa: SIM115
        except OSError as error:
            raise_os(error, f"opening {place}")
        self._journal = Journal(file)
        self._who = {"worker": worker, "host": platform.node(), "pid": os.getpid(), "user": user()}

    def event(self, what: str, **details: object) -> None:
        """Flushed when this returns. Raises NoSpaceError."""
        self._journal.event(what, **self._who, **details)

    def begins(self, **details: object) -> None:
        """This process begins to work; what another of the same worker had begun has ended with it."""
        self.event("worker", imgtool=__version__, python=platform.python_version(), **details)
