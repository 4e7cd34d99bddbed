"""What an operator does to a batch, and what happens to it: cancel, pause, resume, stop, two of one identity."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgtool.runs.engine.store import Store, database, machine_id
from tests.migrate.machines import MIB, raw_disk
from tests.program import ENVIRONMENT, ROOT, imgtool
from tests.runbooks.batches import events, started, until

HEAD = "name: b\nlimits: {per-worker: 2, bytes-per-second: 4M}\nmachines:\n"
CONVERT = '- {name: %s, steps: [{convert: {source: "%s.raw", destination: "{name}.vhdx", to: vhdx}}]}\n'


@pytest.fixture
def store() -> Iterator[Store]:
    """Of a batch that another process works on."""
    found: list[Store] = []

    def opened() -> Store:
        found.append(Store(database(None)))
        return found[-1]

    yield _Late(opened)  # type: ignore[misc]
    for one in found:
        one.close()


class _Late:
    """The store, once its database is there."""

    def __init__(self, opened: object) -> None:
        self._opened, self._store = opened, None

    def __getattr__(self, name: str) -> object:
        if self._store is None:
            self._store = self._opened()  # type: ignore[operator]
        return getattr(self._store, name)


@contextmanager
def running(folder: Path, text: str, state: Path, *, begun: int) -> Iterator[tuple[int, Path]]:
    """`imgtool run`, so far that steps have begun; its process id and its log."""
    path, log = folder / "b.yaml", folder / "log"
    path.write_text(text)
    with started("run", path, log=log) as process:
        until(lambda: len(events(state, "begin")) >= begun or process.poll() is not None, "steps begin")
        assert process.poll() is None, log.read_text()
        yield process.pid, log


def tools(pid: int | None = None) -> dict[int, str]:
    """The qemu-img that run below a process, or at all: their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if words[0].endswith(b"qemu-img") and pid in (None, parent):
                found[int(entry.name)] = b" ".join(words).decode(errors="replace")
    return found


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_cancelled_and_resumed(tmp_path: Path, state: Path, store: Store) -> None:
    """A cancelled step ends its qemu-img, and the others go on; resumed, it is done."""
    raw_disk(tmp_path / "a.raw", 16 * MIB)
    text = HEAD + CONVERT % ("a", "a") + CONVERT % ("long", "a")
    with running(tmp_path, text, state, begun=2) as (pid, log):
        until(lambda: any("long" in one for one in tools(pid).values()), "qemu-img runs")
        store.cancel([machine_id("b", "long")])
        until(lambda: [one["machine"] for one in events(state, "stopped")] == ["long"], f"it stops: {log.read_text()}")
        until(lambda: gone(pid) or not tools(pid), "qemu-img ends")
        until(lambda: gone(pid) or "a: done" in log.read_text(), "the other is done")
    assert not (tmp_path / "long.vhdx").exists()
    assert "Traceback" not in log.read_text()
    said = imgtool("run", tmp_path / "b.yaml", "--json")
    assert said.returncode == 1, said.stderr
    assert [one["state"] for one in json.loads(said.stdout)["machines"]] == ["done", "cancelled"]
    store.resume(machine_id("b", "long"))
    again = imgtool("run", tmp_path / "b.yaml", "--json")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "long.vhdx").exists()
    assert [one["machine"] for one in events(state, "end")].count("a") == 1


def test_paused_it_holds(tmp_path: Path, state: Path, store: Store) -> None:
    """What runs goes on, nothing new begins, not even in another process; until it is unpaused."""
    raw_disk(tmp_path / "a.raw", 16 * MIB)
    names = ["a", "b", "c", "d"]
    text = HEAD.replace("4M", "12M") + "".join(CONVERT % (name, "a") for name in names)
    with running(tmp_path, text, state, begun=1) as (pid, _):
        store.pause()
        until(lambda: len(events(state, "end")) == len(events(state, "begin")), "what has begun ends")
        os.kill(pid, signal.SIGKILL)
    begun = len(events(state, "begin"))
    assert begun < 4
    with started("run", tmp_path / "b.yaml", log=tmp_path / "log2") as process:
        until(lambda: len(events(state, "submitted")) == 2, "the second one works")
        with pytest.raises(AssertionError, match="in vain"):
            until(lambda: len(events(state, "begin")) > begun, "a step begins", seconds=4)
        assert store.paused
        store.unpause()
        until(lambda: process.poll() is not None, "all is done")
    assert process.returncode == 0, (tmp_path / "log2").read_text()
    assert all((tmp_path / f"{name}.vhdx").exists() for name in names)


def test_interrupted_it_goes_on_and_is_alone(tmp_path: Path, state: Path) -> None:
    """Killed, its qemu-img dies with it. SIGINT ends it with 130 and fails nothing; a second process of the same database is
    refused; an edited program goes on."""
    raw_disk(tmp_path / "a.raw", 16 * MIB)
    text = HEAD + CONVERT % ("a", "a")
    with running(tmp_path, text, state, begun=1) as (pid, _):
        (orphan,) = until(lambda: tools(pid), "qemu-img runs")
        os.kill(pid, signal.SIGKILL)
        until(lambda: orphan not in tools(), "qemu-img dies")
    with running(tmp_path, text, state, begun=2) as (pid, log):
        (busy,) = until(lambda: tools(pid), "qemu-img runs")
        os.kill(busy, signal.SIGSTOP)
        for command in (("run", tmp_path / "b.yaml"), ("worker",)):
            second = imgtool(*command)
            assert second.returncode == 4, second.stderr
            assert f"in use by another process ({pid})" in second.stderr
        os.kill(pid, signal.SIGINT)
        until(lambda: gone(pid) or not tools(pid), "qemu-img ends")
        until(lambda: "hint: the same command goes on with them" in log.read_text(), log.read_text())
    assert not (tmp_path / "a.vhdx").exists()
    assert "Traceback" not in log.read_text()
    again = imgtool("run", tmp_path / "b.yaml", cwd=edited(tmp_path))
    assert again.returncode == 0, again.stderr
    assert "edited" in again.stderr
    assert [one["event"] for one in events(state, "begin", "stopped", "failed", "end")] == [
        "begin", "begin", "stopped", "begin", "end"]


def edited(folder: Path) -> Path:
    """A copy of the program in which a workflow is written otherwise: what is under way is not stranded by that."""
    package = folder / "edited/imgtool"
    shutil.copytree(ROOT / "imgtool", package, ignore=shutil.ignore_patterns("__pycache__"))
    workflows = package / "runs/engine/workflows.py"
    text = workflows.read_text()
    assert "    attempts, seen = task" in text
    said = '    print("edited", file=__import__("sys").stderr)\n'
    workflows.write_text(text.replace("    attempts, seen = task", f"{said}    attempts, seen = task"))
    return package.parent


def test_names_that_differ_in_their_letters_case_only(tmp_path: Path) -> None:
    """Of machines and of batches: what one has done is not taken for the other's."""
    machines = (("b", "web01"), ("b", "Web01"), ("B", "web01"))
    database(None).create()
    store = Store(database(None))
    try:
        for batch, name in machines:
            store._enqueue("machine", "nobody's", machine_id(batch, name))
            store._enqueue("slot", "nobody's", f"{machine_id(batch, name)}/0-migrate")
        assert {name: row.workflow_id for name, row in store.machines("b").items()} == {"web01": "b/web01", "Web01": "b/Web01"}
        for batch, name in machines:
            assert [one.workflow_id for one in store.below(f"{batch}/{name}")] == [f"{batch}/{name}/0-migrate"]
        assert list(store.machines("B")) == ["web01"]
    finally:
        store.close()


STOPPING = """
name: b
defaults: {on-error: stop}
limits: {per-worker: 1}
waves:
- name: one
  machines:
  - {name: hook, steps: [{verify: {left: a.raw, right: a.raw}}],
     before: [/bin/sh, -c, "cat > hook.json; echo no key >&2; exit 3"]}
  - {name: late, steps: [{verify: {left: a.raw, right: a.raw}}], window: {until: 2020-01-01T00:00:00Z}, on-error: continue}
  - {name: waits, steps: [{verify: {left: a.raw, right: a.raw}}], window: {not-before: 2099-01-01T00:00:00Z}}
- name: two
  machines: [{name: never, steps: [{verify: {left: a.raw, right: a.raw}}]}]
"""


def test_a_failure_stops_what_has_not_begun(tmp_path: Path, state: Path) -> None:
    raw_disk(tmp_path / "a.raw", MIB)
    path = tmp_path / "b.yaml"
    path.write_text(STOPPING.replace("hook.json", str(tmp_path / "hook.json")))
    said = imgtool("run", path, "--json", "--notify", "/bin/true")
    assert said.returncode == 1, said.stderr
    found = {one["name"]: one for one in json.loads(said.stdout)["machines"]}
    assert {name: one["state"] for name, one in found.items()} == {
        "hook": "failed", "late": "failed", "waits": "cancelled", "never": "waiting"}
    assert "ended with 3: no key" in found["hook"]["error"]
    assert "jobs retry" in found["hook"]["hint"]
    assert "its window closed at 2020-01-01" in found["late"]["error"]
    given = json.loads((tmp_path / "hook.json").read_text())
    assert (given["name"], given["wave"], given["batch"]) == ("hook", "one", "b")
    assert {one["machine"] for one in events(state, "begin")} == {"hook"}
    path.write_text(path.read_text().replace("exit 3", "exit 0").replace("2020-", "2098-").replace("2099-", "2019-"))
    again = imgtool("run", path, "--json", "--retry")
    found = {one["name"]: one["state"] for one in json.loads(again.stdout)["machines"]}
    assert (again.returncode, found) == (0, dict.fromkeys(("hook", "late", "waits", "never"), "done"))


def test_who_is_notified_gets_what_is_not_done(tmp_path: Path) -> None:
    """Also where it takes its time."""
    raw_disk(tmp_path / "a.raw", MIB)
    hook, path = tmp_path / "hook", tmp_path / "b.yaml"
    hook.write_text(f"#!/bin/sh\nsleep 1\ncat > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/told.json\n")
    hook.chmod(0o755)
    steps = "steps: [{verify: {left: a.raw, right: a.raw}}]"
    path.write_text(f"name: b\nnotify: [{hook}]\nmachines:\n- {{name: good, {steps}}}\n"
                    f"- {{name: late, {steps}, window: {{until: 2020-01-01T00:00:00Z}}}}\n")
    said = imgtool("run", path)
    assert said.returncode == 1
    assert "warning" not in said.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["batch"], told["done"], told["failed"]) == ("b", 1, 1)
    assert [(one["name"], one["state"]) for one in told["machines"]] == [("late", "failed")]


def test_a_worker_says_by_which_signal_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started("worker", log=log) as process:
        until(lambda: "takes work" in log.read_text(), "the worker begins")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


BLOCKED = """
import sys
for name in ("dbos", "sqlalchemy", "psycopg"):
    sys.modules[name] = None
from imgtool.cli.app import main
main()
"""


def test_nothing_else_needs_the_engine(tmp_path: Path) -> None:
    raw_disk(tmp_path / "a.raw", MIB)
    path = tmp_path / "b.yaml"
    path.write_text(HEAD + CONVERT % ("a", "a"))

    def blocked(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", BLOCKED, *map(str, args)], env=ENVIRONMENT, text=True, capture_output=True,
                              check=False)

    for args in (("convert", "--help"), ("convert", tmp_path / "a.raw", tmp_path / "a.qcow2", "--to", "qcow2"),
                 ("run", path, "--check"), ("run", path, "--dry-run")):
        done = blocked(*args)
        assert done.returncode == 0, done.stderr
    refused = blocked("run", path)
    assert refused.returncode == 6
    assert "'.[batch]'" in refused.stderr
