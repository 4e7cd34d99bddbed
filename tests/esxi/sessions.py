"""Sessions with the simulated server, and sinks for what they read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from fixtures.esxi import Simulator
from imgtool.endpoints import uri
from imgtool.endpoints.vsphere import VSphereSource, tls
from imgtool.endpoints.vsphere.folder import Folder
from imgtool.endpoints.vsphere.inventory import datacenter, find
from imgtool.endpoints.vsphere.login import STREAMS, Account, Session


def account(simulator: Simulator, *, trust: tls.Trust | None = None, password: str | None = None) -> Account:
    return Account(host=simulator.host, port=simulator.port, user=simulator.user, password=password or simulator.password,
                   trust=trust or tls.Trust(cacert=str(simulator.ca_file)))


@contextmanager
def session(simulator: Simulator, *, streams: int = STREAMS) -> Iterator[Session]:
    """Logged in; logged out at the end."""
    made = Session(account(simulator), streams=streams)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def vsphere(simulator: Simulator, **query: object) -> Iterator[VSphereSource]:
    """``query``: of the URI."""
    with session(simulator) as made:
        yield VSphereSource(made, uri.parse(simulator.uri(**query)))


def files(made: Session, name: str) -> Folder:
    return Folder(made, datacenter(made, find(made, name)))


class FileSink:
    """Writes into a sparse file, and remembers which bytes it was given."""

    def __init__(self, path: Path, size: int) -> None:
        self.given: list[tuple[int, int]] = []
        self.zeros = 0
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._fd, size)

    def write(self, offset: int, data: memoryview) -> None:
        assert os.pwrite(self._fd, data, offset) == len(data)
        with self._lock:
            self.given.append((offset, offset + len(data)))

    def zero(self, offset: int, length: int) -> None:
        with self._lock:
            self.given.append((offset, offset + length))
            self.zeros += length

    def whole(self, start: int, end: int) -> bool:
        """Whether each byte of a range was given, and none twice."""
        position = start
        for begin, stop in sorted(self.given):
            if begin != position:
                return False
            position = stop
        return position == end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)
