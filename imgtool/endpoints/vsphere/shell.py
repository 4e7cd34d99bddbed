"""Disks read over ssh, for hosts that do not give them out over HTTPS: ``dd`` in ranges, which busybox has, nothing else.

ssh must be on at the host, and let us in by a key (``?keyfile=FILE``, or as the user's ssh is set up): nothing asks for a
password.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imgtool import proc
from imgtool.copying.zeros import all_zero
from imgtool.endpoints.far import ssh
from imgtool.endpoints.vsphere.folder import MAX_SMALL, StorePath, flat_parts
from imgtool.endpoints.vsphere.ranges import LOOK, PIECE, Range, cut
from imgtool.errors import DamagedError, UnreachableError, UsageError
from imgtool.formats.vmdk import descriptor as vmdk
from imgtool.model.endpoint import Extent, RemoteDisk, Uri
from imgtool.progress import Control, Stop

if TYPE_CHECKING:
    from imgtool.endpoints import Sink

log = logging.getLogger(__name__)

ROOT = "/vmfs/volumes"
REQUEST = 128 << 20
"""A login each."""
STREAMS = 4
"""sshd refuses more than ten logins at once."""
ATTEMPTS = 5
"""In a row without a byte."""
PAUSE = 1.0
SILENT_SECONDS = 120.0
HINT = "turn ssh on at the host and put a key there; ?keyfile=FILE names another one"


def uri_of(uri: Uri) -> Uri:
    """The same host, for ssh: ``?sshport=``."""
    said = dict(uri.query).get("sshport", "")
    if said and not said.isdecimal():
        raise UsageError("sshport is a number")
    return replace(uri, port=int(said) if said else None, user=uri.user or "root")


@dataclass(frozen=True)
class Shell:
    """A host that lets us in by ssh."""

    uri: Uri

    def run(self, words: Sequence[str], stop: Stop) -> bytes:
        """What a small command says. Raises UnreachableError with its last words."""
        found = bytearray()
        with proc.pipes(ssh.argv(self.uri, words), keep=ssh.KEEP) as pipes:
            for piece in _pieces(pipes, stop):
                found += piece
                if len(found) > MAX_SMALL:
                    raise DamagedError(f"{self.uri.host}: {words[0]} says more than it may")
            if not found:
                raise UnreachableError(f"{self.uri.host}: {pipes.last_words()}", HINT)
        return bytes(found)

    def extents(self, disk: str, stop: Stop) -> tuple[Extent, ...]:
        return tuple(flat_parts(self.run(["cat", place(disk)], stop), disk))

    def state(self, disk: RemoteDisk, parts: Iterable[Extent], stop: Stop) -> dict[str, object]:
        """As ``folder.state``."""
        cid = vmdk.parse(self.run(["cat", place(disk.path)], stop), disk.path).cid
        files = [[one.path, self.run(["stat", "-c", "%s %Y", place(one.path)], stop).decode("utf-8", "replace").strip()]
                 for one in parts]
        return {"path": disk.path, "capacity": disk.capacity, "cid": f"{cid:08x}", "files": files, "change_id": disk.change_id}

    def read(self, extents: tuple[Extent, ...], wanted: Iterable[tuple[int, int]], sink: Sink, control: Control,
             slots: threading.BoundedSemaphore) -> None:
        """As ``ranges.read``."""
        own = replace(control, stop=Stop(control.stop))
        lock, ranges = threading.Lock(), cut(extents, wanted, sink, REQUEST)

        def work() -> None:
            while True:
                with lock:
                    one = next(ranges, None)
                if one is None:
                    return
                with slots:
                    _Worker(self, one, sink, own).run()

        with ThreadPoolExecutor(STREAMS, thread_name_prefix="ssh") as pool:
            futures = [pool.submit(work) for _ in range(STREAMS)]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((error for each in done if (error := each.exception())), None)
            if failed is not None:
                own.stop.set()
                raise failed


def place(path: str) -> str:
    """``[ds] web01/web01.vmdk`` as the host's own shell names it."""
    there = StorePath.parse(path)
    if "/" in there.store or there.store in (".", "..") or ".." in there.path.split("/"):
        raise DamagedError(f"{path!r} is no path on a datastore")
    return f"{ROOT}/{there.store}/{there.path}"


def _pieces(pipes: proc.Pipes, stop: Stop) -> Iterator[bytes]:
    """What comes, until the end. Raises UnreachableError where nothing does for long."""
    fd = pipes.back.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    until = time.monotonic() + SILENT_SECONDS
    while True:
        stop.check()
        if poll.poll(LOOK * 1000):
            piece = os.read(fd, PIECE)
            if not piece:
                return
            yield piece
            until = time.monotonic() + SILENT_SECONDS
        elif time.monotonic() > until:
            raise UnreachableError(f"ssh has been silent for {SILENT_SECONDS:.0f} s", "run the same command again")


class _Worker:
    """One range, to its end, in as many logins as it takes."""

    def __init__(self, shell: Shell, wanted: Range, sink: Sink, control: Control) -> None:
        self._shell, self._wanted, self._sink, self._control = shell, wanted, sink, control
        self._position = wanted.start

    def run(self) -> None:
        failed = 0
        while self._position < self._wanted.end:
            before = self._position
            why = self._attempt()
            failed = 1 if self._position > before else failed + 1
            if self._position == self._wanted.end:
                return
            if failed >= ATTEMPTS:
                raise UnreachableError(f"{self._shell.uri.host}: reading {self._wanted.extent.path} broke off: {why}", HINT)
            log.debug("%s: %s, once more", self._wanted.extent.path, why)
            self._pause(PAUSE * failed)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._control.stop.check()
            time.sleep(LOOK)

    def _attempt(self) -> str:
        """Goes on from where it is; why it ended."""
        begin, head = divmod(self._position, PIECE)
        count = -(-(self._wanted.end - begin * PIECE) // PIECE)
        words = ["dd", f"if={place(self._wanted.extent.path)}", f"bs={PIECE}", f"skip={begin}", f"count={count}"]
        have = bytearray()
        with proc.pipes(ssh.argv(self._shell.uri, words), keep=ssh.KEEP) as pipes:
            for piece in _pieces(pipes, self._control.stop):
                have += piece[head:]
                head = max(0, head - len(piece))
                self._control.rate.take(len(piece), self._control.stop)
                self._hand_on(have)
                if self._position >= self._wanted.end:
                    return ""
            return pipes.last_words()

    def _hand_on(self, have: bytearray) -> None:
        """What is whole of the disk's pieces; the rest stays."""
        shift = self._wanted.shift
        while have and self._position < self._wanted.end:
            length = min(PIECE - (self._position + shift) % PIECE, self._wanted.end - self._position)
            if len(have) < length:
                return
            data = memoryview(bytes(have[:length]))
            if all_zero(data):
                self._sink.zero(self._position + shift, length)
            else:
                self._sink.write(self._position + shift, data)
            self._position += length
            del have[:length]
