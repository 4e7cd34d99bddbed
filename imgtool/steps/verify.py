"""verify: do two images have the same bytes for a guest, whatever their formats?"""

from __future__ import annotations

from dataclasses import replace

from imgtool.copying.compare import compare
from imgtool.formats.disk import Disk, open_given
from imgtool.model import SourceOptions, VerifyResult
from imgtool.progress import Control


def verify(left: str, right: str, reading: SourceOptions, control: Control, *, used: bool = False) -> VerifyResult:
    """``used``: only what the file systems on the left side use. Images in use are compared as they are at this moment.

    Raises DamagedError, RefusedError.
    """
    of_right = replace(reading, format=None)
    with open_given(left, reading, control.stop) as one, open_given(right, of_right, control.stop) as other:
        return verify_disks(one, other, control, used=used)


def verify_disks(left: Disk, right: Disk, control: Control, *, used: bool) -> VerifyResult:
    """``verify`` for disks that are open."""
    if not used:
        return compare(left, right, control)
    from imgtool.guests.used import hidden_alike, only_used

    with only_used(left, control.stop) as (source, warnings):
        result = compare(source, hidden_alike(source, right), control)
    return replace(result, warnings=(*warnings, *result.warnings))
