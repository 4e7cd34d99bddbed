"""Each hand-written description means what its golden file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtool.descriptions import DESCRIPTIONS, description
from tests.golden import check, inputs, meaning


@pytest.mark.parametrize("path", inputs(*DESCRIPTIONS), ids=lambda path: path.name)
def test_means(path: Path) -> None:
    check(path.with_name(f"{path.name}.machine"), meaning(description(path.suffix).parse(path.read_bytes())))
