"""What the tests of migrating need: a libvirtd, and a state folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.libvirt_endpoint.conftest import daemon, pool
from tests.program import ENVIRONMENT

__all__ = ["daemon", "pool", "state"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals, and copies that are on their way."""
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"
