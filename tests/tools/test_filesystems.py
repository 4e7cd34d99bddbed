"""File systems that share blocks: XFS clones, btrfs cannot reserve. Each in a loop file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import patterns, vmdk_kinds
from tests import oracle, targets
from tests.images import DELTA, READABLE, SECOND, SMALL, Source, fit
from tests.loops import mounted
from tests.program import imgtool, result
from tests.targets import SUFFIX_OF, WRITABLE

SIZE = 600 << 20
NOT_SHARED = [name for name, goal in WRITABLE.items() if goal.allocation != "thin" and goal.format in ("raw", "qcow2", "vmdk")]


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted(tmp_path_factory.mktemp("system"), request.param, SIZE) as point:
        yield point


@pytest.fixture
def here(system: Path) -> Iterator[Path]:
    """Directories on the file system; it is small, so they are emptied at once."""
    for part in ("x", "y"):
        (system / part).mkdir()
    yield system
    for part in ("x", "y"):
        shutil.rmtree(system / part)


def cow(system: Path) -> bool:
    return system.name == "btrfs"


def shared(path: Path) -> bool:
    return oracle.space(path).flagged("shared")


@pytest.mark.parametrize("kind", ["raw", "qcow2-1.1", "vmdk-vmfs", "vmdk-monolithicFlat", "vmdk-monolithicSparse", "qcow2-2M"])
@pytest.mark.parametrize("goal", ["raw-thin", "qcow2-thin", "vmfs-thin", "monolithicSparse-thin"])
def test_thin_shares_blocks(here: Path, tmp_path: Path, kind: str, goal: str) -> None:
    source, wanted = READABLE[kind](here / "x", SMALL), WRITABLE[goal]
    raw = targets.seen(source, tmp_path / "raw")
    before = oracle.state(here / "x")
    made = targets.run(source, wanted, here / "y")
    oracle.same(Path(made.destination), wanted.format, raw, "raw")
    oracle.clean(Path(made.destination), wanted.format)
    assert made.bytes_cloned > 0
    assert made.engine == "clone"
    assert any(shared(path) for path in targets.payload(made.files))
    assert oracle.state(here / "x") == before
    assert made.allocation == "thin"


def test_a_change_of_a_clone_does_not_reach_the_source(here: Path) -> None:
    source = READABLE["raw"](here / "x", SMALL)
    made = targets.run(source, WRITABLE["raw-thin"], here / "y")
    assert made.bytes_cloned
    before = oracle.state(here / "x")
    with open(made.destination, "r+b") as file:
        file.write(b"\xff" * 65536)
    assert oracle.state(here / "x") == before


@pytest.mark.parametrize("goal", NOT_SHARED)
def test_thick_and_eager_share_nothing(here: Path, tmp_path: Path, goal: str) -> None:
    source, wanted = READABLE["raw"](here / "x", SMALL), WRITABLE[goal]
    made = targets.run(source, wanted, here / "y")
    oracle.same(Path(made.destination), wanted.format, source.path, "raw")
    oracle.clean(Path(made.destination), wanted.format)
    files = targets.payload(made.files)
    assert not any(shared(path) for path in files)
    assert made.bytes_cloned == 0
    if not cow(here):
        assert oracle.allocation(files, source.size) == wanted.allocation == made.allocation
    assert any("btrfs" in warning for warning in made.warnings) == cow(here), made.warnings


@pytest.mark.parametrize("goal", ["raw-thin", "qcow2-thin", "monolithicSparse-thin"])
def test_no_clone(here: Path, goal: str) -> None:
    source, wanted = READABLE["raw"](here / "x", SMALL), WRITABLE[goal]
    path = here / "y" / wanted.name
    made = result("convert", source.path, path, *wanted.words, "--no-clone")
    oracle.same(path, wanted.format, source.path, "raw")
    assert made["bytes_cloned"] == 0
    assert made["engine"] != "clone"
    assert not shared(path)
    assert not shared(source.path)


@pytest.mark.parametrize("words", [["--thin"], ["--thick"], ["--eager"]])
def test_the_program(here: Path, words: list[str]) -> None:
    source = READABLE["raw"](here / "x", SMALL)
    done = imgtool("convert", source.path, here / "y" / "y.qcow2", "--to", "qcow2", *words)
    assert done.returncode == 0, done.stderr
    assert ("btrfs" in done.stderr) == (cow(here) and words != ["--thin"])
    assert ("cloned" in done.stdout) == (words == ["--thin"])
    oracle.same(here / "y" / "y.qcow2", "qcow2", source.path, "raw")


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("goal", ["raw-thin", "qcow2-thin", "vmfs-thick", "monolithicSparse-thin"])
def test_chain_from_each_layer(here: Path, tmp_path: Path, layer: int, goal: str) -> None:
    size, wanted = patterns.size(SMALL), WRITABLE[goal]
    layers = [("vmfs", patterns.parse(SMALL)), ("seSparse", fit(DELTA, size)), ("monolithicSparse", fit(SECOND, size))]
    image = vmdk_kinds.chain(here / "x", "x", layers)[layer]
    source = Source(image.path, "vmdk", image.disk.seen())
    made = targets.run(source, wanted, here / "y")
    oracle.same(Path(made.destination), wanted.format, targets.seen(source, tmp_path / "raw"), "raw")
    assert bool(made.bytes_cloned) == (wanted.allocation == "thin")


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_chain_of_clones(here: Path, tmp_path: Path, layer: int) -> None:
    """raw → qcow2 → vmdk → raw, each a clone of the one before; each is whole by itself."""
    sources = [READABLE["raw"](here / "x", SMALL)]
    for name in ("qcow2-thin", "vmfs-thin", "raw-thin"):
        (here / "y" / name).mkdir()
        made = targets.run(sources[-1], WRITABLE[name], here / "y" / name)
        assert made.bytes_cloned
        sources.append(Source(Path(made.destination), WRITABLE[name].format, sources[0].pieces))
    chosen = sources[layer + 1]
    raw = targets.seen(chosen, tmp_path / "raw")
    for other in sources:
        if other is not chosen:
            other.path.unlink()
            for beside in other.path.parent.glob("y-flat.vmdk"):
                beside.unlink()
    oracle.same(chosen.path, chosen.format, raw, "raw")
    path = tmp_path / f"z{SUFFIX_OF['qcow2']}"
    result("convert", chosen.path, path, "--to", "qcow2", "--thick")
    oracle.same(path, "qcow2", raw, "raw")


@pytest.mark.parametrize("wanted", ["thick", "eager"])
def test_allocate_ends_the_sharing(here: Path, wanted: str) -> None:
    """A block that is shared is not reserved."""
    source = READABLE["raw"](here / "x", SMALL)
    made = targets.run(source, WRITABLE["raw-thin"], here / "y")
    path, before = Path(made.destination), oracle.state(here / "x")
    assert shared(path)
    told = result("allocate", path, f"--{wanted}")
    oracle.same(path, "raw", source.path, "raw")
    assert oracle.state(here / "x") == before
    if not cow(here):
        assert not shared(path)
        assert oracle.allocation([path], source.size) == wanted == told["allocation"]


@pytest.mark.long
@pytest.mark.parametrize("system", ["xfs"], indirect=True)
def test_xfs_holds_a_raw_disk_of_62_tib(here: Path) -> None:
    """A sparse file of the whole size, which ext4 cannot have."""
    size, path = 62 << 40, here / "x" / "x.raw"
    pieces = patterns.parse(f"64k:A {size - (128 << 10)}:- 64k:B")
    patterns.write_raw(path, pieces)
    for name in ("monolithicSparse-thin", "vmfs-thin"):
        (here / "y" / name).mkdir()
        made = targets.run(Source(path, "raw", pieces), WRITABLE[name], here / "y" / name)
        assert made.virtual_size == size
        for start in (0, size - (64 << 10)):
            oracle.same_there(Path(made.destination), "vmdk", path, "raw", start, 64 << 10)
        shutil.rmtree(here / "y" / name)
