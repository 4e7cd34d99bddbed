"""Runs the program under test as a user would: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def imgtool(*args: object, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """stdout, stderr and exit code of `imgtool ARGS`."""
    return subprocess.run([sys.executable, "-m", "imgtool", *map(str, args)], cwd=cwd, env=ENVIRONMENT, text=True,
                          capture_output=True, timeout=timeout, check=False)


def result(*args: object, cwd: Path | None = None) -> Any:
    """The JSON document of `imgtool ARGS --json`; fails if the command does."""
    done = imgtool(*args, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
