"""Makes a written image thick or eager on the disk, whatever its format: space reserved, then zeros written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from imgtool import storage
from imgtool.formats.target import Payload
from imgtool.model import Allocation
from imgtool.progress import Control

PIECE = 8 << 20


def settle(files: Sequence[Payload], allocation: Allocation, control: Control) -> list[str]:
    """Gives the files their space; what they hold stays. Returns warnings. Raises NoSpaceError, StoppedError."""
    if allocation == Allocation.THIN:
        return []
    for file in files:
        _unshare(file, control)
    warnings = dict.fromkeys(warning for file in files for warning in _reserve(file))
    if allocation == Allocation.EAGER:
        for file in files:
            write_zeros(file, control)
    return list(warnings)


def _unshare(file: Payload, control: Control) -> None:
    """A shared block needs new space at its first write: it is not reserved. Writing the same bytes again gives it its own."""
    for offset, length in list(storage.shared(file.fd, os.fstat(file.fd).st_size)):
        for at in range(offset, offset + length, PIECE):
            control.stop.check()
            count = min(PIECE, offset + length - at)
            try:
                if not storage.unshare(file.fd, at, count):
                    storage.write_all(file.fd, storage.read(file.fd, count, at), at)
            except OSError as error:
                storage.raise_os(error, f"giving {file.name} blocks of its own")


def _reserve(file: Payload) -> Iterator[str]:
    size = os.fstat(file.fd).st_size
    if not storage.reserve_rest(file.fd, size):
        yield "the file system cannot reserve space (no fallocate): the image is thin until it is written"
    elif name := storage.copy_on_write(file.fd):
        yield f"{name} writes to new places: the space that was reserved does not keep a later write from failing"


def write_zeros(file: Payload, control: Control) -> None:
    """Writes zeros to all that is not written yet: holes and unwritten extents, which read as zeros already."""
    size = os.fstat(file.fd).st_size
    zeros = memoryview(storage.ZEROS)
    ranges = list(storage.unwritten(file.fd, size))
    with control.progress.bar(sum(length for _, length in ranges), "zeros") as bar:
        for offset, length in ranges:
            for at in range(offset, offset + length, len(zeros)):
                control.stop.check()
                count = min(len(zeros), offset + length - at)
                control.rate.take(count, control.stop)
                try:
                    storage.write_all(file.fd, zeros[:count], at)
                except OSError as error:
                    storage.raise_os(error, f"writing zeros to {file.name}")
                bar.update(count)
