"""proc: programs that are run, served, stopped, limited; none outlives us."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtool import proc
from imgtool.errors import ImgtoolError, MissingToolError, StoppedError
from imgtool.progress import Stop
from tests.program import ENVIRONMENT

LONG = "exec 3>&1; echo $$ > {}; exec sleep 300"


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def number_in(path: Path) -> int:
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_output_and_exit_code_are_the_callers() -> None:
    done = proc.run(shell("printf 'a\\nb'; printf 'wrong\\n' >&2; exit 3"), stop=Stop())
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\nb", "wrong\n")


def test_nothing_of_our_environment_but_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_PASSWORD", "secret")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    said = dict(line.split("=", 1) for line in proc.run(["env"], stop=Stop()).stdout.splitlines())
    assert "IMGTOOL_PASSWORD" not in said
    assert (said["LC_ALL"], said["PATH"]) == ("C.UTF-8", os.environ["PATH"])


def test_stdin_is_empty_and_the_group_its_own() -> None:
    said = proc.run(shell("cat; ps -o pgid= -p $$; echo $$"), stop=Stop()).stdout.split()
    assert said[0] == said[1]
    assert int(said[0]) != os.getpgid(0)


@pytest.mark.parametrize("length", [0, 5, 3 << 20])
def test_what_is_given_stands_on_stdin(length: int) -> None:
    """All of it, and then its end; who reads nothing of it, or is slow, is not waited for."""
    said = b"a\nb" * (length // 3) + b"\xff" * (length % 3)
    assert proc.run(["sha256sum"], stop=Stop(), given=said).stdout.split()[0] == hashlib.sha256(said).hexdigest()
    assert proc.run(["true"], stop=Stop(), given=said).returncode == 0


def test_lines_end_with_a_carriage_return_too() -> None:
    lines: list[str] = []
    script = "printf '  (1.00/100%%)\\r'; sleep 0.05; printf '  (50'; sleep 0.05; printf '.00/100%%)\\r\\n\\nlast\\nunended'"
    done = proc.run(shell(script), stop=Stop(), on_line=lines.append)
    assert lines == ["  (1.00/100%)", "  (50.00/100%)", "last"]
    assert done.stdout.endswith("unended")


def test_what_is_said_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "KEPT_OUTPUT", 1000)
    done = proc.run(shell("head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2"), stop=Stop())
    assert (done.returncode, done.stdout, done.stderr) == (0, "x" * 1000, "y" * 1000)


def test_too_long_and_its_child_is_dead(tmp_path: Path) -> None:
    with pytest.raises(proc.TooLongError, match=r"sh did not finish within 2 s") as caught:
        proc.run(shell(LONG.format(tmp_path / "pid")), stop=Stop(), limits=proc.Limits(seconds=2, memory=1 << 30))
    assert caught.value.exit_code == 1
    assert not alive(number_in(tmp_path / "pid"))


def test_time_of_the_processor_is_limited_too() -> None:
    """A tool that spins after we ourselves are dead ends too: the limit is the kernel's."""
    done = proc.run(shell("ulimit -t"), stop=Stop(), limits=proc.Limits(seconds=7, memory=1 << 30))
    assert int(done.stdout) == 8


def test_stopped_and_its_child_is_dead(tmp_path: Path) -> None:
    stop = Stop()

    def when_started() -> None:
        number_in(tmp_path / "pid")
        stop.set(signal.SIGINT)

    setter = threading.Thread(target=when_started)
    setter.start()
    with pytest.raises(StoppedError) as caught:
        proc.run(shell(LONG.format(tmp_path / "pid")), stop=stop)
    setter.join()
    assert caught.value.exit_code == 130
    assert not alive(number_in(tmp_path / "pid"))


def test_who_does_not_hear_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "GRACE", 0.2)
    script = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 300; done"
    with pytest.raises(proc.TooLongError):
        proc.run(shell(script), stop=Stop(), limits=proc.Limits(seconds=2, memory=1 << 30))
    assert not alive(number_in(tmp_path / "pid"))


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    """Its own child keeps the pipes open: the program has ended, and yet it is not done."""
    script = f"(echo $$; exec sleep 300) & echo $! > {tmp_path}/pid"
    with pytest.raises(proc.TooLongError):
        proc.run(shell(script), stop=Stop(), limits=proc.Limits(seconds=2, memory=1 << 30))
    child = number_in(tmp_path / "pid")
    wait_for(lambda: not alive(child))


def test_a_missing_tool_and_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingToolError, match="no-such-tool is not installed") as caught:
        proc.run(["no-such-tool"], stop=Stop())
    assert caught.value.hint == "apt-get install no-such-tool"
    monkeypatch.setattr(proc.shutil, "which", lambda _tool: None)
    with pytest.raises(MissingToolError) as caught:
        proc.require("qemu-img")
    assert (caught.value.hint, caught.value.exit_code) == ("apt-get install qemu-utils", 6)


def test_memory_is_limited() -> None:
    hungry = [sys.executable, "-c", "len(bytearray(1 << 30))"]
    limits = proc.Limits(seconds=60, memory=512 << 20)
    assert proc.run(hungry, stop=Stop()).returncode == 0
    done = proc.run(hungry, stop=Stop(), limits=limits)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_a_server_lives_as_long_as_its_block(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with proc.serve(shell(LONG.format(path)), lambda: path.exists() and path.read_text().endswith("\n"), stop=Stop()):
        server = number_in(path)
        assert alive(server)
    assert not alive(server)


def test_a_server_ends_with_the_exception_of_its_block(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with (pytest.raises(ZeroDivisionError),
          proc.serve(shell(LONG.format(path)), lambda: path.exists() and path.read_text().endswith("\n"), stop=Stop())):
        raise ZeroDivisionError
    assert not alive(number_in(path))


def test_a_server_that_ends_early_is_an_error_with_its_words() -> None:
    with (pytest.raises(ImgtoolError, match="sh ended: no such image"),
          proc.serve(shell("echo no such image >&2; exit 1"), lambda: False, stop=Stop())):
        pytest.fail("it was never ready")


def test_a_server_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    with (pytest.raises(proc.TooLongError, match="was not ready"),
          proc.serve(shell(LONG.format(tmp_path / "pid")), lambda: False, stop=Stop(), seconds=0.5)):
        pytest.fail("it was never ready")
    assert not alive(number_in(tmp_path / "pid"))


PARENT = """
import sys
from imgtool import proc
from imgtool.progress import Stop
proc.run(["sh", "-c", sys.argv[1]], stop=Stop(), limits=proc.Limits(seconds=300, memory=1 << 30))
"""


def test_a_child_dies_with_us_even_if_we_are_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, LONG.format(tmp_path / "pid")], env=ENVIRONMENT)
    child = number_in(tmp_path / "pid")
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(child))


def test_a_child_dies_even_if_we_are_killed_before_it_has_asked_for_that(tmp_path: Path) -> None:
    """A ``setpriv`` that begins its work when its parent is no more."""
    late = tmp_path / "bin" / "setpriv"
    late.parent.mkdir()
    late.write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\nwhile test ! -e {tmp_path}/go; do sleep 0.02; done\n'
                    f'exec {shutil.which("setpriv")} "$@"\n')
    late.chmod(0o755)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, f"echo > {tmp_path}/begun; exec sleep 300"],
                              env={**ENVIRONMENT, "PATH": f"{late.parent}:{os.environ['PATH']}"})
    child = number_in(tmp_path / "pid")
    parent.kill()
    parent.wait()
    (tmp_path / "go").touch()
    wait_for(lambda: not alive(child))
    assert not (tmp_path / "begun").exists()


def test_a_child_of_ours_works_where_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder that is no more, and without /proc; not in one that we may not enter."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    place = f"{folder.stat().st_dev} {folder.stat().st_ino}\n"
    where = ["stat", "--format=%d %i", "."]
    assert proc.run(where, stop=Stop()).stdout == place
    folder.rmdir()
    assert proc.run(where, stop=Stop()).stdout == place
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != "." and access(path, mode))
    assert proc.run(["pwd"], stop=Stop()).stdout == "/\n"
    monkeypatch.setattr(proc, "PROCESSES", str(tmp_path / "none"))
    assert proc.run(where, stop=Stop()).stdout == place


def test_what_a_worker_starts_does_not_die_with_the_worker() -> None:
    """The kernel's death signal goes by the thread, not by the process."""
    started: list[object] = []

    def work() -> None:
        context = proc.pipes(["cat"])
        started.extend([context, context.__enter__()])

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    time.sleep(0.2)
    context, pipes = started
    assert isinstance(pipes, proc.Pipes)
    pipes.to.write(b"still here\n")
    pipes.to.flush()
    assert pipes.back.readline() == b"still here\n"
    context.__exit__(None, None, None)  # type: ignore[attr-defined]
