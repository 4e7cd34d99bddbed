"""A disk of a libvirt host that is this machine: its file is opened in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imgtool.endpoints.in_place import InPlace
from imgtool.endpoints.libvirt.disks import Behind, check_chain
from imgtool.formats.disk import open_disk
from imgtool.progress import Control


@contextmanager
def opened(behind: Behind, folders: Sequence[str], control: Control) -> Iterator[InPlace]:
    """``folders``: of storage pools, in which images below it may lie. Raises RefusedError, DamagedError."""
    with open_disk(behind.file(), source_format=behind.format, allow_external=True, stop=control.stop) as disk:
        check_chain(behind, [(layer.path, layer.format) for layer in disk.layers], folders)
        yield InPlace(disk)
