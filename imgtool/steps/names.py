"""Names of the files of a machine on the other side: safe on each file system, and no two alike."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from imgtool.files import file_name
from imgtool.steps.spec import SUFFIX_OF

SNAPSHOT = re.compile(r"-\d{6}$")
"""Of VMware: ``x-000002.vmdk`` is the disk ``x`` since its second snapshot; the result is whole."""


def disk_names(paths: Sequence[str], form: str) -> list[str]:
    """A name for the new image of each disk: that of the old, numbered where two folders have the same."""
    names: list[str] = []
    for path in paths:
        base = os.path.splitext(path.rpartition("/")[2].rpartition("] ")[2])[0]
        stem = file_name(SNAPSHOT.sub("", base) or "disk")
        name, number = stem, 1
        while name + SUFFIX_OF[form] in names:
            name, number = f"{stem}_{number}", number + 1
        names.append(name + SUFFIX_OF[form])
    return names
