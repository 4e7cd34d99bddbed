"""What a file's name says: a machine or a disk."""

from __future__ import annotations

import os

DESCRIPTIONS = (".vmx", ".xml", ".ovf")
"""Files that describe one machine."""
TEMPLATE = ".vmtx"
"""A ``.vmx`` that vCenter does not start, but copies."""
ARCHIVE = ".ova"
BUNDLE = ".vmwarevm"
"""Fusion's folder for a machine, which looks like one file."""
MACHINES = (*DESCRIPTIONS, TEMPLATE, ARCHIVE, BUNDLE)


def suffix_of(path: str) -> str:
    """In small letters."""
    return os.path.splitext(path)[1].lower()


def is_machine(path: str) -> bool:
    """Whether a name is one of a machine, not of a disk. That of a folder may have a slash behind it."""
    return suffix_of(path.rstrip("/")) in MACHINES


def is_archive(path: str) -> bool:
    """Whether a name is one of an OVA."""
    return path.lower().endswith(ARCHIVE)
