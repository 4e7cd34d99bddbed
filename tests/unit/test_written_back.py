"""What QEMU writes is on its way to the disk while it works."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from imgtool import storage
from imgtool.copying import qemu_img


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
