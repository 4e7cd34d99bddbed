"""Jobs → waves, causes, throughput; how far a process is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool import progress
from imgtool.cli.job_lines import job_lines, table
from imgtool.errors import RefusedError, UsageError
from imgtool.journal import progress_path
from imgtool.model.job import Going, Job, JobStep
from imgtool.progress import Kept
from imgtool.runs.jobs import find, journals
from imgtool.runs.jobs.going import moving
from imgtool.runs.jobs.overview import seen
from imgtool.runs.jobs.steps import steps
from imgtool.runs.pages.overview import page
from imgtool.units import duration

BEGAN = datetime.fromisoformat("2026-11-21T22:00:00+00:00")


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat()


def job(name: str, state: str, **more: Any) -> Job:
    known = {"id": f"b/{name}", "verb": "migrate", "machine": name, "state": state, "source": None, "target": None,
             "started": at(0), "ended": None, "batch": "b", "wave": "one"}
    return Job(**{**known, **more})


def step(start: float, end: float | None, read: int | None) -> JobStep:
    return JobStep(verb="copy", of=None, state="done" if end else "running", seconds=None, bytes_read=read, started=at(start),
                   ended=at(end) if end else None)


def test_failures_that_are_alike_are_one() -> None:
    jobs = [job("web01", "failed", error="web01: /vmfs/a1/web01.vmdk is locked", exit_code=4),
            job("web02", "failed", error="web02: /vmfs/b22/web02.vmdk is locked", exit_code=4),
            job("web03", "failed", error="web03: /vmfs/b22/web03.vmdk is locked", exit_code=5),
            job("db", "failed", error="db has a shared disk [source.disk.shared]", exit_code=4),
            job("db2", "failed", error="the disk x of db2 [source.disk.shared]", exit_code=4),
            job("db3", "failed", error="the disk x of db3 [source.disk.shared]", exit_code=4),
            job("ok", "done", error="an old one"), job("none", "failed")]
    found = [(one.jobs, one.exit_code) for one in seen(jobs, at(9)).causes]
    assert found == [(("b/db", "b/db2", "b/db3"), 4), (("b/web01", "b/web02"), 4), (("b/web03",), 5), (("b/none",), None)]


def test_waves_count_their_machines() -> None:
    jobs = [job("a", "done", bytes_read=5), job("b", "running", rate=7, bytes_read=2), job("c", "waiting", wave="two"),
            job("d", "done", bytes_read=1), Job(**{**vars(job("e", "done")), "batch": None})]
    assert [(one.name, one.machines, one.states, one.bytes_read, one.rate) for one in seen(jobs, at(9)).waves] == [
        ("one", 3, {"running": 1, "done": 2}, 8, 7), ("two", 1, {"waiting": 1}, 0, 0)]


def test_the_table_of_jobs_fits_a_narrow_terminal() -> None:
    looked = seen([job("web01", "failed", error="x" * 200), job("db", "done", bytes_read=5 << 20)], at(9))
    assert max(map(len, table(looked))) > 80
    lines = list(table(looked, 80))
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["JOB", "STATE", "WHAT", "BEGUN", "(UTC)", "READ"]
    assert any(line.startswith("    xxx") for line in lines)
    assert list(table(looked, 500)) == list(table(looked))


def test_what_is_told_of_one_job() -> None:
    going = Going(what="copy", done=1 << 20, total=4 << 20, rate=1 << 20, remaining=3.0)
    one = job("web01", "running", going=(going,), result={"changes": [{"where": "/etc/fstab", "what": "by UUID"}]}, hint="wait",
              error="late")
    assert list(job_lines(one))[-4:] == ["  now      copy: 1.0 MiB of 4.0 MiB (25 %), 1.0 MiB/s, 3 s left",
                                         "  changed  /etc/fstab: by UUID", "  error: late", "  hint: wait"]


def test_the_page_says_what_moves_and_that_it_is_paused() -> None:
    moved = [Going(what="a", done=done, total=total, rate=0, remaining=None) for done, total in ((1, 3), (4, 3), (1, 0))]
    assert [one.percent for one in moved] == [33, 100, None]
    bars = (Going(what="copy <a>", done=3, total=4, rate=1, remaining=1.0),
            Going(what="settle", done=1, total=0, rate=1, remaining=None))
    looked = seen([job("web01", "running", going=bars)], at(9), paused=True)
    said = page(looked)
    assert "copy &lt;a&gt;, 75 %" in said
    assert "settle" in said
    assert "Paused: what runs goes on" in said
    assert list(table(looked))[-1] == "paused: nothing new begins (imgtool jobs resume)"
    assert "Paused: " not in page(seen([], at(9)))


def test_flow_adds_up() -> None:
    """Two that overlap, one of them still under way, with what it has read until now; nothing is counted twice or lost."""
    jobs = [job("a", "done", steps=(step(0, 600, 6000),)), job("b", "running", steps=(step(300, None, None),), bytes_read=9000)]
    flow = seen(jobs, at(1200)).flow
    assert len(flow) == 60
    assert sum(one.rate * one.seconds for one in flow) == pytest.approx(15000, rel=0.02)
    assert [flow[number].rate for number in (0, 20, 59)] == [10, 20, 10]
    assert seen([job("c", "waiting")], at(1)).flow == ()


def test_flow_looks_back_a_day() -> None:
    jobs = [job("a", "done", steps=(step(0, 100, 10**6),)), job("b", "done", steps=(step(200_000, 200_100, 10**5),))]
    assert sum(one.rate * one.seconds for one in seen(jobs, at(200_200)).flow) == pytest.approx(10**5, rel=0.02)


def test_a_step_that_is_tried_again_is_one() -> None:
    def event(time: float, what: str, **more: Any) -> dict[str, Any]:
        return {"time": at(time), "event": what, "part": "0-convert", **more}

    said = [event(0, "begin"), event(5, "failed"), event(9, "begin"), event(12, "end", result={"bytes_read": 7})]
    (one,) = steps(said, runs=False)
    assert (one.state, one.attempts, one.seconds, one.bytes_read) == ("done", 2, 3.0, 7)
    assert [one.state for one in steps(said[:1], runs=True)] == ["running"]
    assert [one.state for one in steps(said[:3], runs=False)] == ["stopped"]


def test_what_moves_is_kept_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path))
    monkeypatch.setattr(progress, "KEPT_INTERVAL", 0)
    path = progress_path("j")
    kept = Kept(path)
    with kept.bar(100, "read a"), kept.bar(100, "verify a") as second:
        second.update(40)
        assert [(one.what, one.done, one.total) for one in moving("j").bars] == [("read a", 0, 100), ("verify a", 40, 100)]
        assert moving("j").read == 0
    assert not path.exists()
    with kept.bar(0, "copy") as bar:
        bar.update(30)
        assert (moving("j").read, moving("j").bars[0].remaining) == (30, None)
    with kept.bar(50, "verify") as bar:
        assert moving("j").read == 30
    assert list(path.parent.iterdir()) == []


def test_of_a_process_that_is_gone_nothing_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path))
    path = progress_path("j")
    path.parent.mkdir()
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    said = {"pid": os.getpid(), "time": 0, "over": {}, "bars": [{"what": "copy", "done": 1, "total": 9, "rate": 5}]}
    path.write_text(json.dumps(said))
    assert [(one.rate, one.remaining) for one in moving("j").bars] == [(0, None)]  # it stalls since long
    for wrong in ({**said, "pid": gone.pid}, {"pid": 1}, []):
        path.write_text(json.dumps(wrong))
        assert moving("j").bars == ()


def test_durations() -> None:
    assert [duration(one) for one in (None, 0.4, 59.4, 59.6, 3599, 3700)] == [
        "-", "0 s", "59 s", "1 min", "1 h 00 min", "1 h 02 min"]


def test_no_process_is_ended_but_the_one_that_does_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another program's by now, or of another host that shares the state folder."""
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path))
    (tmp_path / "jobs").mkdir()
    path, one = tmp_path / "jobs" / "migrate-1.jsonl", replace(job("web01", "running", batch=None), id="migrate-1")
    with (path.open("ab") as file, subprocess.Popen(["sleep", "60"], stdout=file) as does,
          subprocess.Popen(["sleep", "60"]) as other):
        def told(pid: int) -> None:
            path.write_text(json.dumps({"event": "start", "time": at(0), "pid": pid}) + "\n")

        told(other.pid)
        with pytest.raises(RefusedError, match=f"process {other.pid} is another program"):
            journals._end(one)
        told(does.pid)
        journals._end(one)
        assert does.wait(10) == -signal.SIGTERM
        with pytest.raises(RefusedError, match=f"its process {does.pid} is gone"):
            journals._end(one)
        with pytest.raises(RefusedError, match="it is done"):
            journals._end(replace(one, state="done"))
        assert other.poll() is None
        other.kill()


def test_one_job_is_not_a_batch() -> None:
    store = SimpleNamespace(jobs=lambda: [job("web01", "done"), job("web02", "done")], whole=lambda one: one)
    assert find([store], "b/web02")[1].machine == "web02"  # type: ignore[list-item]
    with pytest.raises(UsageError, match="b is a batch of 2 machines") as caught:
        find([store], "b")  # type: ignore[list-item]
    assert caught.value.hint == "imgtool jobs show b/web01"
