"""A process that has the program's modules already, and becomes the program once for each command: 0.25 s are paid once.

::

    tests/program.py ──socket: a request and its streams──▶ serve ──fork──▶ keeper ──fork──▶ python -m imgtool ARGS
                     ◀──pipe: process id, exit status──────────────────────────┘

What comes out of :func:`serve` is a child with arguments, directory, environment and streams of its own. It then goes the
interpreter's own way, ``python -m imgtool`` to the end of the interpreter.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import socket
import sys
from contextlib import suppress

import imgtool.cli.app  # noqa: F401 (what each start of the program imports)


def serve(requests: socket.socket) -> None:
    """Returns in children only, each for one request; ends when nobody is there to ask."""
    gc.freeze()
    while True:
        word, fds, _, _ = socket.recv_fds(requests, 1, 5)
        if not word:
            sys.exit()
        if not os.fork():
            return _keep(requests, *fds)
        for fd in fds:
            os.close(fd)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _keep(requests: socket.socket, reply: int, request: int, *streams: int) -> None:
    """Tells the child's number, and later what became of it; returns in that child."""
    requests.close()
    if pid := os.fork():
        os.write(reply, b"%d " % pid)
        for fd in (request, *streams):
            os.close(fd)
        os.write(reply, b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    os.close(reply)
    with open(request, "rb") as file:
        wanted = json.load(file)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.path[0] = wanted["cwd"]
    sys.argv[1:] = wanted["argv"]


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("imgtool", run_name="__main__", alter_sys=True)
