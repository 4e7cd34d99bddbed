"""Reads mutants of one kind in a process of its own, with little memory and a watchdog.

`python -m tests.tools.mutant_runner KIND FIRST LAST`, from the directory of the project. Prints a line for each mutant whose
outcome is none of those allowed, and at the end the outcomes, counted.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from imgtool.copying.batches import split
from imgtool.errors import ImgtoolError
from imgtool.formats.disk import open_disk
from imgtool.formats.measure import data_bytes, describe, mapped
from imgtool.model import ConvertRequest, ImageSpec, Kind, SourceOptions
from imgtool.progress import Control
from imgtool.steps.check import check
from imgtool.steps.convert import convert
from tests.tools.mutants import FOREIGN, KINDS, mutate

MEMORY = 1 << 30
SECONDS = 30
READ_LIMIT = 64 << 20
ITEMS = 200_000


def _map(path: str) -> None:
    with open_disk(path) as disk:
        end, rest = 0, mapped(disk)
        for one in itertools.islice(rest, ITEMS):
            assert one.start == end, "a gap or an overlap in the map"
            assert one.length > 0
            end = one.start + one.length
        assert end == disk.virtual_size or next(rest, None), "the map ends before the disk"


def _info(path: str) -> None:
    with open_disk(path) as disk:
        describe(disk)


def _read(path: str) -> None:
    with open_disk(path) as disk:
        read = 0
        for extent in itertools.islice(split(disk.content()), ITEMS):
            if extent.kind == Kind.DATA:
                assert len(disk.read(extent)) == extent.length, "a short read"
                read += extent.length
            if read > READ_LIMIT:
                break


def _check(path: str) -> None:
    check(path, SourceOptions(), Control())


def _convert(path: str) -> None:
    with open_disk(path) as disk:
        if data_bytes(disk) > READ_LIMIT:
            return
    output = path + ".out.raw"
    try:
        convert(ConvertRequest(source=path, destination=output, spec=ImageSpec(format="raw")), Control())
    finally:
        Path(output).unlink(missing_ok=True)


ACTIONS: dict[str, Callable[[str], None]] = {"info": _info, "map": _map, "read": _read, "check": _check, "convert": _convert}


def main(kind: str, first: int, last: int) -> None:
    # numpy's threads take address space that is none of ours
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, spoilt, tables = (KINDS | FOREIGN)[kind](folder)
        # Soft only: what imgtool starts gets limits of its own, which may be higher.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
        _try_all(kind, -1, "nothing", image, unspoilt := Counter())
        if set(unspoilt) != {"done"}:
            print(f"WRONG {kind}: the image is no good before it is spoilt: {dict(unspoilt)}")
        whole = spoilt.read_bytes()
        for seed in range(first, last):
            data = bytearray(whole)
            how = "; ".join(mutate(data, tables, random.Random(f"{kind} {seed}")))
            spoilt.write_bytes(data)
            _try_all(kind, seed, how, image, outcomes)
    print("outcomes:", dict(outcomes))


def _try_all(kind: str, seed: int, how: str, path: Path, outcomes: Counter[str]) -> None:
    before = set(os.listdir(path.parent))
    for action, run in ACTIONS.items():
        if kind in FOREIGN and action == "check":
            continue
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(f"# {kind} {seed} {action}: {how}", file=sys.stderr, flush=True)
        try:
            run(str(path))
            outcomes["done"] += 1
        except ImgtoolError as error:
            outcomes[type(error).__name__] += 1
        except BaseException as error:
            print(f"WRONG {kind} {seed} {action}: {type(error).__name__}: {str(error)[:200]}: {how}", flush=True)
            if os.environ.get("IMGTOOL_DEBUG"):
                raise
        faulthandler.cancel_dump_traceback_later()
        if left := set(os.listdir(path.parent)) - before:
            print(f"WRONG {kind} {seed} {action}: left {left}: {how}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
