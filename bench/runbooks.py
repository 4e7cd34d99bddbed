"""What the engine of runbooks costs: machines whose copy steps do nothing, SQLite with one worker, PostgreSQL with several.

    python -m bench.runbooks                              1,000 machines; writes bench/RUNBOOKS.md
    python -m bench.runbooks --machines 250 --out FILE
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import ENVIRONMENT, MIB, ROOT, load, others
from fixtures.postgres import postgres

HOSTS, DISKS = 10, 2
"""Source hosts, and disks of each machine."""
THREADS = 8
"""Steps at once on each worker."""
LOOK_SECONDS = 0.5
COLUMNS = ("database", "machines", "workers", "submitting", "all done", "a machine", "processor, a machine", "memory of a worker",
           "size of the database", "asking for all", "others used")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run."""

    database: str
    machines: int
    workers: int
    submitting: float
    """Seconds."""
    seconds: float
    """Until all are done."""
    processor: float
    """Seconds of all workers, without their start."""
    memory: int
    """Bytes: the largest resident set of a worker."""
    size: int
    """Of the database, bytes."""
    listing: float
    """Seconds to ask for all machines."""
    others: float
    """The part of the machine that other programs used meanwhile."""


def work(url: str, identity: str) -> None:
    """A worker whose steps do nothing but tell of two disks; until its standard input ends."""
    from imgtool.progress import Control, Stop
    from imgtool.runs.engine import worker
    from imgtool.runs.engine.store import Database

    def do(task: object, part: str, control: Control, *, since: str = "") -> dict[str, Any]:
        control.disks.there(DISKS)
        for number in range(DISKS):
            control.disks.whole(number, {"engine": "none"})
        return {}

    worker.do = do
    with worker.working(Database(url), identity=identity, sees=(), steps=THREADS, stop=Stop()):
        print(time.process_time(), flush=True)
        sys.stdin.read()
        print(time.process_time(), flush=True)


class Workers:
    """Processes, and what they used in the end."""

    def __init__(self, url: str, count: int, state: str) -> None:
        self._running = [subprocess.Popen(
            [sys.executable, "-m", "bench.runbooks", "--work", url, f"worker{number}"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**ENVIRONMENT, "IMGTOOL_STATE": f"{state}/{number}"})
            for number in range(count)]
        self._begun = [float(one.stdout.readline()) for one in self._running if one.stdout]

    def end(self) -> tuple[float, int]:
        """(seconds of processor, the largest memory)."""
        used, memory = 0.0, 0
        for one, begun in zip(self._running, self._begun, strict=True):
            said, _ = one.communicate("")
            used += float(said) - begun
        for one in self._running:
            memory = max(memory, _peak.pop(one.pid, 0))
        return used, memory

    def look(self) -> None:
        """How much memory they have had so far."""
        for one in self._running:
            text = Path(f"/proc/{one.pid}/status").read_text(encoding="ascii")
            _peak[one.pid] = int(text.partition("VmHWM:")[2].split()[0]) << 10


_peak: dict[int, int] = {}


def groups(count: int) -> list[Any]:
    from imgtool.model.runbook import Endpoint, Settings, Task
    from imgtool.runs.tasks import Group

    hosts = [f"esxi{number % HOSTS}" for number in range(count)]
    return [Group(name="all", tasks=tuple(
        Task(batch="bench", wave="all", name=f"m{number:06}", settings=Settings(), source=Endpoint(uri=f"esx://{host}/"),
             target=Endpoint(uri="qemu:///system"), source_host=host, target_host="localhost")
        for number, host in enumerate(hosts)))]


def race(url: str, machines: int, workers: int, state: str, kind: str) -> Outcome:
    from imgtool.journal import now
    from imgtool.model.runbook import Count, Limits
    from imgtool.runs.engine.store import Database, Store

    where = Database(url)
    where.create()
    store, known = Store(where), groups(machines)
    try:
        running, before = Workers(url, workers, state), load()
        begun = time.monotonic()
        store.submit("bench", known, Limits(per_source_host=Count(64), per_worker=Count(THREADS)), now())
        submitted = time.monotonic()
        while store.busy("bench"):
            running.look()
            time.sleep(LOOK_SECONDS)
        ended = time.monotonic()
        outcomes = list(store.outcomes("bench", known))
        listing = time.monotonic() - ended
        assert [one.state for one in outcomes] == ["done"] * machines
        used, memory = running.end()
    finally:
        store.close()
    return Outcome(database=kind, machines=machines, workers=workers, submitting=submitted - begun, seconds=ended - submitted,
                   processor=used, memory=memory, size=_size(where), listing=listing, others=others(before, load()))


def _size(where: Any) -> int:
    if where.path:
        return sum(path.stat().st_size for path in Path(where.path).parent.glob(f"{Path(where.path).name}*"))
    import psycopg

    with psycopg.connect(where.url) as connection:
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(found[0]) if found else 0


@contextmanager
def databases(folder: str) -> Iterator[list[tuple[str, str, int]]]:
    """(kind, address, workers)."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        yield [("SQLite", f"sqlite:///{folder}/batches.sqlite", 1), ("PostgreSQL", server.url, 4)]


def told(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "# What the engine of runbooks costs\n\n"
    yield f"`{' '.join(['python -m bench.runbooks', *sys.argv[1:]])}`, {time.strftime('%Y-%m-%d')}: {os.cpu_count()} processors, "
    yield f"Linux {platform.release()}, Python {platform.python_version()}.\n"
    yield f"Machines of {DISKS} disks, {HOSTS} source hosts, "
    yield f"{THREADS} steps at once on each worker; the steps do nothing.\nAll workers, and PostgreSQL (without fsync), are on "
    yield "this one machine; *others used* counts PostgreSQL, too.\n\n"
    yield f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}"
    for one in outcomes:
        yield (f"\n| {one.database} | {one.machines} | {one.workers} | {one.submitting:.1f} s | {one.seconds:.0f} s "
               f"| {1000 * one.seconds / one.machines:.0f} ms | {1000 * one.processor / one.machines:.0f} ms "
               f"| {one.memory / MIB:.0f} MiB | {one.size / MIB:.0f} MiB, {one.size / one.machines / 1024:.0f} KiB a machine "
               f"| {one.listing:.2f} s | {100 * one.others:.0f} % |")
    yield "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.runbooks", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--machines", type=int, action="append", help="how many; may be repeated (1000)")
    parser.add_argument("--only", choices=("SQLite", "PostgreSQL"))
    parser.add_argument("--out", type=Path, default=ROOT / "bench/RUNBOOKS.md")
    parser.add_argument("--work", nargs=2, metavar=("URL", "IDENTITY"), help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.work:
        work(*said.work)
        return
    outcomes = []
    for machines in said.machines or [1000]:
        with tempfile.TemporaryDirectory(prefix="imgtool-bench-") as folder, databases(folder) as known:
            for kind, url, workers in known:
                if said.only in (None, kind):
                    outcomes.append(race(url, machines, workers, folder, kind))
                    print(outcomes[-1], file=sys.stderr)
    said.out.write_text("".join(told(outcomes)), encoding="utf-8")


if __name__ == "__main__":
    main()
