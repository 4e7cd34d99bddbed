"""What the program makes of what goes wrong around it: exit codes and words."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imgtool.errors import StoppedError
from imgtool.progress import Stop
from imgtool.steps.doctor import examine
from tests.program import ENVIRONMENT


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
