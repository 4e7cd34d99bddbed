"""Raw images and block devices: the guest's bytes as they are. No specification, and none needed.

A file whose length is no multiple of 512 is read as if it were padded with zeros to the next sector.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.formats.layer import SECTOR, Layer, no_decode
from imgtool.formats.opener import Opener
from imgtool.model import Extent, ImageFile, Kind


def open_raw(file: ImageFile, opener: Opener) -> Layer:
    """The layer of a raw file."""
    return flat_layer(file)


def flat_layer(file: ImageFile, warnings: tuple[str, ...] = ()) -> Layer:
    padded = -(-file.size // SECTOR) * SECTOR
    if padded != file.size:
        warnings = (*warnings, f"the length {file.size} is no multiple of {SECTOR}: read as if padded with zeros to {padded}")

    def extents(start: int, end: int) -> Iterator[Extent]:
        if start < (stop := min(end, file.size)):
            yield Extent(start, stop - start, Kind.DATA, file, file.base + start)
        if file.size < end:
            yield Extent(max(start, file.size), end - max(start, file.size), Kind.ZERO)

    return Layer(path=file.path, format="raw", virtual_size=padded, files=(file,), extents=extents, decode=no_decode,
                 warnings=warnings)
