"""What the program makes of what goes wrong around it: exit codes and words."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from imgtool.cli.app import _told
from imgtool.errors import StoppedError
from imgtool.progress import Stop
from imgtool.steps.doctor import examine
from tests.program import ENVIRONMENT, imgtool


def test_no_room_for_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(512))
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "imgtool", "info", tmp_path / "a.raw"], env=ENVIRONMENT, stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr.startswith("error: no space left: output")


def test_who_is_interrupted_does_not_say_that_tools_are_missing() -> None:
    stop = Stop()
    stop.set(signal.SIGINT)
    with pytest.raises(StoppedError) as caught:
        examine(stop)
    assert caught.value.exit_code == 130


def test_a_stderr_that_is_full_or_unheard_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"x" * 512)
    reads, unheard = os.pipe()
    os.close(reads)
    for number, fd in enumerate((unheard, os.open("/dev/full", os.O_WRONLY))):
        argv = ["convert", tmp_path / "a.raw", tmp_path / f"{number}.qcow2", "--to", "qcow2", "--no-verify", "--progress", "json"]
        done = subprocess.run([sys.executable, "-m", "imgtool", *argv], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=fd,
                              check=False)
        os.close(fd)
        assert done.returncode == 0
    missing = subprocess.run(["sh", "-c", f"exec {sys.executable} -m imgtool info {tmp_path}/none 2>/dev/full"], env=ENVIRONMENT,
                             check=False)
    assert missing.returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_said_gets_into_no_image_where_streams_are_closed(tmp_path: Path, closed: str) -> None:
    (tmp_path / "a.raw").write_bytes(b"x" * 512)
    command = f"exec {sys.executable} -m imgtool convert a.raw a.qcow2 --to qcow2 --no-verify --progress json {closed}"
    done = subprocess.run(["sh", "-c", command], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("not verified" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert "{" not in done.stdout
    assert imgtool("verify", tmp_path / "a.raw", tmp_path / "a.qcow2").returncode == 0


def test_a_current_directory_that_was_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(512))
    (tmp_path / "gone").mkdir()
    command = f"rmdir {tmp_path}/gone; exec {sys.executable} -m imgtool convert {tmp_path}/a.raw a.qcow2 --to qcow2"
    done = subprocess.run(["sh", "-c", command], env=ENVIRONMENT, cwd=tmp_path / "gone", capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2
    assert "error: the current directory was removed" in done.stderr


def test_no_more_threads_is_no_bug() -> None:
    told = _told(RuntimeError("can't start new thread"))
    assert "too many processes" in told.message


@pytest.mark.parametrize(("words", "told"), [
    (("convert",), "error: Missing argument 'SRC|MACHINE'.\nhint: see imgtool convert --help\n"),
    (("jobs", "show"), "error: Missing argument 'JOB'.\nhint: see imgtool jobs show --help\n"),
    (("nonsense",), "error: No such command 'nonsense'.\nhint: see imgtool --help\n"),
    (("convert", "a.raw", "dir/", "--to", "qcow2"),
     "error: dir/ is a directory\nhint: name the file to write, as in dir/a.qcow2\n"),
    (("convert", "a.raw", "", "--to", "qcow2"), "error: '' is a directory\nhint: name the file to write, as in a.qcow2\n"),
    (("p2v", "--to", "out"), "error: --from is missing\nhint: --from metal+ssh://root@HOST, or metal:///dev/X\n"),
    (("p2v", "--from", "a.raw", "--to", "out"), "error: --from a.raw: p2v reads physical machines\nhint: metal+ssh://root@HOST, "
     "or metal:///dev/X; imgtool migrate moves virtual ones, convert reads image files\n"),
    (("migrate", "web01", "--from", "esxi1", "--to", "out"), "error: esxi1 is neither an address nor a machine's description\n"
     "hint: esx://USER@HOST/, qemu:///system and the like; or a .vmx, .xml, .ovf or .ova\n"),
    (("jobs", "show", "nope"), "error: no job begins with 'nope'\nhint: imgtool jobs lists them\n"),
    (("allocate", "a.raw"), "error: which allocation?\nhint: one of --thin, --thick, --eager\n"),
])
def test_a_slip_is_answered_with_what_to_type(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(512))
    done = subprocess.run([sys.executable, "-m", "imgtool", *words], cwd=tmp_path, text=True, capture_output=True, check=False,
                          env={**ENVIRONMENT, "IMGTOOL_STATE": str(tmp_path / "state")})
    assert (done.returncode, done.stderr) == (2, told)
    assert not (tmp_path / "dir").exists()


@pytest.mark.parametrize("words", [("info", "a.raw"), ("jobs", "logs", "migrate-1")], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    """As of ``imgtool info x | head -0``: no words, and a shell's code for SIGPIPE."""
    (tmp_path / "a.raw").write_bytes(bytes(512))
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/migrate-1.jsonl").write_text('{"time": "2026-11-28T00:00:00Z", "event": "start", "verb": "migrate"}\n')
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([sys.executable, "-m", "imgtool", *words], cwd=tmp_path, stdout=writes, stderr=subprocess.PIPE,
                          env={**ENVIRONMENT, "IMGTOOL_STATE": str(tmp_path)}, text=True, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_the_version() -> None:
    done = imgtool("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"imgtool \S+\n", done.stdout)


@pytest.mark.parametrize(("error", "words", "code"), [
    (typer.Abort(), "interrupted", 130), (UnicodeEncodeError("ascii", "a\u2192", 1, 2, "no"), "no character for '\\u2192'", 1),
    (MemoryError(), "out of memory", 1), (OSError(errno.EDQUOT, "quota", "/x/a"), "no space left: /x/a", 7),
    (OSError(errno.EIO, "Input/output error", "/x/a"), "/x/a: Input/output error", 1), (OSError("odd"), "input/output: odd", 1),
    (KeyError("x"), "a bug of imgtool: KeyError: 'x'", 1)])
def test_whatever_goes_wrong_is_one_of_our_errors(error: Exception, words: str, code: int) -> None:
    told = _told(error)
    assert (words in told.message, told.exit_code) == (True, code)


def test_a_traceback_is_for_who_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in imgtool("info", tmp_path / "none").stderr
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_DEBUG", "1")
    assert "Traceback" in imgtool("info", tmp_path / "none").stderr
