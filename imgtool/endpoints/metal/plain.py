"""A machine at the far end of ssh that has neither python3 nor qemu-nbd: a POSIX shell says what it is made of, dd gives disks.

No part of a disk can be asked for, nothing is hashed or frozen there: a copy begins anew after a stop.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from imgtool import proc
from imgtool.endpoints.far import ssh, tunnel
from imgtool.endpoints.far.file import PIECE
from imgtool.errors import UnreachableError
from imgtool.model.endpoint import Uri
from imgtool.model.metal import PhysicalDisk
from imgtool.model.problem import Problem
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

SAY = """for f in {patterns}; do
  if [ -L "$f" ]; then printf '\\n%s l %s\\n' {mark} "$f"; readlink -f "$f"
  elif [ -f "$f" ]; then printf '\\n%s f %s\\n' {mark} "$f"; head -c 65536 "$f" 2>/dev/null
  fi
done"""
"""Shell: what ``files`` of the far program gives. The mark is not to be guessed by who wrote the files."""
LOOK_SECONDS = 120
PROBLEM = Problem(what="there is neither python3 nor qemu-nbd on that machine: dd reads whole disks, a copy that was "
                       "stopped begins anew, and no disk in use can be copied",
                  hint="install one of them there, if it can be: then only used blocks are read, and a copy goes on")


def files(uri: Uri, patterns: Sequence[str], paths: Sequence[str], stop: Stop) -> dict[str, str]:
    """{path: text}, of a link its target. ``paths``: taken as they are. Raises UnreachableError, ImgtoolError."""
    mark = secrets.token_hex(16)
    script = SAY.format(patterns=" ".join([*patterns, *map(shlex.quote, paths)]), mark=mark)
    said = tunnel.run(uri, ["sh", "-c", script], stop=stop, seconds=LOOK_SECONDS)
    found: dict[str, str] = {}
    for piece in said.split(f"\n{mark} ")[1:]:
        head, _, text = piece.partition("\n")
        found[head[2:]] = text.removesuffix("\n") if head[0] == "l" else text
    return found


class PlainReader:
    """Conforms to ``endpoints.Reader``."""

    resumes = False
    disk = None

    def __init__(self, uri: Uri, disk: PhysicalDisk) -> None:
        self._uri, self._disk = uri, disk
        self.size = disk.size
        self.state: Mapping[str, object] = {"disk": disk.identity or disk.path, "size": disk.size, "stream": True}

    def holes(self) -> Iterable[tuple[int, int]]:
        return ()

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        """All of it, whatever is wanted. Raises UnreachableError."""
        command = ssh.argv(self._uri, ["dd", f"if={self._disk.path}", f"bs={PIECE}"])
        at = 0
        with proc.pipes(command, keep=ssh.KEEP) as both:
            while at < self.size:
                control.stop.check()
                want = min(PIECE, self.size - at)
                control.rate.take(want, control.stop)
                data = both.back.read(want)
                if len(data) < want:
                    raise UnreachableError(f"{self._uri.host}: {self._disk.path} came to byte {at + len(data)} of {self.size}: "
                                           f"{both.last_words()}", "the copy begins anew")
                sink.write(at, memoryview(data))
                at += want
