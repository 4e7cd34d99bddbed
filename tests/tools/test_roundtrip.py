"""Random disks through random kinds and back: what comes out is what went in.

Derandomized: each run of the suite tries the same disks; `--hypothesis-seed` of a long run tries others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import patterns, vmdk_kinds
from fixtures.patterns import PARENT, Piece
from imgtool.model import SourceOptions
from imgtool.progress import Control
from imgtool.steps.verify import verify
from tests import oracle, targets
from tests.images import Source
from tests.targets import VARIANTS, WRITABLE, Goal

GOALS = {**WRITABLE, **VARIANTS}
RAW = Goal("raw")
QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LONG = settings(QUICK, max_examples=1500, derandomize=False)
UNITS = (512, 4096, 65536, 1 << 20)


@st.composite
def disks(draw: st.DrawFn, kinds: str = "ABab--00") -> tuple[Piece, ...]:
    """Pieces of a few sectors, blocks or clusters, in any order."""
    pieces: list[Piece] = []
    start = 0
    for unit, count, kind in draw(st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 9), st.sampled_from(kinds)),
                                           min_size=1, max_size=12)):
        pieces.append(Piece(start, unit * min(count, 3 if unit == UNITS[-1] else 9), kind))
        start = pieces[-1].end
    return tuple(pieces)


@st.composite
def deltas(draw: st.DrawFn, size: int) -> tuple[Piece, ...]:
    """A delta of a disk of that size; most of it is the parent's."""
    pieces = tuple(Piece(piece.start, min(piece.end, size) - piece.start, piece.kind)
                   for piece in draw(disks("Cc-0" + PARENT * 4)) if piece.start < size)
    end = pieces[-1].end
    return pieces + ((Piece(end, size - end, PARENT),) if end < size else ())


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str, tuple[Piece, ...]]]:
    """(kind, pieces) of a base and up to three deltas of one or several kinds."""
    base = draw(disks())
    kinds = draw(st.lists(st.sampled_from(vmdk_kinds.WITH_PARENT), min_size=1, max_size=3))
    return [(draw(st.sampled_from(sorted(vmdk_kinds.KINDS))), base),
            *[(kind, draw(deltas(patterns.size(base)))) for kind in kinds]]


@contextmanager
def place() -> Iterator[Path]:
    """Directories for a source and results, gone at once: there is one for each example."""
    with tempfile.TemporaryDirectory(prefix="imgtool-test-") as name:
        for part in ("source", "there", "back"):
            Path(name, part).mkdir()
        yield Path(name)


def there_and_back(source: Source, goal: Goal, directory: Path) -> None:
    """Into a kind, back to raw; the digest is of the pattern, not of anything that was read."""
    made = targets.run(source, goal, directory / "there")
    there = Source(Path(made.destination), goal.format, source.pieces)
    oracle.clean(there.path, there.format)
    back = Path(targets.run(there, RAW, directory / "back").destination)
    assert back.stat().st_size == source.size
    assert oracle.state(directory / "back")[back.name][1] == patterns.expected_sha256(source.pieces)
    assert verify(str(source.path), str(back), SourceOptions(), Control()).identical


def disk_example(pieces: tuple[Piece, ...], name: str) -> None:
    with place() as directory:
        raw = patterns.write_raw(directory / "source" / "x.raw", pieces)
        there_and_back(Source(raw, "raw", pieces), GOALS[name], directory)


def chain_example(layers: list[tuple[str, tuple[Piece, ...]]], name: str) -> None:
    with place() as directory:
        top = vmdk_kinds.chain(directory / "source", "x", layers)[-1]
        there_and_back(Source(top.path, "vmdk", top.disk.seen()), GOALS[name], directory)


@QUICK
@given(disks(), st.sampled_from(sorted(GOALS)))
def test_disks(pieces: tuple[Piece, ...], name: str) -> None:
    disk_example(pieces, name)


@QUICK
@given(chains(), st.sampled_from(sorted(GOALS)))
def test_chains(layers: list[tuple[str, tuple[Piece, ...]]], name: str) -> None:
    chain_example(layers, name)


@pytest.mark.long
@LONG
@given(disks(), st.sampled_from(sorted(GOALS)))
def test_many_disks(pieces: tuple[Piece, ...], name: str) -> None:
    disk_example(pieces, name)


@pytest.mark.long
@LONG
@given(chains(), st.sampled_from(sorted(GOALS)))
def test_many_chains(layers: list[tuple[str, tuple[Piece, ...]]], name: str) -> None:
    chain_example(layers, name)
