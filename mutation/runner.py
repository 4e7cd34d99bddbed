"""Runs tests in a process that is forked from this one, in a copy of the tree."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import lxml.etree
import numpy as np
import pytest
import yaml

LOADED = (hypothesis, lxml.etree, np, pytest, yaml)
"""Here once, instead of anew for each change."""
COPIED = ("imgtool", "tests", "fixtures", "bench", "pyproject.toml", "docs")
SECONDS = 300
"""Of processor time: who takes longer hangs, which is noticed, too."""


def copied(root: Path, folder: Path) -> Path:
    """A tree that may be changed."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def passes(tree: Path, tests: Sequence[str]) -> bool:
    """Whether all of them pass in ``tree``; the first that fails ends it."""
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="imgtool-mutation-", dir="/var/tmp") as scratch:
        child = os.fork()
        if child == 0:
            os._exit(_in_child(tree, tests, scratch))
        _, status = os.waitpid(child, 0)
    return status == 0


def _in_child(tree: Path, tests: Sequence[str], scratch: str) -> int:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    os.chdir(tree)
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", HYPOTHESIS_STORAGE_DIRECTORY=f"{scratch}/hypothesis")
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(tree))
    try:
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not long and not boot_matrix",
                                f"--basetemp={scratch}/tests", "--hypothesis-seed=0", *tests]))
    except BaseException:  # a changed program may do anything
        return 1
