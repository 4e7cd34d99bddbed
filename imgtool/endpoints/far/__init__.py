"""The other end of an ssh connection, or this machine's own devices by the same words.

``program`` runs there (Python's standard library only, sent over the connection, gone with it); ``wire`` is what both ends say to
each other, ``answers`` what is believed of it; ``file`` is a file or block device there; ``ssh`` the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from imgtool import proc
from imgtool.endpoints.far import ssh
from imgtool.endpoints.far.wire import Wire
from imgtool.errors import UnreachableError
from imgtool.model.endpoint import Uri
from imgtool.progress import Stop

LAUNCH = "import sys;exec(compile(sys.stdin.buffer.read({length}),'imgtool','exec'))"
NO_PYTHON = "there is no python3"
FIND = ("for p in python3 /usr/libexec/platform-python python3.6; do "
        'command -v "$p" >/dev/null 2>&1 && exec "$p" -c "$0"; done; echo "' + NO_PYTHON + '" >&2; exit 127')
"""Shell: the first Python that is there. RHEL 8 has one that is in no PATH."""


@contextmanager
def connected(uri: Uri, stop: Stop) -> Iterator[Wire]:
    """A conversation with the host of ``uri``; without a host with a process of this machine.

    Raises UnreachableError, StoppedError; so does who waits for an answer.
    """
    text = files("imgtool.endpoints.far").joinpath("program.py").read_bytes()
    launch = LAUNCH.format(length=len(text))
    name = uri.host or "this machine"
    command = ssh.argv(uri, ["sh", "-c", FIND, launch]) if uri.host else ["python3", "-c", launch]
    with proc.pipes(command, keep=ssh.KEEP if uri.host else ()) as pipes:
        try:
            pipes.to.write(text)
            pipes.to.flush()
            wire = Wire(pipes.to, pipes.back, name, why=pipes.last_words, stop=stop, cut=pipes.cut)
            wire.call("hello")
        except OSError:
            raise UnreachableError(f"{name}: {pipes.last_words()}", _hint(uri)) from None
        except UnreachableError as error:
            raise UnreachableError(error.message, None if NO_PYTHON in error.message else _hint(uri)) from None
        yield wire


def _hint(uri: Uri) -> str | None:
    return ssh.HINT if uri.host else None
