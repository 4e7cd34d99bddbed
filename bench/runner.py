"""Runs the contenders of a case in turn, so that a disturbance hits all of them alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.case import Case, Contender, Outcome, outcome
from bench.measure import MIB, Run, measured
from bench.statistics import survivors

QUICK = 6.0
"""Seconds: whose first run took less goes on whatever the others take."""
SHORT = 1.2
"""Seconds: where all who go on were quicker once, there are OFTEN times as many rounds: 0.1 s of anybody is much of so little."""
OFTEN = 3


def race(case: Case, runs: int, patience: float = float("inf")) -> Outcome:
    """The first round is of all; after it, only the fastest of each family goes on, so that who already takes longer than
    another one of its family is stopped. Each round begins with another one.
    After ``patience`` seconds only who is QUICK goes on: what takes long varies less.

    Before it, a run that does not count: the very first run here was seen to take ten times as long as the next (2 GiB: 4.8 s,
    then 0.2 s), perhaps since a virtual machine is given its memory only when it first touches it.
    """
    began = time.monotonic()
    found: list[list[Run]] = [[] for _ in case.contenders]
    running = list(range(len(found)))
    if case.rivals and not case.runs:
        once(case.ours, case.sources)
    rounds = min(runs, case.runs or runs)
    for number in range(rounds if case.runs else OFTEN * rounds):
        if number >= rounds and not all(min(run.seconds for run in found[position]) < SHORT for position in running):
            break
        if number and time.monotonic() - began > patience:
            running = [position for position in running if found[position][0].seconds < QUICK]
        if not running:
            break
        quickest: dict[str, float] = {}
        first = number % len(running)
        for position in [*running[first:], *running[:first]]:
            contender = case.contenders[position]
            found[position].append(once(contender, case.sources, quickest.get(contender.family)))
            quickest[contender.family] = min(found[position][-1].seconds, quickest.get(contender.family, float("inf")))
        if not number:
            families = [contender.family for contender in case.contenders]
            running = [0, *(1 + place for place in survivors(families[1:], [of[0].seconds for of in found[1:]]))]
    done = outcome(case, found)
    print(f"  {case.name}: {done.ours.seconds:.2f} s; " + ", ".join(f"{each.name} {each.seconds:.2f} s" for each in done.rivals),
          *done.missed(), sep="; ", file=sys.stderr)
    return done


def once(contender: Contender, sources: Sequence[Path], limit: float | None = None) -> Run:
    """One run with warm caches and nothing left to be written of what was before; it is stopped after ``limit`` seconds."""
    clear(contender.folder)
    for source in sources:
        warm(source)
    if contender.folder:
        subprocess.run(["sync", "-f", contender.folder], check=True)
    parts: list[Run] = []
    for command in contender.commands:
        left = None if limit is None else limit - sum(part.seconds for part in parts)
        if left is not None and left <= 0:
            break
        parts.append(measured(command, left))
    seconds = sum(part.seconds for part in parts)
    whole = contender.folder and (limit is None or seconds <= limit)
    size = sum(path.stat().st_size for path in contender.folder.iterdir()) if contender.folder and whole else 0
    clear(contender.folder)
    return Run(seconds, max(part.memory for part in parts), size)


def clear(folder: Path | None) -> None:
    """An empty directory."""
    if folder:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()


def warm(path: Path) -> None:
    """Reads the data of a file, not its holes."""
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        size, end = os.fstat(file.fileno()).st_size, 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            os.lseek(file.fileno(), start, os.SEEK_SET)
            while start < end and (count := file.readinto(buffer)):
                start += count
