"""What the tests of runbooks need: a state folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.program import ENVIRONMENT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals, the engine's database, the audit."""
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"
