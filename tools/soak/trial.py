"""One round: a folder, a source of chance, the commands that were run; and what must hold of each."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imgtool.errors import EXIT_CODES
from tests.program import ENVIRONMENT
from tests.tools.test_crash import processes_of, wait_until

LONGEST = 600
"""Seconds of one command: the machine may be busy."""
STOPS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Done:
    """How a command ended; ``stopped``: which signal it was sent."""

    code: int
    out: str
    err: str
    stopped: signal.Signals | None = None


@dataclass
class Trial:
    name: str
    folder: Path
    rng: random.Random
    commands: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    """How commands ended: ``exit 7``, ``SIGKILL at work``."""

    def run(self, *words: object, codes: tuple[int, ...] = (0,), settings: Mapping[str, str] | None = None) -> Done:
        """A command that must end with one of these codes."""
        done = self._ended(self._started(words, settings))
        self.ends[f"exit {done.code}"] += 1
        assert done.code in codes, f"exit code {done.code} instead of {codes}: {done.err[-2000:]}"
        return done

    def stopped(self, *words: object, within: float) -> Done:
        """A command that is stopped at a random moment; it may be done before."""
        process = self._started(words, None)
        signum, moment, group = self.rng.choice(STOPS), self.rng.uniform(0, within), self.rng.random() < 0.5
        self.commands[-1] += f"   # {signum.name} {'to all ' if group else ''}after {moment:.2f} s"
        time.sleep(moment)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum) if group else process.send_signal(signum)
        done = self._ended(process, signum)
        wait_until(lambda: not processes_of(self.folder), "a child lives on", 60)
        # Before Python has loaded the program, a signal does what it always does.
        allowed = (0, -signum) if signum == signal.SIGKILL else (0, -signum, 128 + signum)
        if _before_its_first_line(done.err):
            allowed = (*allowed, 1)  # Python's own while it loads its modules
        self.ends[f"{signum.name} {'at work' if done.code else 'too late'}"] += 1
        assert done.code in allowed, f"exit code {done.code} after {signum.name}: {done.err[-2000:]}"
        return done

    def _started(self, words: tuple[object, ...], settings: Mapping[str, str] | None) -> subprocess.Popen[str]:
        self.commands.append("imgtool " + " ".join(map(str, words)))
        return subprocess.Popen(
            [sys.executable, "-m", "imgtool", *map(str, words)], text=True, start_new_session=True, stdin=subprocess.DEVNULL,
            env={**ENVIRONMENT, "IMGTOOL_STATE": str(self.folder / "state"), **(settings or {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _ended(self, process: subprocess.Popen[str], signum: signal.Signals | None = None) -> Done:
        try:
            out, err = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise AssertionError(f"it hangs: {LONGEST} s are over") from None
        assert "Traceback" not in err or _before_its_first_line(err), err[-3000:]
        assert "a bug of imgtool" not in err, err[-3000:]
        assert process.returncode in {*EXIT_CODES, 129} or process.returncode == -(signum or 0), f"exit code {process.returncode}"
        return Done(process.returncode, out, err, signum)


def _before_its_first_line(err: str) -> bool:
    """Ctrl-C while Python itself starts: nothing that imgtool could hide."""
    return err.endswith("KeyboardInterrupt\n") and "/imgtool/" not in err


def left(folder: Path, *own: str) -> set[str]:
    """What stands in a folder beside what may."""
    return set(os.listdir(folder)) - {*own, "lost+found"} if folder.is_dir() else set()
