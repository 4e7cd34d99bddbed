"""Tasks of the server, waited for.

``task.info`` as a whole is not read: for tasks of managers its entity is not what pyvmomi expects, and it raises TypeError.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from imgtool.endpoints.vsphere import properties
from imgtool.endpoints.vsphere.login import Session, said
from imgtool.errors import ImgtoolError
from imgtool.progress import Stop

POLL = 0.2
"""Seconds between two looks, at first."""
SLOWEST_POLL = 2.0


def run(session: Session, what: str, begin: Callable[[Any], Any], stop: Stop) -> Any:
    """Begins a task and waits for its end; gives its result (an object's id where it is one).

    A task that imgtool is stopped over goes on at the server. Raises ImgtoolError with the fault's words.
    """
    task = session.call(what, begin, again=False)
    pause = POLL
    while True:
        seen = properties.of(session, task, ["info.state", "info.error", "info.result"], what)
        state = seen.get("info.state")
        if state == "success":
            result = seen.get("info.result")
            return getattr(result, "_moId", result)
        if state == "error":
            error = seen.get("info.error")
            raise said(error, what) if isinstance(error, Exception) else ImgtoolError(f"{what} failed")
        stop.check()
        time.sleep(pause)
        pause = min(2 * pause, SLOWEST_POLL)
