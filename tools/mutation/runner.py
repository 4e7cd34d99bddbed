"""Runs tests in a process that is forked from this one, in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import hypothesis
import lxml.etree
import numpy as np
import pytest
import yaml

from tools.mutation.chart import Only, Recorder

LOADED = (hypothesis, lxml.etree, np, pytest, yaml)
"""Here once, instead of anew for each change."""
COPIED = ("imgtool", "tests", "fixtures", "bench", "pyproject.toml", "docs")
LONGEST = 1800
"""Seconds for tests of a program that was not changed."""


def copied(root: Path, folder: Path) -> Path:
    """A tree that may be changed."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def passes(tree: Path, tests: Sequence[str], seconds: float = LONGEST, *plugins: Only | Recorder) -> bool:
    """Whether all of them pass in ``tree`` in that time; the first that fails ends it. What they leave is ended, too."""
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="imgtool-mutation-", dir="/var/tmp") as scratch:
        child = os.fork()
        if child == 0:
            os._exit(_in_child(tree, tests, scratch, plugins))
        end, done, status = time.monotonic() + seconds, 0, 1
        while not done and time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not done:
            os.waitpid(child, 0)
        unmount(scratch)
    return bool(done) and status == 0


def unmount(folder: str) -> None:
    """What tests that were killed have left mounted there: it could not be removed."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", point], check=False)


def _in_child(tree: Path, tests: Sequence[str], scratch: str, plugins: Sequence[Only | Recorder]) -> int:
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    os.chdir(tree)
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", HYPOTHESIS_STORAGE_DIRECTORY=f"{scratch}/hypothesis")
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(tree))
    try:
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not long and not boot_matrix",
                                f"--basetemp={scratch}/tests", "--hypothesis-seed=0", *tests], plugins))
    except BaseException:  # a changed program may do anything
        return 1
