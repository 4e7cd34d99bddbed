"""Runs the program under test as a user would: a process of its own."""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
STARTED_WITH = ENVIRONMENT.copy()


def imgtool(*args: object, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """stdout, stderr and exit code of `imgtool ARGS`: of a fork of :mod:`tests.warm`, or of a new interpreter where its
    surroundings are others, and where coverage counts what processes run."""
    argv, folder = [*map(str, args)], Path.cwd() if cwd is None else cwd
    if _as_at_the_start(folder):
        return _forked(argv, folder, timeout)
    return subprocess.run([sys.executable, "-m", "imgtool", *argv], cwd=cwd, env=ENVIRONMENT, text=True,
                          capture_output=True, timeout=timeout, check=False)


def result(*args: object, cwd: Path | None = None) -> Any:
    """The JSON document of `imgtool ARGS --json`; fails if the command does."""
    done = imgtool(*args, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _as_at_the_start(folder: Path) -> bool:
    """Whether nothing differs that the interpreter and its libraries read once; imgtool's own variables are read when needed.
    In a folder that has an imgtool, Python takes that one."""
    changed = {name for name, _ in ENVIRONMENT.items() ^ STARTED_WITH.items() if not name.startswith("IMGTOOL_")}
    counted = any(name.startswith("COVERAGE_") for name in os.environ)
    return not changed and not counted and (folder == ROOT or not (folder / "imgtool").exists())


@cache
def _warm(_process: int) -> socket.socket:
    """Asks :mod:`tests.warm`, which ends when nobody can ask any more. A fork of this process has one of its own:
    tools/mutation changes the program in between."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen([sys.executable, "-m", "tests.warm", str(its.fileno())], cwd=ROOT, env=STARTED_WITH,
                         pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return ours


def _forked(argv: list[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile("w+") as request:
        json.dump({"argv": argv, "cwd": str(cwd), "environment": ENVIRONMENT}, request)
        request.seek(0)
        reads, writes = zip(*(os.pipe() for _ in range(3)), strict=True)
        reply, *streams = writes
        socket.send_fds(_warm(os.getpid()), [b"!"], [reply, request.fileno(), 0, *streams])
    for fd in writes:
        os.close(fd)
    said = dict.fromkeys(reads, b"")
    end = time.monotonic() + timeout
    with selectors.DefaultSelector() as open_ones:
        for fd in reads:
            open_ones.register(fd, selectors.EVENT_READ)
        while open_ones.get_map():
            for key, _ in (ready := open_ones.select(end - time.monotonic())):
                piece = os.read(key.fd, 1 << 16)
                said[key.fd] += piece
                if not piece:
                    open_ones.unregister(key.fd)
                    os.close(key.fd)
            if not ready:
                os.kill(int(said[reads[0]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(argv, timeout, *(said[fd] for fd in reads[1:]))
    status, stdout, stderr = (io.TextIOWrapper(io.BytesIO(said[fd])).read() for fd in reads)
    return subprocess.CompletedProcess(argv, int(status.split()[1]), stdout, stderr)
