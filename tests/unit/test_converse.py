"""proc.converse: a partner that answers, hangs, dies, or says too much."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from imgtool import proc
from imgtool.errors import ImgtoolError, StoppedError
from imgtool.progress import Stop

PARTNER = """
import os, sys, time
source, out = sys.stdin.buffer, sys.stdout.buffer
while head := source.read(8):
    question = source.read(int.from_bytes(head, "big"))
    if question == b"hang":
        time.sleep(60)
    if question == b"die":
        sys.stderr.write("first words\\nlast words\\n")
        sys.exit(3)
    if question == b"lie":
        out.write((1 << 60).to_bytes(8, "big"))
        out.flush()
        time.sleep(60)
    answer = question[::-1]
    sys.stderr.write("x" * 200_000)
    out.write(len(answer).to_bytes(8, "big") + answer)
    out.flush()
"""
ARGV = [sys.executable, "-c", PARTNER]


def test_answers_of_any_size() -> None:
    with proc.converse(ARGV, "partner", stop=Stop()) as ask:
        assert ask(b"abc", 60) == b"cba"
        assert ask(b"", 60) == b""
        large = bytes(range(256)) * 8192
        assert ask(large, 60) == large[::-1]


def test_a_partner_that_hangs() -> None:
    with proc.converse(ARGV, "partner", stop=Stop()) as ask, pytest.raises(proc.TooLongError, match="partner did not answer"):
        ask(b"hang", 0.3)


def test_a_partner_that_dies() -> None:
    with proc.converse(ARGV, "partner", stop=Stop()) as ask:
        with pytest.raises(ImgtoolError, match="partner ended: last words"):
            ask(b"die", 60)
        with pytest.raises(ImgtoolError, match="partner ended"):
            ask(b"again", 60)


def test_a_partner_that_hears_nothing() -> None:
    """It lives, but will not read: nobody waits for its answer."""
    argv = ["sh", "-c", "exec 0<&-; echo deaf >&2; exec sleep 60"]
    with proc.converse(argv, "partner", stop=Stop()) as ask, pytest.raises(ImgtoolError, match="partner ended: deaf"):
        ask(bytes(1 << 20), 30)


def test_a_partner_that_will_not_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed standard error has something to be read for ever: its end. It is read once."""
    reads: list[tuple[int, int]] = []
    read = os.read

    def counted(fd: int, size: int) -> bytes:
        piece = read(fd, size)
        reads.append((fd, len(piece)))
        return piece

    with proc.converse(["sh", "-c", "exec 2>&-; exec sleep 60"], "partner", stop=Stop()) as ask:
        monkeypatch.setattr(os, "read", counted)
        with pytest.raises(proc.TooLongError):
            ask(b"hang", 1)
    assert [length for _, length in reads] == [0]


def test_a_partner_that_says_too_much() -> None:
    with proc.converse(ARGV, "partner", stop=Stop()) as ask, pytest.raises(ImgtoolError, match="gave an answer of"):
        ask(b"lie", 60)


def test_a_stop_is_heard() -> None:
    stop = Stop()
    threading.Timer(0.2, stop.set).start()
    with proc.converse(ARGV, "partner", stop=stop) as ask, pytest.raises(StoppedError):
        ask(b"hang", 60)


def test_it_is_gone_afterwards(tmp_path: Path) -> None:
    script = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n" + PARTNER
    with proc.converse([sys.executable, "-c", script], "partner", stop=Stop()) as ask:
        ask(b"here", 60)
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
