"""The only place that starts a process.

argv lists, never a shell; a clean environment; an own process group that dies with imgtool (``PR_SET_PDEATHSIG``
through util-linux' ``setpriv``, so that no Python runs between fork and exec); limits (``prlimit``) for tools that
parse foreign images.
"""

from __future__ import annotations

import logging
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from imgtool.errors import ImgtoolError, MissingToolError
from imgtool.progress import Stop

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
POLL = 0.2
"""Seconds between two looks at ``stop``."""
KEPT_OUTPUT = 16 << 20
"""Bytes of output that are kept; a tool that says more is cut off."""

PACKAGES = {"qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "prlimit": "util-linux", "setpriv": "util-linux"}


@dataclass(frozen=True)
class Limits:
    """What a tool that parses foreign bytes may use."""

    seconds: float | None
    """None: a copy takes as long as it takes."""
    memory: int
    """Bytes of address space."""


@dataclass(frozen=True)
class Finished:
    returncode: int
    stdout: str
    stderr: str


class TooLongError(ImgtoolError):
    """A tool was given a time and did not finish within it."""


def require(tool: str) -> str:
    """The path of ``tool``; MissingToolError with the command that installs it."""
    path = shutil.which(tool)
    if path is None:
        package = PACKAGES.get(tool, tool)
        raise MissingToolError(f"{tool} is not installed", f"apt-get install {package}")
    return path


def run(argv: Sequence[str], *, stop: Stop, on_line: Callable[[str], None] | None = None,
        limits: Limits | None = None) -> Finished:
    """Runs a program to its end; its exit code is the caller's to judge.

    ``on_line`` gets each line of stdout, also those ended by a carriage return (qemu-img's ``-p``).
    Raises MissingToolError, StoppedError, TooLongError.
    """
    seconds = limits.seconds if limits else None
    deadline = time.monotonic() + seconds if seconds else None
    with _started(argv, limits) as process:
        reader = _Reader(process, on_line)
        while not reader.done():
            reader.read(POLL)
            stop.check()
            if deadline and time.monotonic() > deadline:
                raise TooLongError(f"{argv[0]} did not finish within {seconds:.0f} s on {argv[-1]}",
                                   "the image may be damaged or hostile")
        process.wait()
    return Finished(process.returncode, reader.text(process.stdout), reader.text(process.stderr))


@contextmanager
def serve(argv: Sequence[str], ready: Callable[[], bool], *, stop: Stop, limits: Limits | None = None,
          seconds: float = 30) -> Iterator[None]:
    """A server, for as long as the block lasts. ``ready`` tells when it can be used."""
    with _started(argv, limits) as process:
        deadline = time.monotonic() + seconds
        while not ready():
            stop.check()
            if process.poll() is not None:
                _, stderr = process.communicate()
                raise ImgtoolError(f"{argv[0]} ended: {stderr.decode(errors='replace').strip()}")
            if time.monotonic() > deadline:
                raise TooLongError(f"{argv[0]} was not ready within {seconds:.0f} s")
            time.sleep(0.01)
        yield


@contextmanager
def _started(argv: Sequence[str], limits: Limits | None) -> Iterator[subprocess.Popen[bytes]]:
    log.debug("run: %s", "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shlex.join(argv)))
    full = [require("setpriv"), "--pdeathsig", "KILL", require(argv[0]), *argv[1:]]
    if limits:
        cpu = [f"--cpu={int(limits.seconds) + 1}"] if limits.seconds else []
        full = [require("prlimit"), f"--as={limits.memory}", "--core=0", *cpu, *full]
    process = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=_environment(), start_new_session=True)
    try:
        yield process
    finally:
        _end(process)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "PATH") if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept, "LC_ALL": "C.UTF-8"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """No process of the group outlives this."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with suppress(ProcessLookupError):  # what the program started and left behind
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class _Reader:
    """Reads both pipes as bytes come, cuts stdout into lines."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], None] | None) -> None:
        self._selector = selectors.DefaultSelector()
        self._stdout = process.stdout
        self._on_line = on_line
        self._line = b""
        self._kept: dict[object, bytearray] = {}
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None  # noqa: S101 - both are PIPE
            self._selector.register(pipe, selectors.EVENT_READ)
            self._kept[pipe] = bytearray()

    def done(self) -> bool:
        return not self._selector.get_map()

    def read(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            chunk = os.read(key.fd, 1 << 16)
            if not chunk:
                self._selector.unregister(key.fileobj)
                continue
            kept = self._kept[key.fileobj]
            kept += chunk[: max(0, KEPT_OUTPUT - len(kept))]
            if self._on_line and key.fileobj is self._stdout:
                self._lines(chunk, self._on_line)

    def _lines(self, chunk: bytes, on_line: Callable[[str], None]) -> None:
        *lines, self._line = (self._line + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line.strip():
                on_line(line.decode(errors="replace"))

    def text(self, pipe: object) -> str:
        return self._kept[pipe].decode(errors="replace")
