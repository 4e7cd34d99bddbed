"""A disk goes to a far host through libvirt alone: staged here as a file, sent as a sparse stream, read back and compared.

For hosts without Python. It cannot go on after a stop: the volumes are removed, and sent again. What a run that was killed
has left is in the way of the next one, until somebody removes it: nothing tells whose it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from imgtool import files, journal
from imgtool.copying.receive import receiving
from imgtool.endpoints.libvirt import disks, storage
from imgtool.endpoints.libvirt.connection import Host
from imgtool.endpoints.libvirt.send import chunk_of
from imgtool.errors import DifferError
from imgtool.formats.disk import Disk, open_disk
from imgtool.journal import PARTIAL
from imgtool.model import Allocation, ImageSpec
from imgtool.model.endpoint import NewDisk
from imgtool.progress import Control

PART = 4 << 20


def disk(host: Host, pool: str, new: NewDisk, source: Disk, control: Control) -> None:
    """Raises RefusedError where the volume exists, NoSpaceError (here, there), UnreachableError."""
    with _staged(new, source, control) as path, open(path, "rb") as file, host.asked() as connection:
        found = connection.storagePoolLookupByName(pool)
        thick = new.allocation is not Allocation.THIN
        with storage.new_volume(found, new.name, source.virtual_size, new.format, thick=thick) as volume:
            storage.upload(connection, volume, file, control)


@contextmanager
def _staged(new: NewDisk, source: Disk, control: Control) -> Iterator[str]:
    folder = journal.state_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.workspace(str(folder)) as room:
        path = os.path.join(room, "disk")
        with receiving(path, size=source.virtual_size, spec=ImageSpec(format=new.format), source={}) as receiver:
            for number, start, length in receiver.missing():
                control.stop.check()
                data = chunk_of(source, start, length)
                if data is None:
                    receiver.take_zeros(number)
                else:
                    receiver.take(number, memoryview(data))
            receiver.close_up()
        yield path + PARTIAL


def compare(host: Host, pool: str, new: NewDisk, source: Disk, control: Control) -> None:
    """Raises DifferError."""
    folder = journal.state_folder()
    with files.workspace(str(folder)) as room:
        path = os.path.join(room, "back")
        with open(path, "xb") as file, host.asked() as connection:
            volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(new.name)
            storage.download(connection, volume, file, control)
        with open_disk(path, source_format=new.format, stop=control.stop) as back:
            same = back.virtual_size == source.virtual_size
            for start in range(0, source.virtual_size if same else 0, PART):
                control.stop.check()
                length = min(PART, source.virtual_size - start)
                ours, theirs = (chunk_of(one, start, length) for one in (source, back))
                same = same and (ours or bytes(length)) == (theirs or bytes(length))
            if not same:
                raise DifferError(f"{host.name}: the volume {new.name} differs from what was sent",
                                  "the storage there may be failing: keep the source")


def remove(host: Host, paths: Sequence[str]) -> None:
    if not paths:
        return
    import libvirt

    with host.asked() as connection:
        for path in paths:
            with suppress(libvirt.libvirtError):
                disks.volume_at(connection, path).delete(0)
