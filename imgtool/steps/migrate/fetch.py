"""One disk from its place into a file of this host: shared where it can be, else in ranges that a later run goes on with."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from imgtool import storage
from imgtool.copying import receive
from imgtool.copying.choose import choose
from imgtool.endpoints import Reader
from imgtool.endpoints.filling import fill
from imgtool.endpoints.metal.reader import MetalReader
from imgtool.formats.disk import open_disk
from imgtool.journal import PARTIAL, BlockMap
from imgtool.model import AllocateRequest, Allocation, ConvertRequest, ImageSpec, SourceOptions
from imgtool.model.migration import MovedDisk
from imgtool.progress import Control
from imgtool.steps.allocate import allocate
from imgtool.steps.convert import convert_disk, refuse_without_room


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How the copy shall be."""

    path: str
    """Its final name; until it is published it is ``path`` with PARTIAL behind."""
    spec: ImageSpec
    verify: bool = True
    clone: bool = True
    ignore_lock: bool = False


def fetch(reader: Reader, name: str, wish: Wish, control: Control) -> MovedDisk:
    """The disk, whole, compared and flushed, at ``wish.path + PARTIAL``. Raises DifferError, NoSpaceError, RefusedError, …"""
    if receive.settled(wish.path, size=reader.size, spec=wish.spec, source=reader.state):
        return MovedDisk(source=name, destination=wish.path, virtual_size=reader.size, engine="kept")
    if reader.disk is not None and (not reader.resumes or _shares(reader, wish)):
        return _converted(reader, name, wish, control)
    return _received(reader, name, wish, control)


def _shares(reader: Reader, wish: Wish) -> bool:
    """Sharing blocks takes no time: there is nothing to go on with."""
    folder = os.path.dirname(wish.path)
    assert reader.disk is not None  # noqa: S101 - asked before
    return choose(reader.disk, wish.spec, folder, clone=wish.clone, verify=False).share and storage.may_share(folder)


def _converted(reader: Reader, name: str, wish: Wish, control: Control) -> MovedDisk:
    assert reader.disk is not None  # noqa: S101 - asked before
    receive.discard(wish.path)
    request = ConvertRequest(source=reader.disk.path, destination=wish.path + PARTIAL, spec=wish.spec, verify=wish.verify,
                             clone=wish.clone, reading=SourceOptions(ignore_lock=wish.ignore_lock))
    done = convert_disk(request, reader.disk, control)
    receive.settle_foreign(wish.path, size=reader.size, spec=wish.spec, source=reader.state)
    return MovedDisk(source=name, destination=wish.path, virtual_size=reader.size, engine=done.engine, bytes_read=done.bytes_read,
                     bytes_written=done.bytes_written, bytes_cloned=done.bytes_cloned)


def _received(reader: Reader, name: str, wish: Wish, control: Control) -> MovedDisk:
    thin = ImageSpec(format=wish.spec.format, options=wish.spec.options)
    with receive.receiving(wish.path, size=reader.size, spec=thin, source=reader.state) as receiver:
        if wish.spec.allocation != Allocation.THIN:
            refuse_without_room(os.path.dirname(wish.path), reader.size - receiver.blocks.done)
        got = fill(reader, receiver, control)
        receiver.close_up()
        if wish.verify:
            _verify(wish, receiver.blocks, control)
        summed = checksum(receiver.blocks)
    if wish.spec.allocation != Allocation.THIN:
        allocate(AllocateRequest(path=wish.path + PARTIAL, allocation=wish.spec.allocation,
                                 reading=SourceOptions(format=wish.spec.format)), control)
    receive.settle(wish.path)
    return MovedDisk(
        source=name, destination=wish.path, virtual_size=reader.size, engine="ranges", bytes_read=got, checksum=summed,
        bytes_lost=lost(reader), passes=reader.passes if isinstance(reader, MetalReader) else (),
        warnings=tuple(getattr(reader, "warnings", ())), bytes_written=os.stat(wish.path + PARTIAL).st_blocks * 512)


def lost(reader: Reader) -> int:
    """Bytes that could not be read, and are zeros in the copy."""
    return sum(end - start for start, end in reader.bad or ()) if isinstance(reader, MetalReader) else 0


def _verify(wish: Wish, blocks: BlockMap, control: Control) -> None:
    """What is on the disk, not in the page cache."""
    path = wish.path + PARTIAL
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    with open_disk(path, source_format=wish.spec.format, stop=control.stop) as copy:
        receive.check(copy, blocks, control)


def checksum(blocks: BlockMap) -> str:
    """Of a whole disk: BLAKE2b over the digests of its chunks, in their order."""
    total = hashlib.blake2b(digest_size=32)
    for number in range(blocks.chunks):
        total.update(blocks.digest_of(number) or b"")
    return total.hexdigest()
