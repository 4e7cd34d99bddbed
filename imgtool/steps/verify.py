"""verify: do two images have the same bytes for a guest, whatever their formats?"""

from __future__ import annotations

from imgtool.copying.compare import compare
from imgtool.formats.disk import open_disk
from imgtool.model import SourceOptions, VerifyResult
from imgtool.progress import Control


def verify(left: str, right: str, reading: SourceOptions, control: Control) -> VerifyResult:
    """Raises DamagedError, RefusedError. Images in use are compared as they are: the result is of this moment."""
    external = reading.allow_external
    with (open_disk(left, source_format=reading.format, allow_external=external, stop=control.stop) as one,
          open_disk(right, allow_external=external, stop=control.stop) as other):
        return compare(one, other, control)
