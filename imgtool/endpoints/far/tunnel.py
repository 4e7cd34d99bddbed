"""Sockets of the far end, forwarded by ssh to a folder of this machine that only we can enter; what of tools is there."""

from __future__ import annotations

import os
import socket as socketlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from imgtool import files, proc
from imgtool.endpoints.far import ssh
from imgtool.errors import ImgtoolError, UnreachableError, UsageError
from imgtool.model.endpoint import Uri
from imgtool.progress import Stop

TOOLS = ("qemu-nbd", "qemu-img", "python3")
SSH_FAILED = 255
LOOK_SECONDS = 60
LOOK = """PATH=$PATH:/usr/sbin:/sbin
if [ "$1" = session ]; then base=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}; else base=/run; fi
shift
for one in "$@"; do
  case $one in /*) ;; *) one=$base/$one ;; esac
  [ -S "$one" ] && { printf 'socket %s\\n' "$one"; break; }
done
for one in qemu-nbd qemu-img python3; do command -v "$one" >/dev/null 2>&1 && echo "tool $one"; done
[ -x /usr/libexec/platform-python ] && echo "tool python3"
exit 0"""
"""Shell: the first socket that is there, and the tools."""


@dataclass(frozen=True, kw_only=True)
class There:
    """What a far host has."""

    socket: str | None
    tools: frozenset[str]


def look(uri: Uri, sockets: Sequence[str], *, session: bool = False, stop: Stop | None = None) -> There:
    """The first of ``sockets`` that is there (relative ones below /run, or the user's own run folder), and ``TOOLS``."""
    said = run(uri, ["sh", "-c", LOOK, "sh", "session" if session else "system", *sockets], stop=stop or Stop())
    lines = [line.partition(" ") for line in said.splitlines()]
    found = [value for key, _, value in lines if key == "socket"]
    return There(socket=found[0] if found else None, tools=frozenset(value for key, _, value in lines if key == "tool"))


def run(uri: Uri, command: Sequence[str], *, stop: Stop, seconds: float = LOOK_SECONDS) -> str:
    """What a program there prints. Raises UnreachableError where ssh fails or lasts too long, ImgtoolError where the program
    fails."""
    try:
        done = proc.run(ssh.argv(uri, command), stop=stop, limits=proc.Limits(seconds=seconds, memory=2 << 30), keep=ssh.KEEP)
    except proc.TooLongError as error:
        raise UnreachableError(f"{uri.host}: {command[0]} did not end within {seconds:.0f} s",
                               "look whether that machine, or its storage, hangs") from error
    if done.returncode == SSH_FAILED:
        raise refused(uri, done.stderr)
    if done.returncode:
        raise ImgtoolError(f"{uri.host}: {_last(done.stderr)}")
    return done.stdout


def refused(uri: Uri, stderr: str) -> UnreachableError:
    """ssh's last words."""
    return UnreachableError(f"{uri.host}: {_last(stderr)}", ssh.HINT)


def _last(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"


def options(near: str, there: str) -> list[str]:
    """Of ssh: a socket here that leads to one there. Raises UsageError."""
    if ":" in there or not there.startswith("/"):
        raise UsageError(f"the socket {there!r} cannot be forwarded", "an absolute path without a colon")
    return ["-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177", "-L", f"{near}:{there}"]


@contextmanager
def forwarded(uri: Uri, there: str, *, stop: Stop) -> Iterator[str]:
    """The path of a socket here which leads to ``there``, for as long as the block lasts."""
    with files.scratch("ssh") as folder:
        near = os.path.join(folder, "s")
        argv = ssh.argv(uri, options=["-N", *options(near, there)])
        with proc.serve(argv, lambda: listens(near), stop=stop, keep=ssh.KEEP, failed=lambda words: refused(uri, words),
                        seconds=ssh.CONNECT_SECONDS * 2):
            yield near


def listens(path: str) -> bool:
    if not os.path.exists(path):
        return False
    with socketlib.socket(socketlib.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
