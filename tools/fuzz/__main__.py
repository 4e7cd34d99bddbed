"""Runs targets one after another and reports: exit code 1 where one found something. See the package."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.fuzz.targets import TARGETS, target

KEPT = Path("build/fuzz")
SLICE = 150
"""Seconds of one process, about."""
COVERED = re.compile(r"cov: (\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description="Feeds readers with bytes that are not sound.")
    parser.add_argument("name", choices=["all", *TARGETS])
    parser.add_argument("inputs", nargs="*", type=Path, help="read these, and nothing else")
    parser.add_argument("--seconds", type=float, default=60, help="of all targets together")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    asked = parser.parse_args()
    if asked.inputs:
        return _again(asked.name, asked.inputs)
    names = list(TARGETS) if asked.name == "all" else [asked.name]
    print(f"seed {asked.seed}", flush=True)
    return max([_fuzz(name, asked.seconds / len(names), asked.seed) for name in names])


def _again(name: str, inputs: list[Path]) -> int:
    """Whatever escapes is shown with its traceback."""
    with tempfile.TemporaryDirectory(prefix="imgtool-fuzz-") as folder:
        reader = target(name).reader(Path(folder))
        for path in inputs:
            reader(path.read_bytes())
            print(f"{path}: read")
    return 0


def _fuzz(name: str, seconds: float, seed: int) -> int:
    """One target, in processes of its own: one may die, and atheris keeps some kilobytes of each input."""
    kept = KEPT.resolve() / name
    kept.mkdir(parents=True, exist_ok=True)
    slices = max(1, round(seconds / SLICE))
    read = refused = covered = 0
    found: set[str] = set()
    for number in range(slices):
        counted = _slice(name, kept, seconds / slices, seed + number)
        if counted is None:
            return 1
        read, refused, found = read + counted["read"], refused + counted["refused"], found | set(counted["found"])
        covered = max([covered, *map(int, COVERED.findall((kept / "log").read_text(errors="replace")))])
    print(f"{name}: {read + refused} inputs in {seconds:.0f} s, {read} of them read, {covered} branches, {len(found)} findings",
          flush=True)
    return int(bool(found))


def _slice(name: str, kept: Path, seconds: float, seed: int) -> dict[str, Any] | None:
    """What the process counted; None where it died. Its log stays beside what it found, and the inputs that led further."""
    with tempfile.TemporaryDirectory(prefix="imgtool-fuzz-", dir=_memory()) as folder, (kept / "log").open("w") as log:
        argv = [sys.executable, "-m", "tools.fuzz.child", name, str(kept), str(seconds), str(seed)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=log, text=True, check=False,
                              env={**os.environ, "TMPDIR": folder, "XDG_STATE_HOME": folder})
    said = done.stdout.strip().splitlines()
    for line in said[:-1]:
        print(f"  {line}")
    if done.returncode not in (0, 1) or not said or not said[-1].startswith("{"):
        print(f"{name}: died ({done.returncode}), see {kept}/log", *said[-1:], flush=True)
        return None
    counted: dict[str, Any] = json.loads(said[-1])
    return counted


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
