"""The fuzzer's readers read sound bytes, and refuse or read spoilt ones; what escapes is found, once for each place."""

from __future__ import annotations

import random
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from imgtool.errors import DamagedError
from imgtool.formats.vmdk import descriptor
from tools.fuzz import watch
from tools.fuzz.targets import TARGETS, target
from tools.fuzz.watch import Watch

SPOILT = 40
"""Inputs of each target, beside its seeds."""
NUMBERS = (b"9" * 5000, "\u00b2".encode(), b"-1", b"0", b"1" * 30)
"""What stands for a number: more digits than int() takes, and what str.isdigit() takes for one."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What readers replace for good in a process of their own is put back here."""
    for name in ("imgtool.qemu.info", "imgtool.endpoints.far.tunnel.run", "imgtool.steps.translate.kvm_state",
                 "threading.excepthook"):
        module, _, member = name.rpartition(".")
        monkeypatch.setattr(name, getattr(__import__(module, fromlist=[member]), member))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_and_nothing_escapes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SECONDS", 1000)  # that the machine is busy is no finding
    one, rng = target(name), random.Random(name)
    seeds = list(one.seeds(tmp_path))
    watched = Watch(one.reader(tmp_path), tmp_path)
    for data in seeds[:12]:
        assert len(data) <= one.largest
        watched(data)
    assert (watched.refused, watched.read) == (0, min(len(seeds), 12))
    for number in range(SPOILT):
        watched((_other_number if number % 2 else _other_bytes)(rng.choice(seeds), rng))
    assert watched.found == set()
    assert watched.read + watched.refused == min(len(seeds), 12) + SPOILT


def _other_number(data: bytes, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"[0-9]+", data))
    if not numbers:
        return _other_bytes(data, rng)
    start, end = rng.choice(numbers).span()
    return data[:start] + rng.choice(NUMBERS) + data[end:]


def _other_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes are others; every second time the end is missing."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[:rng.choice([len(changed), rng.randrange(len(changed))])])


def test_what_escapes_is_kept_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> None:
        if data == b"damaged":
            raise DamagedError("refused")
        if data == b"oracle":
            raise AssertionError("it differs")
        if data == b"none":
            descriptor.parse(None, "x")  # type: ignore[arg-type]

    watched = Watch(read, tmp_path)
    for data in (b"damaged", b"sound", b"oracle", b"none", b"none"):
        watched(data)
    assert (watched.read, watched.refused) == (1, 1)
    assert any("at formats/vmdk/descriptor.py:" in what for what in watched.found)
    assert {"AssertionError: it differs"} < watched.found
    assert len(watched.found) == 2
    assert sorted(path.read_bytes() for path in tmp_path.glob("found-*")) == [b"none", b"oracle"]
    assert capsys.readouterr().out.count("FOUND") == len(watched.found)


def test_what_takes_long_or_much_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watch(lambda data: None, tmp_path)
    watched(b"sound")
    assert watched.found == set()
    monkeypatch.setattr(watch, "SECONDS", -1)
    watched(b"sound")
    assert watched.found == {"slow"}
    monkeypatch.setattr(watch, "_peak", iter([0, watch.MEMORY + 1]).__next__)
    watched(b"sound")
    assert watched.found == {"slow", "memory"}


def test_what_an_input_imports_is_not_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SECONDS", -1)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    watched = Watch(lambda data: import_module("this") and None, tmp_path)
    watched(b"sound")
    assert watched.found == set()
    watched(b"sound")
    assert watched.found == {"slow"}
