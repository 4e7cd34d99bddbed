"""What is asked for, by a command line or a runbook."""

from __future__ import annotations

from dataclasses import dataclass

from imgtool.model.image import Allocation, ImageSpec


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How an image that is given may be read."""

    format: str | None = None
    """Said by the user; else found by the header."""
    allow_external: bool = False
    ignore_lock: bool = False


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    source: str
    destination: str
    """Absolute, links resolved."""
    spec: ImageSpec
    reading: SourceOptions = SourceOptions()
    force: bool = False
    verify: bool = True
    clone: bool = True
    detect_zeroes: bool | None = None
    """None: where the bytes pass through a buffer anyway."""
    only_used: bool = False
    """What the guest's file systems do not use becomes zeros."""


@dataclass(frozen=True, kw_only=True)
class AllocateRequest:
    path: str
    allocation: Allocation
    reading: SourceOptions = SourceOptions()
