"""Runs a program and measures it: wall time, and the peak memory of its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
"""Of what is measured. imgtool is compiled once, as where it is installed, and not at each start."""
GIB, MIB = 1 << 30, 1 << 20
IMGTOOL = [sys.executable, "-m", "imgtool"]


class Run(NamedTuple):
    seconds: float
    memory: int
    """Bytes: the largest resident set of one process, the program itself or one that it started (wait4(2)). Not below some
    17 MiB: what this process has counts for those that it starts."""
    size: int = 0
    """Bytes of the files that it made."""


class Load(NamedTuple):
    """Seconds since the machine was started, times its processors; and what of them programs used, all and this one's own."""

    available: float
    used: float
    own: float


def load() -> Load:
    """The kernel's own threads do not count: they work for whoever writes. proc_stat(5)."""
    user, nice = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=3)[1:3]
    own = os.times()
    return Load(time.monotonic() * (os.cpu_count() or 1), (int(user) + int(nice)) / os.sysconf("SC_CLK_TCK"),
                own.user + own.children_user)


def others(before: Load, after: Load) -> float:
    """The part of the machine's processors that programs of others used between two moments, 0 to 1."""
    used, own = after.used - before.used, after.own - before.own
    return max(0.0, used - own) / max(after.available - before.available, 1e-6)


def measured(argv: Sequence[object], limit: float | None = None) -> Run:
    """Fails if the program does. After ``limit`` seconds it is stopped: it takes more than that, no more is known."""
    return finished(started(argv), limit)


def started(argv: Sequence[object]) -> tuple[float, subprocess.Popen[bytes]]:
    """When it began, and what."""
    return time.perf_counter(), subprocess.Popen(list(map(str, argv)), env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                                 stderr=subprocess.PIPE)


def finished(running: tuple[float, subprocess.Popen[bytes]], limit: float | None = None) -> Run:
    """Waits for it; fails if it did."""
    began, process = running
    assert process.stderr is not None
    stopping = threading.Timer(limit or 0, process.kill)
    if limit is not None:
        stopping.start()
    try:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # Ctrl-C: what still writes into a file system would keep it mounted
        process.terminate()
        process.wait()
        raise
    finally:
        stopping.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    stopped = limit is not None and stopping.finished.is_set() and process.returncode == -signal.SIGKILL
    if process.returncode and not stopped:
        raise RuntimeError(f"{process.args!r}: {said.decode(errors='replace')}")
    return Run(time.perf_counter() - began, usage.ru_maxrss * 1024)


def build(kind: str, path: Path, size: int, data: int) -> Path:
    """One of the disks of bench.disks."""
    subprocess.run([sys.executable, "-m", "bench.disks", kind, path, str(size), str(data)], env=ENVIRONMENT, check=True)
    return path
