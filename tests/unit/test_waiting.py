"""Who waits for the other side, or for somebody to type, is stopped at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from imgtool import endpoints
from imgtool.endpoints.far import wire as wires
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.uri import parse
from imgtool.errors import StoppedError
from imgtool.model.endpoint import Credentials
from imgtool.progress import Stop
from tests.program import ENVIRONMENT

LONG = 1 << 20
"""Bytes: more than a pipe takes."""


ECHO = """
import struct, sys, time
while True:
    length, _ = struct.unpack(">II", sys.stdin.buffer.read(8))
    text = sys.stdin.buffer.read(length)
    time.sleep(0.3)
    sys.stdout.buffer.write(struct.pack(">II", length, 0) + text)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """It is set in a moment."""
    monkeypatch.setattr(wires, "HEARD_OUT", 0.3)
    found = Stop()
    timer = threading.Timer(0.3, found.set)
    timer.daemon = True
    timer.start()
    return found


@pytest.mark.parametrize("payload", [b"", bytes(LONG)])
def test_a_far_end_that_hangs(stop: Stop, payload: bytes) -> None:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        wire = Wire(child.stdin, child.stdout, "far", stop=stop, cut=child.kill)
        with pytest.raises(StoppedError):
            wire.call("write", payload)
        with pytest.raises(StoppedError):
            wire.call("close")
        child.kill()
        child.communicate()


def test_a_far_end_that_answers_is_heard_out(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cleared up after a stop is asked of it, too."""
    monkeypatch.setattr(wires, "HEARD_OUT", 2.0)
    with subprocess.Popen(["python3", "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        wire = Wire(child.stdin, child.stdout, "far", stop=stop, cut=child.kill)
        while not stop.is_set():
            wire.call("hello")
        for _ in range(10):
            assert wire.call("remove")[0]["op"] == "remove"
        child.kill()


def test_a_machine_that_does_not_answer_ssh(stop: Stop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ssh").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    for address in ("metal+ssh://root@h/", "qemu+ssh://root@h/system"):
        with pytest.raises(StoppedError):
            endpoints.source(parse(address), Credentials(), stop)


def test_a_command_that_prints_no_password(stop: Stop) -> None:
    with pytest.raises(StoppedError):
        endpoints.source(parse("esx://h/?no_verify=1"), Credentials(password_command=("sleep", "20")), stop)


PROMPTS = {
    "password": """
from imgtool.endpoints.password import password
from imgtool.model.endpoint import Credentials
work = lambda: password("root@h", Credentials())
""",
    "passphrase": """
from imgtool.cli.guests import with_keys
from imgtool.errors import LockedError
def locked(keys):
    raise LockedError("disk 0 is locked")
work = lambda: with_keys(locked)
""",
    "serial": """
from types import SimpleNamespace
from imgtool.cli import metal, output
output.v2p_disk_lines = lambda _disk: ["the disk"]
work = lambda: metal._asked(SimpleNamespace(problems=(), disks=(SimpleNamespace(confirmed=False, confirm="S1"),)))
""",
}
AS_THE_PROGRAM = """
from imgtool.cli import app
app.program = lambda _argv: lambda **_words: work()
app.main()
"""


@pytest.mark.parametrize("asked", PROMPTS)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nobody_types(asked: str, signum: int, code: int) -> None:
    """Control-C, or a signal, at a prompt: the program ends, and the terminal shows again what is typed."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "IMGTOOL_PASSWORD"}
    argv = ["setsid", "--ctty", sys.executable, "-c", PROMPTS[asked] + AS_THE_PROGRAM]
    with subprocess.Popen(argv, env=environment, stdin=slave, stdout=slave, stderr=slave) as process:
        said = b""
        while not said.endswith((b": ", b"go on: ")):
            said += os.read(master, 4096)
        for _ in range(20):  # one that comes between the prompt and the read is seen with the next: input() is C
            if signum == signal.SIGINT:
                os.write(master, b"\x03")
            else:
                process.send_signal(signum)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        process.kill()
        assert process.wait() == code
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)
