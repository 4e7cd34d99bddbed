"""Every readable kind into every writable one, judged by qemu-img, stat and FIEMAP.

::

    pattern ──builders of fixtures, qemu-img, qemu-io──▶ source ──imgtool──▶ result
       └────────────write_raw────────────▶ raw ◀──qemu-img compare──┘

"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from fixtures import patterns
from imgtool.model import SourceOptions
from imgtool.progress import Control
from imgtool.steps.verify import verify
from tests import oracle, targets
from tests.images import LARGE, READABLE, SMALL, Source
from tests.program import result
from tests.targets import VARIANTS, WRITABLE, Goal

GOALS = {**WRITABLE, **VARIANTS}
TELLING = {"raw-thin", "raw-thick", "qcow2-thin", "qcow2-eager", "monolithicSparse-thick", "streamOptimized", "vhdx-thin"}
"""One of each way of writing."""
READ = {"raw", "qcow2-zlib", "qcow2-chain", "vmdk-seSparse", "vmdk-streamOptimized", "vmdk-twoGbMaxExtentFlat",
        "chain-vmfsSparse", "vhdx-dynamic"}
"""One of each way of reading."""
ENDS_IN_HOLE = "3k:A 512:0 70k:b 400k:0 60k:- 1M:C 700k:-"
DENSE_THEN_TINY = "130k:A 2M:0 512:- 512:B 512:- 512:B 4k:- 512:c 3584:-"


@dataclass(frozen=True)
class Prepared:
    """A source, what a guest reads of it, and what its directory was before anybody read it."""

    source: Source
    raw: Path
    before: dict[str, tuple[int, str]]

    def unchanged(self) -> None:
        """Fails if a byte, a time or a name beside the source is another one."""
        assert oracle.state(self.source.path.parent) == self.before


Prepare = Callable[[str, str], Prepared]


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepare]:
    """Sources, each made once."""
    place = tmp_path_factory.mktemp("sources")
    made: dict[tuple[str, str], Prepared] = {}

    def make(kind: str, pattern: str) -> Prepared:
        if (kind, pattern) not in made:
            directory = place / f"{len(made):03}"
            directory.mkdir()
            source = READABLE[kind](directory, pattern)
            raw = targets.seen(source, place / f"{len(made):03}.raw")
            made[kind, pattern] = Prepared(source, raw, oracle.state(directory))
        return made[kind, pattern]

    yield make
    shutil.rmtree(place)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A directory for one result. It is emptied at once: a thousand results are many gigabytes."""
    directory = tmp_path / "result"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def convert_and_judge(prepared: Prepared, goal: Goal, directory: Path) -> None:
    made = targets.run(prepared.source, goal, directory)
    targets.judge(prepared.source, goal, made, prepared.raw)
    assert verify(str(prepared.source.path), made.destination, SourceOptions(), Control()).identical
    prepared.unchanged()


def product() -> list[ParameterSet]:
    """Every pair. The long run has those of which another pair has the way of reading, and another one the way of writing."""
    return [pytest.param(kind, goal, id=f"{kind}-{goal}", marks=[] if kind in READ or goal in TELLING else [pytest.mark.long])
            for kind in READABLE for goal in WRITABLE]


@pytest.mark.parametrize(("kind", "goal"), product())
def test_each_kind_into_each(prepare: Prepare, here: Path, kind: str, goal: str) -> None:
    convert_and_judge(prepare(kind, SMALL), WRITABLE[goal], here)


@pytest.mark.parametrize("goal", VARIANTS)
@pytest.mark.parametrize("kind", ["raw", "qcow2-chain", "chain-seSparse"])
def test_options(prepare: Prepare, here: Path, kind: str, goal: str) -> None:
    convert_and_judge(prepare(kind, SMALL), VARIANTS[goal], here)


@pytest.mark.parametrize("kind", READABLE)
def test_each_kind_with_several_tables(prepare: Prepare, here: Path, kind: str) -> None:
    convert_and_judge(prepare(kind, LARGE), WRITABLE["monolithicSparse-thin"], here)


@pytest.mark.parametrize("goal", GOALS)
def test_several_tables_into_each(prepare: Prepare, here: Path, goal: str) -> None:
    convert_and_judge(prepare("raw", LARGE), GOALS[goal], here)


@pytest.mark.parametrize("pattern", [ENDS_IN_HOLE, DENSE_THEN_TINY, "130k:-", "512:A", "1M:0 512:0", "64k:A 65k:-"])
@pytest.mark.parametrize("goal", ["raw-thin", "qcow2-thin", "monolithicSparse-thin", "streamOptimized", "vmfs-eager",
                                  "vhdx-thin", "vpc-thin", "vdi-thin"])
def test_ends(prepare: Prepare, here: Path, goal: str, pattern: str) -> None:
    """Small disks of which a table, a grain or a block is a part only. How thin such a disk is depends on the metadata."""
    prepared = prepare("raw", pattern)
    made = targets.run(prepared.source, GOALS[goal], here)
    path = Path(made.destination)
    oracle.same(path, made.format, prepared.raw, "raw")
    assert oracle.virtual_size(path, made.format) == prepared.source.size
    oracle.clean(path, made.format)
    prepared.unchanged()


@pytest.mark.parametrize(("kind", "goal"), [
    *zip(list(READABLE)[::4], list(GOALS), strict=False), ("vmdk-vmfsExtents", "vhdx-thin"), ("chain-seSparse", "qcow2-thick")])
def test_by_command_line(prepare: Prepare, here: Path, kind: str, goal: str) -> None:
    """A sample: what the process says and does is what the function did."""
    prepared, wanted = prepare(kind, SMALL), GOALS[goal]
    made = result("convert", prepared.source.path, here / wanted.name, *wanted.words)
    oracle.same(here / wanted.name, wanted.format, prepared.raw, "raw")
    oracle.clean(here / wanted.name, wanted.format)
    files = targets.payload(tuple(made["files"]))
    assert oracle.allocation(files, prepared.source.size) == wanted.allocation == made["allocation"]
    assert result("verify", prepared.source.path, here / wanted.name)["identical"]
    prepared.unchanged()


@pytest.mark.long
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("kind", READABLE)
def test_each_kind_into_each_with_several_tables(prepare: Prepare, here: Path, kind: str, goal: str) -> None:
    convert_and_judge(prepare(kind, LARGE), GOALS[goal], here)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", READABLE)
def test_random_disks(prepare: Prepare, here: Path, kind: str, seed: int) -> None:
    """Half of the disk is a hole, so that a thin result must be thin."""
    rng = random.Random(f"{kind} {seed}")
    half = rng.randrange(2048, 12 * 2048) * 512
    pattern = f"{patterns.random_pattern(rng, half)} {half + 2 * (1 << 20)}:-"
    goal = rng.choice([name for name in GOALS if "eager" not in name])
    convert_and_judge(prepare(kind, pattern), GOALS[goal], here)
