"""Where runs that were stopped leave what they need to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.program import ENVIRONMENT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("IMGTOOL_STATE", str(folder))
    monkeypatch.setitem(ENVIRONMENT, "IMGTOOL_STATE", str(folder))
    return folder
