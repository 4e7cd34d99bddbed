"""A sample of changes until the time is over; the survivors, and the score. See the package."""

from __future__ import annotations

import argparse
import ast
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tools.mutation.chart import Chart, Only, Recorder, read
from tools.mutation.operators import places
from tools.mutation.runner import LONGEST, copied, passes

ROOT = Path(__file__).resolve().parents[2]
KILLERS: dict[str, list[str]] = {
    "formats": [
        "tests/unit/test_opener.py", "tests/unit/test_extents.py", "tests/unit/test_qcow2_late.py", "tests/unit/test_windows.py",
        "tests/tools/test_matrix.py::test_options", "tests/tools/test_matrix.py::test_each_kind_with_several_tables",
        "tests/tools/test_matrix.py::test_ends", "tests/tools/test_allocate.py", "tests/tools/test_mutations.py",
        "tests/tools/test_sizes.py"],
    "copying": [
        "tests/unit/test_pool.py", "tests/tools/test_receive.py", "tests/unit/test_extents.py",
        "tests/tools/test_matrix.py::test_options", "tests/tools/test_differs.py", "tests/tools/test_same_blocks.py",
        "tests/tools/test_sizes.py", "tests/tools/test_ways.py"],
    "descriptions": [
        "tests/unit/test_golden.py", "tests/unit/test_guest_os.py", "tests/unit/test_vmx_neighbours.py", "tests/unit/test_vmx.py",
        "tests/unit/test_ovf.py", "tests/unit/test_domain_xml.py", "tests/unit/test_hostile_text.py",
        "tests/unit/test_domain_xml_hostile.py", "tests/unit/test_translations.py"]}
"""Tests that should notice changes of a folder: the quickest first."""
FIRST = 40
"""Tests of those that run a line go first, this many: they notice most."""


@dataclass(frozen=True)
class Killers:
    """Of a folder: all tests, which of them run which line, and the seconds that they may take."""

    tests: list[str]
    chart: Chart
    seconds: float

    def notice(self, tree: Path, path: str, line: int) -> bool:
        """Whether a test fails: one of those that run the line, or else any."""
        quick = self.chart.get(path, {}).get(line, [])[:FIRST]
        files = list(dict.fromkeys(name.partition("::")[0] for name in quick))
        return bool(quick and not passes(tree, files, self.seconds, Only(quick))) or not passes(tree, self.tests, self.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description="Changes the program: does a test notice?")
    parser.add_argument("folders", nargs="*", default=list(KILLERS), help=f"of: {', '.join(KILLERS)}")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    print(f"seed {asked.seed}")
    # What a changed program has left mounted there may keep the folder from going away.
    with tempfile.TemporaryDirectory(prefix="imgtool-mutation-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        tree = copied(ROOT, Path(folder))
        killers = {name: _killers(tree, name) for name in asked.folders}
        end = time.monotonic() + asked.minutes * 60
        counts = {name: [0, 0] for name in asked.folders}
        for number, (name, path, index) in enumerate(_sample(tree, asked.folders, rng)):
            if time.monotonic() > end:
                break
            noticed = _tried(tree, path, index, killers[name])
            counts[name][noticed] += 1
            print(f"{number}", end=" " if noticed else "\n", flush=True)
    print()
    for name, (survived, killed) in counts.items():
        print(f"{name}: {killed} of {killed + survived} changes noticed")
    return 0


def _sample(tree: Path, folders: list[str], rng: random.Random) -> list[tuple[str, Path, int]]:
    """All places in an order of the seed, each folder as often as the others."""
    found = {}
    for name in folders:
        paths = sorted((tree / "imgtool" / name).rglob("*.py"))
        all_ = [(name, path, index) for path in paths for index in range(len(places(ast.parse(path.read_text("utf-8")))))]
        found[name] = rng.sample(all_, len(all_))
    return [one for group in zip(*found.values(), strict=False) for one in group]


def _killers(tree: Path, name: str) -> Killers:
    """Who takes much longer than without a change hangs, and that is noticed, too."""
    began, result = time.monotonic(), tree / f"{name}.json"
    if not passes(tree, KILLERS[name], LONGEST, Recorder(tree, name, result)):
        sys.exit(f"the tests for {name} fail as it is")
    return Killers(KILLERS[name], read(result), (time.monotonic() - began) * 3 + 30)


def _tried(tree: Path, path: Path, index: int, killers: Killers) -> bool:
    """Whether a test notices one change; else the change is shown."""
    text = path.read_text("utf-8")
    module = ast.parse(text)
    place = places(module)[index]
    place.change()
    path.write_text(ast.unparse(ast.fix_missing_locations(module)), "utf-8")
    try:
        noticed = killers.notice(tree, str(path.relative_to(tree)), place.line)
    finally:
        path.write_text(text, "utf-8")
    if not noticed:
        print(f"\nsurvived: {path.relative_to(tree)}:{place.line}: {place.before[:200]!r} → {place.after[:200]!r}", end="  ")
    return noticed


if __name__ == "__main__":
    sys.exit(main())
