"""Who a worker is. An identity belongs to one process at a time: a lock of this host, and one in PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from imgtool import files, journal
from imgtool.errors import RefusedError, StoppedError, UnreachableError
from imgtool.progress import Stop
from imgtool.runs.engine.store import Database, lock_of, reached

KEEP_SECONDS = 5.0
"""Between two looks whether the database still has the lock."""


def identity_here() -> str:
    """Stable over restarts, and another on each host."""
    said = hashlib.blake2b(files.host_id().encode(), digest_size=4).hexdigest()
    return f"{platform.node()}-{said}"


@contextmanager
def held(database: Database, identity: str, stop: Stop) -> Iterator[None]:
    """The lock of an identity; of an SQLite database, which bears one worker only, the lock of that. Raises RefusedError.

    ``stop`` is set if another has it after an outage of the database.
    """
    folder = journal.state_folder() / "workers"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = f"{database.path}.lock" if database.path else str(folder / f"{identity}.lock")
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as lock:
        try:
            journal.hold(lock, path)
        except RefusedError:
            pid = lock.read(20).decode(errors="replace").strip()
            what = f"the database {database.path}" if database.path else f"the worker {identity}"
            raise RefusedError(f"{what} is in use by another process ({pid})",
                               "imgtool jobs shows what it does; several workers need --database postgresql://…" if database.path
                               else "end it, or give this one another name with --identity") from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        with nullcontext() if database.path else _held_everywhere(database, identity, stop):
            yield


@contextmanager
def _held_everywhere(database: Database, identity: str, stop: Stop) -> Iterator[None]:
    """Two hosts may be copies of each other: the database knows of both. Raises RefusedError."""
    first, over, taken = _locked(database, identity), threading.Event(), list[RefusedError]()
    keeper = threading.Thread(target=_keep, args=(database, identity, first, stop, over, taken), name="identity", daemon=True)
    keeper.start()
    try:
        yield
    except StoppedError:
        if taken:
            raise taken[0] from None
        raise
    finally:
        over.set()
        keeper.join()


def _keep(database: Database, identity: str, connection: Any, stop: Stop, over: threading.Event,
          taken: list[RefusedError]) -> None:
    """PostgreSQL forgets the lock with the connection: after an outage it is taken again, and who finds it taken ends.

    ``taken`` gets why.
    """
    from psycopg import Error

    while not over.wait(KEEP_SECONDS):
        try:
            connection.execute("SELECT 1")
        except Error:
            with suppress(UnreachableError):
                try:
                    connection = _locked(database, identity)
                except RefusedError as refused:
                    taken.append(refused)
                    stop.set()
                    return
    connection.close()


def _locked(database: Database, identity: str) -> Any:
    """A connection that has the lock. Raises RefusedError, UnreachableError."""
    import psycopg

    connection = reached(database, lambda: psycopg.connect(database.url, autocommit=True))
    (free,) = reached(database, lambda: connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))",
                                                           [lock_of(identity)]).fetchone())
    if not free:
        connection.close()
        raise RefusedError(f"the worker {identity} already runs on another host",
                           "end it, or give this one another name with --identity")
    return connection
