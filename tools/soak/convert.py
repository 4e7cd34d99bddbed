"""Trials of conversions: whole, stopped, without space, with bad sectors; and of the allocation, changed in place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fixtures import patterns
from tests import mounts, oracle
from tests.images import READABLE, Source
from tests.metal.test_rescue import failing
from tests.targets import VARIANTS, WRITABLE, Goal, payload
from tools.soak.trial import Trial, left

GOALS = {**WRITABLE, **VARIANTS}
MIB = 1 << 20
OPTIONS = ((), (), (), ("--no-clone",), ("--detect-zeroes",), ("--no-verify",))
IN_PLACE = ("raw-thin", "raw-thick", "qcow2-thin", "qcow2-thick", "monolithicSparse-thin", "monolithicFlat-thin", "vmfs-thin",
            "twoGbMaxExtentSparse-thin")


@dataclass(frozen=True)
class Given:
    """A source that was drawn, its disk as a raw file, and its folder before anybody read it."""

    source: Source
    raw: Path
    before: dict[str, tuple[int, str]]

    def unchanged(self) -> None:
        assert oracle.state(self.source.path.parent) == self.before, "the source is another than before"


def given(trial: Trial, size: int | None = None, kinds: list[str] | None = None) -> Given:
    """Half of a disk is a hole, so that a thin result is thin."""
    half = size or trial.rng.randrange(4 * 2048, 20 * 2048) * 512
    pattern = f"{patterns.random_pattern(trial.rng, half)} {half + 2 * MIB}:-"
    kind = trial.rng.choice(kinds or list(READABLE))
    trial.commands.append(f"# source: {kind} of {pattern}")
    folder = trial.folder / "in"
    folder.mkdir()
    source = READABLE[kind](folder, pattern)
    raw = patterns.write_raw(trial.folder / "in.raw", source.pieces)
    return Given(source, raw, oracle.state(folder))


def _drawn(trial: Trial) -> tuple[Goal, Path]:
    name = trial.rng.choice(list(GOALS))
    (trial.folder / "out").mkdir(exist_ok=True)
    return GOALS[name], trial.folder / "out" / GOALS[name].name


def _same(one: Given, path: Path, goal: Goal) -> None:
    oracle.same(path, goal.format, one.raw, "raw")
    oracle.clean(path, goal.format)


def _whole(trial: Trial, one: Given, goal: Goal, path: Path, *words: str) -> None:
    """A run that nobody disturbs, and what it leaves."""
    said = json.loads(trial.run("convert", one.source.path, path, *goal.words, "--json", "--force", *words).out)
    _same(one, path, goal)
    assert left(path.parent, *(os.path.basename(name) for name in said["files"])) == set(), "something is left"
    if "clone" not in said["engine"] and not said["bytes_cloned"]:
        found = oracle.allocation(payload(tuple(said["files"])), one.source.size)
        assert found == goal.allocation == said["allocation"], (found, said)
    one.unchanged()


def converted(trial: Trial) -> None:
    one = given(trial)
    goal, path = _drawn(trial)
    _whole(trial, one, goal, path, *trial.rng.choice(OPTIONS))
    assert json.loads(trial.run("verify", one.source.path, path, "--json").out)["identical"]
    trial.run("info", path, "--json")
    trial.run("check", path)


def there_and_back(trial: Trial) -> None:
    """Three formats one after another; the last has what the first had."""
    one = given(trial)
    path: Path = one.source.path
    for number in range(3):
        goal, _ = _drawn(trial)
        folder = trial.folder / f"step{number}"
        folder.mkdir()
        trial.run("convert", path, folder / goal.name, *goal.words)
        path = folder / goal.name
        _same(one, path, goal)
    one.unchanged()


def stopped(trial: Trial) -> None:
    """Several times, then left alone; sometimes over an image that is there already."""
    one = given(trial)
    goal, path = _drawn(trial)
    for _ in range(trial.rng.randrange(1, 4)):
        done = trial.stopped("convert", one.source.path, path, *goal.words, "--force", "--rate-limit", "8M", within=2.5)
        one.unchanged()
        if path.exists():
            _same(one, path, goal)
        assert done.code != 0 or path.exists()
    _whole(trial, one, goal, path)


def without_space(trial: Trial) -> None:
    """A file system that is too small, or just large enough; what is in it stays."""
    one = given(trial)
    goal, _ = _drawn(trial)
    size = trial.rng.randrange(4, 48) * MIB
    kind = trial.rng.choice([mounts.tmpfs, mounts.ext4])
    trial.commands.append(f"# {kind.__name__} of {size} bytes at small")
    for small in kind(trial.folder / "small", size):
        (small / "kept").write_bytes(b"kept")
        done = trial.run("convert", one.source.path, small / goal.name, *goal.words, codes=(0, 7))
        assert (small / "kept").read_bytes() == b"kept"
        if done.code:
            assert left(small, "kept") == set(), "something is left where there was no space"
        else:
            _same(one, small / goal.name, goal)
    one.unchanged()


def bad_sectors(trial: Trial) -> None:
    """Where data is, an error with its place, and nothing left; a bad sector is never zeros."""
    size = trial.rng.randrange(2048, 8192) * 512
    bad = trial.rng.randrange(size // 512) * 512
    data = trial.rng.randbytes(size)
    goal, path = _drawn(trial)
    place = trial.folder / "bad"
    place.mkdir()
    trial.commands.append(f"# {size} bytes, that at {bad} cannot be read")
    with failing(place, data, (bad,)) as shown:
        done = trial.run("convert", shown, path, *goal.words, "--source-format", "raw", codes=(1,))
    assert "error: " in done.err
    assert left(path.parent) == set(), "something is left after a bad sector"


def differing(trial: Trial) -> None:
    """One byte of a copy is another: it is found, at its place."""
    one = given(trial, kinds=["raw", "qcow2-1.1", "vmdk-monolithicSparse"])
    trial.run("convert", one.source.path, trial.folder / "copy.raw", "--to", "raw", "--no-clone")
    at = trial.rng.randrange(one.source.size)
    with (trial.folder / "copy.raw").open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 0x55]))
    said = json.loads(trial.run("verify", one.source.path, trial.folder / "copy.raw", "--json", codes=(3,)).out)
    assert (said["identical"], said["first_difference"]) == (False, at), (said, at)


def in_place(trial: Trial) -> None:
    """The allocation is changed, and changed back, and stopped meanwhile; the guest's bytes stay."""
    one = given(trial, kinds=["raw"])
    goal = GOALS[trial.rng.choice(IN_PLACE)]
    path = trial.folder / goal.name
    trial.run("convert", one.source.path, path, *goal.words, "--no-clone")
    for how in trial.rng.sample(["--thin", "--thick", "--eager"], 3):
        if trial.rng.random() < 0.5:
            trial.stopped("allocate", path, how, within=1.5)
            _same(one, path, goal)
        trial.run("allocate", path, how)
        _same(one, path, goal)


TRIALS: dict[Callable[[Trial], None], int] = {
    converted: 6, there_and_back: 2, stopped: 5, without_space: 3, bad_sectors: 1, differing: 1, in_place: 2}
"""How often each, by weight."""
