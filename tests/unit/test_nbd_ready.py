"""A server is ready when it listens, not when its socket has a name."""

from __future__ import annotations

import socket
from pathlib import Path

from imgtool.qemu import _listens


def test_a_name_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not _listens(str(path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not _listens(str(path))
        server.listen()
        assert _listens(str(path))
    assert not _listens(str(path))
