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
    """In small letters; of a folder, too, that is named with a slash behind it."""
    return os.path.splitext(path.rstrip("/"))[1].lower()


def is_machine(path: str) -> bool:
    """Whether a name is one of a machine, not of a disk."""
    return suffix_of(path) in MACHINES
