"""What is done beside QEMU: what it writes is on its way to the disk, and what is data is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool import storage
from imgtool.copying import qemu_img
from imgtool.model import Extent, Kind


def test_the_file_is_looked_for_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not there at first, and grows."""
    begun: list[tuple[int, int]] = []
    grown = threading.Event()

    def begin(_fd: int, offset: int, length: int) -> None:
        begun.append((offset, length))
        if length == 5:
            grown.set()

    monkeypatch.setattr(storage, "begin_writeback", begin)
    monkeypatch.setattr(qemu_img, "LOOK", 0.001)
    path = tmp_path / "a.vhdx"
    with qemu_img._written_back(str(path)):
        path.write_bytes(b"12")
        path.write_bytes(b"12345")
        assert grown.wait(30)
    assert begun[-1] == (0, 5)
    assert "write back" not in {thread.name for thread in threading.enumerate()}


def test_it_ends_with_what_fails(tmp_path: Path) -> None:
    def work() -> None:
        with qemu_img._written_back(str(tmp_path / "a.vhdx")):
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - that one
        work()
    assert "write back" not in {thread.name for thread in threading.enumerate()}


def test_a_map_of_any_length_holds_up_nobody_who_fails() -> None:
    begun = threading.Event()

    def endless() -> Iterator[Extent]:
        for number in count():
            yield Extent(start=number, length=1, kind=Kind.DATA)
            begun.set()

    disk: Any = SimpleNamespace(content=endless)

    def work() -> None:
        with qemu_img._data_beside(disk):
            assert begun.wait(30)
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - that one
        work()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("map")]


def test_data_is_counted_and_zeros_are_not() -> None:
    kinds = (Kind.DATA, Kind.ZERO, Kind.DATA)
    disk: Any = SimpleNamespace(content=lambda: (Extent(start=n, length=10 ** n, kind=kind) for n, kind in enumerate(kinds)))
    with qemu_img._data_beside(disk) as data:
        pass
    assert data.result() == 101
