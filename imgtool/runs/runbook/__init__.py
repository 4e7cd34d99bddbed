"""A runbook's file → ``model.runbook.Runbook``, or all that is wrong in it, each with its place.

``nodes``   YAML → nodes with lines and columns
``bind``    nodes → dataclasses, by their types
``checks``  what types do not say: endpoints that are not there, names that stand twice, addresses
``rows``    machines in a CSV file
``schema``  the JSON schema, from the same types
"""

from __future__ import annotations

import os

from imgtool.model.runbook import Runbook
from imgtool.runs.runbook.bind import Binder
from imgtool.runs.runbook.checks import Checks
from imgtool.runs.runbook.nodes import RunbookError, read
from imgtool.runs.runbook.rows import with_rows


def load(path: str) -> Runbook:
    """Machines of CSV files are in it by name. Raises RunbookError with all that is wrong, UsageError."""
    binder = Binder(os.path.basename(path))
    document = read(path)
    found = binder.bind(document, Runbook, "the runbook")
    if found is not None:
        found = with_rows(found, os.path.dirname(os.path.abspath(path)), binder)
        Checks(found, binder).run()
    if binder.complaints:
        raise RunbookError(binder.complaints)
    return found  # type: ignore[no-any-return]
