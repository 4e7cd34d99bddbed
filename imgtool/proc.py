"""The only place that starts a process.

argv lists, never a shell; a clean environment; an own process group that dies with imgtool (``_mortal``: no Python
runs between fork and exec); limits (``prlimit``) for tools that parse foreign images.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING

from imgtool.errors import ImgtoolError, MissingToolError
from imgtool.progress import Stop

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
POLL = 0.2
"""Seconds between two looks at ``stop``."""
KEPT_OUTPUT = 16 << 20
"""Bytes of output that are kept; a tool that says more is cut off."""

KEPT_WORDS = 1 << 16
"""Bytes of a partner's stderr that are kept."""
PROCESSES = "/proc"
LAST_WORDS = 1.0
"""Seconds that a partner has for them."""
LENGTH = 8
"""Bytes of the length before a question or an answer."""

PACKAGES = {"qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "prlimit": "util-linux", "setpriv": "util-linux",
            "ssh": "openssh-client", "env": "coreutils"}


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
        limits: Limits | None = None, keep: Sequence[str] = (), given: bytes | None = None) -> Finished:
    """Runs a program to its end; its exit code is the caller's to judge.

    ``on_line`` gets each line of stdout, also those ended by a carriage return (qemu-img's ``-p``).
    ``keep``: variables of the environment that it needs (``SSH_AUTH_SOCK``). ``given``: what stands on its standard input.
    Raises MissingToolError, StoppedError, TooLongError.
    """
    seconds = limits.seconds if limits else None
    deadline = time.monotonic() + seconds if seconds else None
    with _holding(given) as stdin, _started(argv, limits, keep=keep, stdin=stdin) as process:
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
def serve(argv: Sequence[str], ready: Callable[[], bool], *, stop: Stop, limits: Limits | None = None, seconds: float = 30,
          keep: Sequence[str] = (), failed: Callable[[str], ImgtoolError] | None = None) -> Iterator[None]:
    """A server, for as long as the block lasts. ``ready`` tells when it can be used.

    ``failed`` makes an error of the last words of one that ended too early.
    """
    with _started(argv, limits, keep=keep) as process:
        deadline = time.monotonic() + seconds
        while not ready():
            stop.check()
            if process.poll() is not None:
                words = process.communicate()[1].decode(errors="replace").strip()
                raise failed(words) if failed else ImgtoolError(f"{argv[0]} ended: {words}")
            if time.monotonic() > deadline:
                raise TooLongError(f"{argv[0]} was not ready within {seconds:.0f} s")
            time.sleep(0.01)
        yield


@contextmanager
def converse(argv: Sequence[str], name: str, *, stop: Stop,
             limits: Limits | None = None) -> Iterator[Callable[[bytes, float], bytes]]:
    """A program that answers on stdout what is asked on stdin, for as long as the block lasts. ``name``: in errors.

    Both sides send a length (8 bytes, most significant first) and so many bytes. Yields ``ask(question, seconds)``, which
    gives the answer; it raises StoppedError, TooLongError, and ImgtoolError with the program's last words when it has ended.
    """
    with _started(argv, limits, stdin=subprocess.PIPE) as process:
        try:
            yield _Talk(process, name, stop).ask
        finally:  # before it is told to end: who cleans up when nobody asks any more can do so
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None  # noqa: S101 - both are PIPE
                pipe.close()


@contextmanager
def pipes(argv: Sequence[str], *, keep: Sequence[str] = ()) -> Iterator[Pipes]:
    """A program that is talked to over its standard input and output, for as long as the block lasts.

    ``keep``: variables of the environment that it needs (``SSH_AUTH_SOCK``). Raises MissingToolError.
    """
    with _started(argv, None, stdin=subprocess.PIPE, keep=keep) as process:
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - all are PIPE
        both = Pipes(process.stdin, process.stdout, process.stderr, process.kill)
        threading.Thread(target=both.listen, daemon=True, name=f"{argv[0]} stderr").start()
        yield both


class Pipes:
    """Both pipes of a running program, and what it said last on its standard error."""

    def __init__(self, to: IO[bytes], back: IO[bytes], words: IO[bytes], cut: Callable[[], None]) -> None:
        self.to, self.back, self.cut = to, back, cut
        self._words, self._said = words, b""
        self._ended = threading.Event()

    def listen(self) -> None:
        with suppress(OSError, ValueError):  # closed
            while piece := os.read(self._words.fileno(), 1 << 16):
                self._said = (self._said + piece)[-KEPT_WORDS:]
        self._ended.set()

    def last_words(self) -> str:
        """The last line, once the program has closed its standard error (or a moment has passed)."""
        self._ended.wait(GRACE)
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it ended without a word"


@contextmanager
def _started(argv: Sequence[str], limits: Limits | None, *, stdin: int = subprocess.DEVNULL,
             keep: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    log.debug("run: %s", "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shlex.join(argv)))
    full = [*_mortal(), *(_limited(limits) if limits else ()), require(argv[0]), *argv[1:]]
    process = _lasting(lambda: subprocess.Popen(full, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                                env=_environment(keep), start_new_session=True))
    try:
        yield process
    finally:
        _end(process)


def _mortal() -> list[str]:
    """Put before a command: it dies with us, also if we are killed before it has asked for that.

    ``setpriv`` asks the kernel (PR_SET_PDEATHSIG). Who asks too late hears nothing more: so ``env`` then changes to where we
    are, and there is no such place once we are dying (the kernel gives up a process' folders before it signals its children).
    Of a folder that we may not enter ourselves ``root`` stands for it: no relative path leads anywhere from there.
    In a chroot without ``/proc`` nobody can look.
    """
    asked = [require("setpriv"), "--pdeathsig", "KILL"]
    if not os.path.exists(f"{PROCESSES}/self"):
        return asked
    place = "cwd" if os.access(".", os.X_OK) else "root"
    return [*asked, require("env"), f"--chdir={PROCESSES}/{os.getpid()}/{place}"]


def _limited(limits: Limits) -> list[str]:
    cpu = [f"--cpu={int(limits.seconds) + 1}"] if limits.seconds else []
    return [require("prlimit"), f"--as={limits.memory}", "--core=0", *cpu]


def _lasting(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The kernel sends the signal of PR_SET_PDEATHSIG when the *thread* ends that started the process: prctl(2).

    Workers come and go; what one of them starts for others is started by a thread that stays.
    """
    if threading.current_thread() is threading.main_thread():
        return start()
    return _starter().submit(start).result()


@cache
def _starter() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, thread_name_prefix="starter")


@contextmanager
def _holding(given: bytes | None) -> Iterator[int]:
    """For Popen: a file in memory, not a pipe; who reads nothing of it does not hold us up."""
    if given is None:
        yield subprocess.DEVNULL
        return
    with open(os.memfd_create("given"), "wb") as file:
        file.write(given)
        file.seek(0)
        yield file.fileno()


def _environment(keep: Sequence[str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "PATH", *keep) if name in os.environ}
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
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
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


class _Talk:
    """One question, one answer. A partner that hangs, dies or says too much does not hold us up."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, stop: Stop) -> None:
        self._process, self._name, self._stop = process, name, stop
        self._words = b""
        self._answer = bytearray()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None  # noqa: S101 - all are PIPE
            os.set_blocking(pipe.fileno(), False)
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018
        self._in, self._out, self._err = process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()
        self._talking: tuple[int, ...] = (self._err,)
        """Its standard error, until it closes that."""

    def ask(self, question: bytes, seconds: float) -> bytes:
        waiting = memoryview(len(question).to_bytes(LENGTH) + question)
        self._answer.clear()
        deadline = time.monotonic() + seconds
        while waiting or not self._complete():
            self._stop.check()
            if time.monotonic() > deadline:
                raise TooLongError(f"{self._name} did not answer within {seconds:.0f} s")
            waiting = self._exchange(waiting)
        return bytes(self._answer[LENGTH:])

    def _complete(self) -> bool:
        wanted = LENGTH + int.from_bytes(self._answer[:LENGTH])
        if len(self._answer) >= LENGTH and wanted > KEPT_OUTPUT:
            raise ImgtoolError(f"{self._name} gave an answer of {wanted} bytes")
        return len(self._answer) >= LENGTH and len(self._answer) >= wanted

    def _exchange(self, waiting: memoryview) -> memoryview:
        """Sends what can be sent, takes what has come; returns what is still to be sent."""
        poll = select.poll()  # not select: a disk may have more than 1024 files
        for fd in (self._out, *self._talking):
            poll.register(fd, select.POLLIN)
        if waiting:
            poll.register(self._in, select.POLLOUT)
        ready = {fd for fd, _ in poll.poll(POLL * 1000)}
        if self._err in ready:
            self._hear()
        if self._out in ready:
            piece = os.read(self._out, 1 << 16)
            if not piece:
                raise self._ended()
            self._answer += piece
        if self._in in ready:
            try:
                return waiting[os.write(self._in, waiting):]
            except BrokenPipeError:
                raise self._ended() from None
        return waiting

    def _hear(self) -> None:
        said = os.read(self._err, 1 << 16)
        self._words = (self._words + said)[-KEPT_WORDS:]
        self._talking = (self._err,) if said else ()

    def _ended(self) -> ImgtoolError:
        """With its last words, which may come a moment after it has closed the other pipes."""
        poll, end = select.poll(), time.monotonic() + LAST_WORDS
        poll.register(self._err, select.POLLIN)
        while self._talking and (left := end - time.monotonic()) > 0 and poll.poll(left * 1000):
            self._hear()
        last = self._words.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        return ImgtoolError(f"{self._name} ended: {last[-1]}")
