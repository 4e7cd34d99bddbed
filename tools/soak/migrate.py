"""Trials of migrations: from folders, from a simulated ESXi, to folders and to a libvirtd; stopped, and gone on with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fixtures.libvirtd import libvirtd
from tests.migrate.machines import MIB, same, vmx
from tests.migrate.test_from_esxi import OPTIONS, flats, host
from tests.migrate.test_near_libvirt import address
from tools.soak.trial import Trial, left


def _sizes(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randrange(4 * 2048, 48 * 2048) * 512 for _ in range(rng.randrange(1, 4)))


def _names(count: int, form: str) -> list[str]:
    return [f"web01{f'-{number}' if count > 1 else ''}.{form}" for number in range(count)]


def _moved(trial: Trial, words: tuple[object, ...], raws: list[Path], out: Path, form: str) -> None:
    """Stopped some times, then left alone; what arrived is what was there, and nothing else is."""
    names = _names(len(raws), form)
    for _ in range(trial.rng.randrange(3)):
        done = trial.stopped(*words, within=3)
        if done.code == 0 or _all_there(trial, out, names):
            break
    else:
        trial.run(*words)
    assert _all_there(trial, out, names), f"{left(out)}, {left(trial.folder / 'state' / 'work')}"
    for raw, name in zip(raws, names, strict=True):
        same(raw, out / name, form)


def _all_there(trial: Trial, out: Path, names: list[str]) -> bool:
    """And nothing else: whoever was killed after that was done, and the machine must not be made again."""
    return left(out, "web01.xml") == set(names) and not left(trial.folder / "state" / "work")


def _form(trial: Trial) -> tuple[str, tuple[str, ...]]:
    form = trial.rng.choice(["qcow2", "raw"])
    return form, ("--format", form, *(("--thick",) if trial.rng.random() < 0.3 else ()))


def from_files(trial: Trial) -> None:
    sizes = _sizes(trial.rng)
    source, out = vmx(trial.folder / "in", disks=sizes), trial.folder / "out"
    before = {path.name: path.stat().st_mtime_ns for path in (trial.folder / "in").iterdir()}
    form, options = _form(trial)
    words = ("migrate", "--from", source, "--to", out, *OPTIONS, *options)
    _moved(trial, words, [trial.folder / "in" / f"{number}.raw" for number in range(len(sizes))], out, form)
    assert before == {path.name: path.stat().st_mtime_ns for path in (trial.folder / "in").iterdir()}


def from_esxi(trial: Trial) -> None:
    """The line is cut sometimes, too."""
    sizes = _sizes(trial.rng)
    form, options = _form(trial)
    with host(trial.folder / "store", sizes=sizes, data=None) as server:
        server.order(match="-flat.vmdk", bytes_per_second=trial.rng.choice([16, 64]) * MIB,
                     cuts=[trial.rng.randrange(1, 4 * MIB) for _ in range(trial.rng.randrange(4))])
        out = trial.folder / "out"
        words = ("migrate", "--from", server.uri(), "--password-file", server.password_file, "--to", out, *OPTIONS, *options)
        _moved(trial, words, flats(trial.folder / "store"), out, form)


def to_libvirt(trial: Trial) -> None:
    sizes = _sizes(trial.rng)
    source = vmx(trial.folder / "in", disks=sizes)
    with TemporaryDirectory(prefix="soak-libvirtd-") as root, libvirtd(Path(root)) as daemon:  # it lives on: not in this folder
        pool = daemon.pool("default", trial.folder / "pool")
        words = ("migrate", "--from", source, "--to", address(daemon), *OPTIONS)
        _moved(trial, words, [trial.folder / "in" / f"{number}.raw" for number in range(len(sizes))], pool, "qcow2")
        assert daemon.virsh("list", "--all", "--name").split() == ["web01"]


TRIALS: dict[Callable[[Trial], None], int] = {from_files: 3, from_esxi: 2, to_libvirt: 1}
"""How often each, by weight."""
