"""Rounds until the time is over; then how many of each there were, and which failed. See the package."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tools.soak import convert, migrate
from tools.soak.trial import Trial

TRIALS = {**convert.TRIALS, **migrate.TRIALS}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description="Uses imgtool at random, disturbs it, and looks.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    parser.add_argument("--round", type=int, help="only this one")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had them ignored: children would inherit that
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    print(f"seed {asked.seed}", flush=True)
    if asked.round is not None:
        return int(not _round(asked.seed, asked.round)[1])
    began, counted, ends, failed, number = time.monotonic(), Counter[str](), Counter[str](), list[int](), 0
    while time.monotonic() - began < asked.minutes * 60:
        one, passed = _round(asked.seed, number)
        counted[one.name] += 1
        ends += one.ends
        failed += [] if passed else [number]
        number += 1
    print(f"{number} rounds in {(time.monotonic() - began) / 60:.0f} minutes, {len(failed)} failed {failed or ''}")
    for counts in (counted, ends):
        print("  " + ", ".join(f"{name}: {count}" for name, count in counts.most_common()))
    return int(bool(failed))


def _round(seed: int, number: int) -> tuple[Trial, bool]:
    """A round, and whether all held. The folder of a round that failed is kept."""
    rng = random.Random(f"{seed} {number}")
    trial: Callable[[Trial], None] = rng.choices(list(TRIALS), list(TRIALS.values()))[0]
    one = Trial(trial.__name__, Path(tempfile.mkdtemp(prefix="imgtool-soak-", dir="/var/tmp")), rng)
    try:
        trial(one)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        print(f"FAILED round {number}, {one.name}, in {one.folder}; again: python -m tools.soak --seed {seed} --round {number}")
        print("\n".join(f"    {command}" for command in one.commands))
        print("    " + "".join(traceback.format_exception(error)[-2:]).strip().replace("\n", "\n    "), flush=True)
        return one, False
    shutil.rmtree(one.folder)
    return one, True


if __name__ == "__main__":
    sys.exit(main())
