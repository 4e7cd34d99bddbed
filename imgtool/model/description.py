"""What goes into and comes out of a machine description (``.vmx``, domain XML, OVF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from imgtool.model.machine import Machine
from imgtool.model.problem import Problem


class Trace(NamedTuple):
    """One line of ``translate --explain``: which key of a description goes with which field."""

    field: str
    """Of Machine: ``disks[0].path``."""
    key: str
    """Of the description: ``scsi0:0.fileName``, ``/domain/devices/disk[1]/source/@file``."""
    value: str
    """As it stands there; of secrets nothing."""


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A description that was read."""

    machine: Machine
    trace: tuple[Trace, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Settings that Machine has no field for, and what is odd: the key, what it means, what to do."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A description that was written."""

    text: bytes
    trace: tuple[Trace, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Fields of the machine that this kind of description has no place for."""
