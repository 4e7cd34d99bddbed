"""verify: do two images have the same bytes for a guest, whatever their formats?"""

from __future__ import annotations

from dataclasses import replace

from imgtool.copying.compare import compare
from imgtool.formats.disk import open_given
from imgtool.model import SourceOptions, VerifyResult
from imgtool.progress import Control


def verify(left: str, right: str, reading: SourceOptions, control: Control) -> VerifyResult:
    """Raises DamagedError, RefusedError. Images in use are compared as they are: the result is of this moment."""
    of_right = replace(reading, format=None)
    with open_given(left, reading, control.stop) as one, open_given(right, of_right, control.stop) as other:
        return compare(one, other, control)
