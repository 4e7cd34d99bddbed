"""What the commands say at their end: the contract's JSON, field by field. Sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """One range of ``imgtool map``."""

    start: int
    length: int
    zero: bool
    """Reads as zeros, known without reading."""
    allocated: bool
    """Space is taken on the storage, in this image or one below it."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    path: str
    format: str
    sound: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    leaked_clusters: int = 0


@dataclass(frozen=True, kw_only=True)
class CopyStats:
    """What a way of copying moved."""

    engine: str
    bytes_read: int
    bytes_written: int
    bytes_cloned: int = 0
    detected_zeroes: bool = False
    """Written zeros were looked for and left out."""


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    source: str
    destination: str
    format: str
    subformat: str | None
    allocation: str
    virtual_size: int
    engine: str
    bytes_read: int
    bytes_written: int
    bytes_cloned: int
    detected_zeroes: bool
    seconds: float
    verified: bool
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    identical: bool
    first_difference: int | None
    """Offset on the guest's disk of the first byte that differs."""
    bytes_compared: int
    """Bytes that were read, or found to lie in the same blocks on the disk. Not counted: zeros that both maps know."""
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AllocateResult:
    path: str
    before: str
    allocation: str
    allocated_size_before: int
    allocated_size: int
    seconds: float
    warnings: tuple[str, ...] = ()
