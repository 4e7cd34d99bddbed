"""Several workers on one PostgreSQL: who sees what, limits over all of them, one lost for good, the database away."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.postgres import Postgres, postgres
from imgtool.errors import RefusedError, UnreachableError, UsageError
from imgtool.progress import Stop
from imgtool.runs.engine import identity
from imgtool.runs.engine.store import Database, Store, database
from tests.migrate.machines import MIB, same, vmx
from tests.program import ENVIRONMENT, imgtool
from tests.runbooks.batches import audit, count, events, started, until

BOOK = """
name: wave1
defaults:
  from: "in/{name}/{name}.vmx"
  to: "out/{name}"
  adapt: false
  clone: false
  networks: {VM Network: br0}
limits: {per-source-host: 3, per-worker: 2, bytes-per-second: 6M}
machines:
"""
OUTAGE = 20
"""Seconds."""
SAN, NFS = ["s0", "s1", "s2", "s3"], ["n0", "n1", "n2"]


@pytest.fixture
def server() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


class Hosts:
    """Workers, each with a state folder, as on a host of its own."""

    def __init__(self, stack: ExitStack, folder: Path, server: Postgres) -> None:
        self._stack, self._folder, self._server = stack, folder, server
        self.states: dict[str, Path] = {}

    def start(self, name: str, sees: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        self.states[name] = self._folder / f"state-{name}"
        monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(self.states[name]))
        log = self._folder / f"log-{name}"
        process = self._stack.enter_context(
            started("worker", "--database", self._server.url, "--identity", name, "--sees", sees, log=log))
        until(lambda: process.poll() is not None or "takes work" in log.read_text(), "the worker is there")
        assert process.poll() is None, log.read_text()
        return process

    def audit(self) -> list[dict[str, Any]]:
        return sorted((one for state in self.states.values() for one in audit(state)), key=lambda one: str(one["time"]))


def test_one_is_lost_and_the_database_goes_away(tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in [*SAN, *NFS]:
        vmx(tmp_path / "in" / name, name, (16 * MIB,))
    path = tmp_path / "wave1.yaml"
    path.write_text(BOOK + "".join(f"- {{name: {one}, sees: {label}}}\n" for label, names in (("san1", SAN), ("nfs2", NFS))
                                   for one in names))
    with ExitStack() as stack:
        hosts = Hosts(stack, tmp_path, server)
        lost = hosts.start("lost", "san1", monkeypatch)
        hosts.start("stays", "nfs2", monkeypatch)
        hosts.states["run"] = tmp_path / "state-run"
        for host, where in (("stays", "the worker stays is in use by another process"), ("run", "already runs on another host")):
            monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(hosts.states[host]))
            twin = imgtool("worker", "--database", server.url, "--identity", "stays")
            assert (twin.returncode, where in twin.stderr) == (4, True), twin.stderr
        run = stack.enter_context(
            started("run", path, "--database", server.url, "--json", "--progress", "none", log=tmp_path / "log"))
        until(lambda: events(hosts.states["lost"], "begin"), f"the first works: {(tmp_path / 'log').read_text()}")
        store = Store(database(server.url))
        stack.callback(store.close)
        hosts.start("other", "nothing", monkeypatch)
        with pytest.raises(UsageError, match="nobody is not running"):
            store.hand_over("nobody")
        assert store.hand_over("other") == []
        os.kill(lost.pid, signal.SIGKILL)
        lost.wait()
        until(lambda: store.workers()["lost"] is False, "its lock goes")
        left = {one["machine"] for one in events(hosts.states["lost"], "begin")}
        left -= {one["machine"] for one in events(hosts.states["lost"], "end")}
        said = imgtool("jobs", "resume", "--on", "other", "--database", server.url)
        assert said.returncode == 0, said.stderr
        taken = set(said.stderr.strip().partition("other takes over: ")[2].split(", "))
        assert {f"wave1/{one}" for one in left} <= taken
        until(lambda: events(hosts.states["other"], "begin"), "the other works")
        hosts.start("third", "san1", monkeypatch)
        server.stop()
        time.sleep(OUTAGE)
        server.start()
        until(lambda: store.alive("stays") and store.alive("other"), "they have their locks again")
        until(lambda: run.poll() is not None, f"all is done: {hosts.audit()[-1]}", seconds=300)
        said = json.loads((tmp_path / "log").read_text().splitlines()[-1])
        assert run.returncode == 0, said
        assert said["done"] == len(SAN) + len(NFS)
    for name in [*SAN, *NFS]:
        same(tmp_path / "in" / name / "0.raw", tmp_path / "out" / name / f"{name}.qcow2", "qcow2")
    begun = [one for one in hosts.audit() if one["event"] == "begin"]
    assert {one["worker"] for one in begun if one["machine"] in SAN} <= {"lost", "other", "third"}
    assert {one["machine"] for one in begun if one["worker"] == "other"} == left
    assert {one["worker"] for one in begun if one["machine"] in NFS} == {"stays"}
    said_by = [one for one in hosts.audit() if one["worker"] != "lost" or one["event"] != "begin"]
    counted = count(said_by)
    assert counted.redone == []
    assert counted.most <= 2
    assert counted.most_of_host["localhost"] <= 3


class Cut:
    """A connection that an outage has broken."""

    def execute(self, _query: str) -> None:
        raise psycopg.OperationalError("gone")

    def close(self) -> None:
        pass


def test_who_finds_another_in_its_place_after_an_outage_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that take themselves for one would each do the other's steps again. Until the database answers nothing is known."""
    answers = [Cut(), UnreachableError("down"), UnreachableError("down"), RefusedError("it runs elsewhere"), AssertionError()]

    def locked(*_given: object) -> Cut:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(identity, "KEEP_SECONDS", 0)
    monkeypatch.setattr(identity, "_locked", locked)
    stop = Stop()

    def work() -> None:
        with identity.held(Database(url="postgresql://h/b"), "conv1", stop):
            until(stop.is_set, "it ends")
            stop.check()

    with pytest.raises(RefusedError, match="it runs elsewhere"):
        work()
    assert len(answers) == 1


def test_a_database_that_is_not_there() -> None:
    done = imgtool("worker", "--database", "postgresql://nobody@127.0.0.1:1/imgtool")
    assert done.returncode == 8, done.stderr
    assert "error: the database postgresql://127.0.0.1/imgtool: " in done.stderr
    assert imgtool("worker", "--database", "mysql://x/y").returncode == 2
