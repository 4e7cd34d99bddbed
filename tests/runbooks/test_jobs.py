"""`imgtool jobs` on a batch that another process works on: what it says, and what an operator does by it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgtool.cli.job_lines import job_lines
from imgtool.cli.jobs import _look, _wanted
from imgtool.model.job import Job, Overview
from imgtool.runs.engine.store import Store, database
from imgtool.runs.jobs.batches import Batches
from tests.migrate.machines import MIB, raw_disk
from tests.program import ENVIRONMENT, imgtool, result
from tests.runbooks.batches import events, started, until

SIZE = 24 * MIB
"""Of what is to be stopped: 12 s, since each command beside it may take seconds on a busy machine."""
BOOK = """
name: b
defaults: {clone: false}
limits: {per-worker: 2, bytes-per-second: 2M}
waves:
- name: pilot
  machines:
  - {name: good, steps: [{convert: {source: a.raw, destination: good.qcow2, to: qcow2, verify: false}}]}
  - {name: "bad<b>", steps: [{verify: {left: small.raw, right: none.raw}}]}
- name: rest
  machines:
  - {name: later, steps: [{convert: {source: small.raw, destination: later.qcow2, to: qcow2}}]}
"""


def book(folder: Path, size: int = SIZE) -> Path:
    (folder / "a.raw").write_bytes(os.urandom(size))
    raw_disk(folder / "small.raw", MIB)
    path = folder / "b.yaml"
    path.write_text(BOOK)
    return path


def looked(state: str | None = None, wave: str | None = None, host: str | None = None) -> Overview:
    """What `jobs list` shows; from this process, which is quicker than a new one."""
    return _look(None, _wanted(state, wave, host))


def listed() -> dict[str, Job]:
    """Name of the machine → its job."""
    return {str(job.machine): job for job in looked().jobs}


def states() -> dict[str, str]:
    return {name: job.state for name, job in listed().items()}


def names(**how: str) -> set[str]:
    return {str(job.machine) for job in looked(**how).jobs}


def test_a_batch_from_another_terminal(tmp_path: Path, state: Path) -> None:
    path, log = book(tmp_path), tmp_path / "log"
    with started("run", path, log=log) as process:
        found = until(lambda: (one := listed()) and one["good"].bytes_read and one, "it runs")
        assert (found["good"].state, found["later"].state) == ("running", "waiting")
        (going,) = found["good"].going
        assert (going.what, going.total) == ("convert", SIZE)
        assert 0 < going.done <= SIZE
        assert found["good"].bytes_read == going.done
        shown = "\n".join(job_lines(found["good"]))
        assert "now      convert: " in shown
        assert "wave pilot, from localhost" in shown
        assert imgtool("jobs", "cancel", "b/good").returncode == 0
        until(lambda: states()["good"] == "cancelled" and events(state, "stopped"), "it is cancelled")
        assert process.poll() is None
        assert imgtool("jobs", "cancel", "b/good").returncode == 4
        (told,) = events(state, "cancelled")
        assert told["jobs"] == ["b/good"]
        until(lambda: process.poll() is not None, f"the rest is done: {log.read_text()}")
    assert states() == {"good": "cancelled", "bad<b>": "failed", "later": "done"}
    assert names(state="failed,cancelled") == {"good", "bad<b>"}
    assert names(wave="rest") == {"later"}
    assert names(host="nothing*") == set()
    check_ended(path, tmp_path)


def check_ended(path: Path, folder: Path) -> None:
    """A failure with its cause and hint; what was cancelled goes on, and what has failed is tried again, in the next process."""
    seen = result("jobs", "list")
    (cause,) = seen["causes"]
    assert cause["jobs"] == ["b/bad<b>"]
    assert "none.raw" in cause["error"]
    assert {(one["name"], one["machines"]) for one in seen["waves"]} == {("pilot", 2), ("rest", 1)}
    assert max(one["rate"] for one in seen["flow"]) > 0
    resumed = imgtool("jobs", "resume", "b/good")
    assert "no process takes work: imgtool run RUNBOOK" in resumed.stderr
    assert states()["good"] == "stopped"
    (folder / "none.raw").write_bytes((folder / "small.raw").read_bytes())
    assert imgtool("jobs", "retry", "b").returncode == 0
    again = imgtool("run", path, "--json", "--report", folder / "page.html")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["report"] == str(folder / "page.html")
    assert set(states().values()) == {"done"}
    page = (folder / "page.html").read_text()
    assert "bad&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>bad&lt;b&gt;</b>", "").replace("<b>good</b>", "").replace("<b>later</b>", "").replace(
        '<div class="card tile', "").partition("<h2>Machines")[2]
    bad = listed()["bad<b>"]
    assert (bad.runs, bad.retries, bad.error) == (2, 2, None)
    assert imgtool("jobs", "retry", "b").returncode == 2
    events_ = [json.loads(line)["event"] for line in imgtool("jobs", "logs", "b/good").stdout.splitlines()]
    assert events_ == ["begin", "stopped", "begin", "end"]


def test_paused_from_another_terminal(tmp_path: Path, state: Path) -> None:
    path = book(tmp_path, 8 * SIZE)  # nobody waits for its end
    with started("run", path, log=tmp_path / "log") as process:
        until(lambda: (one := listed()) and one["good"].state == "running", "it runs")
        assert imgtool("jobs", "pause").returncode == 0
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert imgtool("jobs").stdout.endswith("paused: nothing new begins (imgtool jobs resume)\n")
    assert states()["good"] == "stopped"
    assert listed()["good"].hint == "imgtool run RUNBOOK goes on with it"
    resumed = imgtool("jobs", "resume")
    assert resumed.returncode == 0, resumed.stderr
    assert not looked().paused
    assert [one["event"] for one in events(state, "paused", "unpaused")] == ["paused", "unpaused"]


def test_nothing_is_made_by_looking(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No state folder, no database; a database that does not answer is an error within seconds, not a wait."""
    assert imgtool("jobs").stdout == "no jobs\n"
    assert not state.exists()
    for command in (["pause"], ["resume"]):
        refused = imgtool("jobs", *command)
        assert refused.returncode == 2
        assert "there are no batches on this host" in refused.stderr
    away = imgtool("jobs", "--database", "postgresql://nobody@127.0.0.1:1/nothing", timeout=60)
    assert away.returncode == 8
    assert "the database postgresql://127.0.0.1/nothing" in away.stderr
    assert imgtool("jobs", "--watch", "--json").returncode == 2
    assert imgtool("jobs", "--state", "gone").returncode == 2


def test_watched_until_nothing_is_under_way(state: Path) -> None:
    assert imgtool("jobs", "--watch", timeout=30).stdout == "no jobs\n\n"


class Lost:
    """The engine's client: two machines were under way on a worker that is gone."""

    def __init__(self) -> None:
        self.resumed: list[tuple[str, str]] = []

    def list_workflows(self, **_how: object) -> list[SimpleNamespace]:
        ids = ("b/web01", "b/web01/0-migrate", "b/web02:2")
        return [SimpleNamespace(workflow_id=one, executor_id="gone", queue_name="vms", name="machine") for one in ids]

    def resume_workflow(self, workflow: str, *, queue_name: str) -> None:
        self.resumed.append((workflow, queue_name))

    def register_queue(self, *_given: object, **_how: object) -> None:
        pass


@pytest.mark.parametrize(("named", "taken"), [
    ([], ["b/web01", "b/web02:2"]), (["web02"], ["b/web02:2"]), (["waits"], []), (["waits", "web01"], ["b/web01"])])
def test_only_what_is_named_is_handed_over(state: Path, monkeypatch: pytest.MonkeyPatch, named: list[str],
                                          taken: list[str]) -> None:
    """Also where what is named has not begun: else what still runs would be done twice."""
    begun = {"web01": SimpleNamespace(workflow_id="b/web01"), "web02": SimpleNamespace(workflow_id="b/web02:2")}
    batches, store = Batches.__new__(Batches), Store.__new__(Store)
    batches._where = store.where = SimpleNamespace(path=None)  # type: ignore[assignment]
    batches._store, store._client = store, (client := Lost())  # type: ignore[assignment]
    for name, value in (("machines", lambda _batch: begun), ("alive", lambda who: who == "other"), ("_per_worker", lambda: 2)):
        monkeypatch.setattr(store, name, value)
    jobs = [Job(id=f"b/{one}", verb="migrate", state="running", machine=one, batch="b", source=None, target=None, started=None,
                ended=None) for one in named]
    assert batches.hand_over("other", jobs) == taken
    assert sorted({"/".join(one.split("/")[:2]) for one, _ in client.resumed}) == taken
    (told,) = events(state, "handed over")
    assert (told["to"], told["jobs"]) == ("other", taken)


def test_one_worker_has_no_other_to_hand_over_to(state: Path) -> None:
    database(None).create()
    refused = imgtool("jobs", "resume", "--on", "other")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "there is no other to hand over to" in refused.stderr


def test_journals_alone_need_no_engine(tmp_path: Path, state: Path) -> None:
    """Blocked, it is missed only where a database is asked for."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text("import sys\nfor name in ('dbos', 'sqlalchemy', 'psycopg'):\n    sys.modules[name] = None\n"
                       "import importlib.util as u\nfound = u.find_spec\n"
                       "u.find_spec = lambda name, *more: None if name == 'dbos' else found(name, *more)\n")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    before = dict(ENVIRONMENT)
    ENVIRONMENT.update(environment)
    try:
        assert imgtool("jobs").stdout == "no jobs\n"
        state.mkdir()
        (state / "batches.sqlite").touch()
        shown = imgtool("jobs")
        assert (shown.returncode, shown.stdout) == (0, "no jobs\n")
        assert "batches are not shown" in shown.stderr
        asked = imgtool("jobs", "--database", "postgresql://x@127.0.0.1/y")
        assert asked.returncode == 6
        assert "'.[batch]'" in asked.stderr
    finally:
        ENVIRONMENT.clear()
        ENVIRONMENT.update(before)
