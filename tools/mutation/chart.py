"""Which tests run which line, quickest first: who tries a change need not wait for the others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import coverage
import pytest

Chart = dict[str, dict[int, list[str]]]
"""Path in the tree → line → names of tests. What other processes run, and what an import runs, is not in it."""


def read(path: Path) -> Chart:
    """What a ``Recorder`` wrote."""
    found = json.loads(path.read_text("utf-8"))
    return {name: {int(line): tests for line, tests in lines.items()} for name, lines in found.items()}


class Recorder:
    """A plugin of pytest: it looks which lines of a folder each test runs, and how long that takes."""

    def __init__(self, tree: Path, folder: str, result: Path) -> None:
        self._tree, self._result, self._seconds = tree, result, dict[str, float]()
        self._coverage = coverage.Coverage(data_file=None, include=[f"{tree}/imgtool/{folder}/*"], config_file=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = time.monotonic()
        self._coverage.start()
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.stop()
            self._seconds[item.nodeid] = time.monotonic() - began

    def pytest_sessionfinish(self) -> None:
        data = self._coverage.get_data()
        made = {str(Path(file).relative_to(self._tree)): {line: sorted(filter(None, tests), key=self._seconds.__getitem__)
                                                          for line, tests in data.contexts_by_lineno(file).items()}
                for file in data.measured_files()}
        self._result.write_text(json.dumps(made), "utf-8")


class Only:
    """A plugin of pytest: these tests, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._order = {name: number for number, name in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self._order), key=lambda item: self._order[item.nodeid])
