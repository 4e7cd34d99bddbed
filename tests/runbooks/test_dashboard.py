"""The pages, in a real Chromium; and the server of the dashboard, asked by whom it must not answer."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from imgtool.model.job import Job, Overview
from imgtool.runs.dashboard import _Server, serving
from imgtool.runs.engine.store import database
from imgtool.runs.jobs.overview import seen
from imgtool.runs.pages.overview import page
from tests.migrate.machines import MIB
from tests.program import imgtool
from tests.runbooks.batches import started, until

CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars")
HOSTILE = '"><script>document.title="taken"</script><img src=x onerror="document.title=1">\x1b]0;'
NOW = "2026-11-21T22:30:00.000+00:00"
BOOK = """
name: b
defaults: {clone: false}
limits: {bytes-per-second: 2M}
machines:
- {name: web01, steps: [{convert: {source: a.raw, destination: web01.qcow2, to: qcow2}}]}
- {name: web02, steps: [{verify: {left: a.raw, right: a.raw}}],
   before: [/bin/sh, -c, "echo 'the <b>key</b> is lost' >&2; exit 3"]}
"""


def browsed(address: str, folder: Path, *more: str) -> str:
    """What a browser makes of a page: its DOM, after scripts would have run."""
    program = shutil.which("chromium")
    assert program, "the tests need a browser: apt-get install chromium"
    profile = folder / "profile"
    try:
        done = subprocess.run([program, *CHROMIUM, f"--user-data-dir={profile}", *(more or ("--dump-dom",)), address], text=True,
                              capture_output=True, timeout=120, check=True)
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    return done.stdout


@contextmanager
def dashboard(log: Path) -> Iterator[str]:
    with started("dashboard", log=log):
        yield until(lambda: log.exists() and log.read_text().strip(), "it prints its address").splitlines()[0]


def words(dom: str) -> str:
    """The text of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", dom, flags=re.DOTALL))


def test_a_running_wave_and_a_failure(tmp_path: Path, state: Path) -> None:
    (tmp_path / "a.raw").write_bytes(os.urandom(64 * MIB))
    (tmp_path / "b.yaml").write_text(BOOK)
    with started("run", tmp_path / "b.yaml", log=tmp_path / "log"), dashboard(tmp_path / "address") as address:
        def told() -> dict[str, Any]:
            split = urlsplit(address)
            status, _, text = asked(address, f"{split.path}jobs.json", host=split.netloc)
            return {one["machine"]: one for one in json.loads(text)["jobs"]} if status == 200 else {}

        until(lambda: (jobs := told()) and jobs["web02"]["state"] == "failed" and jobs["web01"]["rate"], "one runs, one fails")
        dom = browsed(address, tmp_path)
    said = words(dom)
    assert "b · all" in said
    assert "0 of 2 done" in said
    assert re.search(r"convert, \d+ %", said)
    assert "/s now" in said
    assert "ended with 3: the &lt;b&gt;key&lt;/b&gt; is lost" in said
    assert "What to do: run it by hand, then: imgtool jobs retry" in said
    assert "1 machine, exit code 1: b/web02" in said
    assert 'http-equiv="refresh" content="5"' in dom
    assert imgtool("jobs", "--html", tmp_path / "page.html").returncode == 0
    assert 'http-equiv="refresh"' not in (tmp_path / "page.html").read_text()


def test_an_empty_database(tmp_path: Path, state: Path) -> None:
    database(None).create()
    with dashboard(tmp_path / "address") as address:
        dom = browsed(address, tmp_path)
    assert "There are no jobs yet." in words(dom)
    assert "<table" not in dom


def failed(name: str, **more: object) -> Job:
    known = {"id": f"b/{name}", "verb": "migrate", "state": "failed", "machine": name, "source": None, "target": None,
             "ended": None, "started": NOW, "batch": name, "wave": name, "error": name, "hint": name, "worker": name}
    return Job(**{**known, **more})  # type: ignore[arg-type]


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    """In every place where a name can be: as a stranger would want it, nothing of it becomes an element."""
    path = tmp_path / "page.html"
    path.write_text(page(seen([failed(HOSTILE), failed("\udcff")], NOW), title=HOSTILE), errors="replace")
    dom = browsed(path.as_uri(), tmp_path)
    assert "<script" not in dom
    assert "<img" not in dom
    assert dom.count("&lt;script&gt;document.title") >= 5
    assert not re.search(r"(src|href|action|style|on\w+)=", re.sub(r"<style>.*?</style>|>[^<]*<|content=\"[^\"]*\"", "", dom))


def test_even_a_mistake_of_ours_would_run_nothing(tmp_path: Path) -> None:
    """The policy, proved by a page that has a script in it."""
    path, text = tmp_path / "page.html", page(seen([], NOW))
    script = '<script>document.title = "taken"</script>'
    path.write_text(text.replace("</body>", f"{script}</body>"))
    assert "<title>taken" not in browsed(path.as_uri(), tmp_path)
    path.write_text(re.sub("<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text).replace("</body>", f"{script}</body>"))
    assert "<title>taken" in browsed(path.as_uri(), tmp_path), "the test sees a script that runs"


def asked(address: str, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """(status, headers, text) of a request that says it is for ``host``."""
    split = urlsplit(address)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=20)
    try:
        connection.request(method, path, headers={"Host": host or split.netloc})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def address() -> Iterator[str]:
    with serving(lambda: Overview(time=NOW, paused=False, jobs=(failed("web01"),)), 0) as found:
        yield found


def test_whom_it_answers(address: str) -> None:
    split = urlsplit(address)
    assert split.hostname == "127.0.0.1"
    assert len(split.path) > 30
    status, headers, text = asked(address, split.path)
    assert (status, "web01" in text) == (200, True)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert asked(address, split.path, host=f"localhost:{split.port}")[0] == 200
    assert asked(address, split.path, method="HEAD")[::2] == (200, "")
    for path in ("/", "/jobs.json", split.path[:-2] + "x/", split.path + "../", "/" + "x" * 32 + "/jobs.json"):
        assert asked(address, path)[0] == 404, path
    for host in (f"evil.example:{split.port}", "127.0.0.1", "", f"127.0.0.1:{split.port}.evil.example"):
        connection_host = host or "x"
        assert asked(address, split.path, host=connection_host)[0] == 421, host
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, _, text = asked(address, split.path, method=method)
        assert (status, "web01" in text) == (501, False)


def test_a_database_that_is_gone_is_said(state: Path) -> None:
    from imgtool.errors import UnreachableError

    def gone() -> Overview:
        raise UnreachableError("the database <db1>: no route", "is it running?")

    with serving(gone, 0) as found:
        status, _, text = asked(found, urlsplit(found).path)
    assert status == 503
    assert "the database &lt;db1&gt;: no route" in text


def test_a_browser_that_goes_away_is_nothing_to_speak_of(capsys: pytest.CaptureFixture[str]) -> None:
    server = _Server.__new__(_Server)
    for error, said in ((ConnectionResetError("gone"), False), (ValueError("a bug"), True)):
        try:
            raise error
        except (OSError, ValueError):
            server.handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capsys.readouterr().err) == said


def test_a_port_in_use(address: str) -> None:
    refused = imgtool("dashboard", "--port", urlsplit(address).port)
    assert refused.returncode == 1
    assert f"error: port {urlsplit(address).port}: " in refused.stderr
