"""What a ``send`` that was stopped may have left at the other side, written down here before it begins."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass

from imgtool import files
from imgtool.storage import raise_os

FILE = "vsphere.json"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    name: str
    """Of the machine."""
    machine: str | None = None
    """Its id, as soon as it is known."""
    folder: str | None = None
    """``[datastore] folder`` with its files, where they were not made by a lease."""
    center: str | None = None
    """The dcPath of its datacenter."""
    datacenter: str | None = None
    """The datacenter's id."""


def note(state: str, left: Leftover) -> None:
    """Raises NoSpaceError."""
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
    except OSError as error:
        raise_os(error, f"making {state}")
    files.put(os.path.join(state, FILE), json.dumps(asdict(left)).encode(), replace=True)


def made_by(left: Leftover, name: str, identity: str, description: str) -> bool:
    """Whether a machine is the one that was left. One that has its own name by now is not, nor is a stranger of the same name."""
    ours = identity == left.machine or (left.folder is not None and description.startswith(left.folder + "/"))
    return name == left.name and ours


def noted(state: str) -> Leftover | None:
    with suppress(OSError, ValueError, TypeError), open(os.path.join(state, FILE), encoding="utf-8") as file:
        return Leftover(**json.load(file))
    return None


def forget(state: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(state, FILE))
