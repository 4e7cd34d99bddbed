"""The disks of an OVF package, opened where they lie."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager

from imgtool import storage
from imgtool.errors import DamagedError, RefusedError
from imgtool.formats.disk import Disk, open_disk
from imgtool.formats.opener import Opener
from imgtool.model import ImageFile
from imgtool.model.package import FileReference, Member
from imgtool.ova.read import CHUNK_NAME, Package, find, pick
from imgtool.progress import Stop

PIECE = 1 << 20
GZIP_FRAME = zlib.MAX_WBITS | 16
FIRST_PIECE = ".000000000"


@contextmanager
def open_file(package: Package, reference: FileReference, folder: str, stop: Stop, *,
              source_format: str | None = None) -> Iterator[Disk]:
    """A file of the package as a disk.

    It is read where it lies. Only a file that is packed with gzip is unpacked, into ``folder`` (a workspace), and deleted at the
    end. Raises DamagedError (missing, damaged), RefusedError (leads out of the package; cut in pieces), NoSpaceError.
    """
    if package.members is None:
        path, member = _beside(package, reference), None
    else:
        path, member = package.path, find(package, reference.href)
    name = member.name if member else path
    if reference.chunked and name != reference.href and CHUNK_NAME.search(name) and not name.endswith(FIRST_PIECE):
        raise RefusedError(f"{package.path}: {reference.href!r} is cut in pieces",
                           f"unpack the package, join the pieces with cat into {os.path.basename(reference.href)!r}")
    if not reference.gzip:
        with open_disk(path, member=member, source_format=source_format, stop=stop) as disk:
            yield disk
        return
    unpacked = _unpacked(path, member, folder, stop)
    try:
        with open_disk(unpacked, source_format=source_format, stop=stop) as disk:
            yield disk
    finally:
        os.unlink(unpacked)


def _beside(package: Package, reference: FileReference) -> str:
    """The path of a file in the folder of an ``.ovf``. Raises DamagedError, RefusedError."""
    folder, name = os.path.split(os.path.join(os.path.dirname(package.path), reference.href))
    names = os.listdir(folder) if os.path.isdir(folder) else []
    picked = pick(name, names) or name
    with closing(Opener()) as opener:
        beside = os.path.join(os.path.dirname(reference.href), picked)
        return opener.named(beside, opener.user(package.path)).path


def _unpacked(path: str, member: Member | None, folder: str, stop: Stop) -> str:
    """A gzip file as a plain one in ``folder``. Raises DamagedError, NoSpaceError."""
    name = os.path.basename(member.name if member else path).removesuffix(".gz")
    target = os.path.join(folder, f"unpacked-{name}")
    with closing(Opener()) as opener:
        file = opener.member(path, member) if member else opener.user(path)
        with open(target, "xb") as out:
            try:
                out.writelines(_inflated(file, stop))
            except OSError as error:
                storage.raise_os(error, f"unpacking {file.path}")
            except BaseException:
                os.unlink(target)
                raise
    return target


def _inflated(file: ImageFile, stop: Stop) -> Iterator[bytes]:
    """The bytes in a gzip file (RFC 1952), in pieces. Raises DamagedError."""
    reader, at = zlib.decompressobj(GZIP_FRAME), 0
    try:
        while not reader.eof:
            stop.check()
            packed = reader.unconsumed_tail or os.pread(file.fd, max(0, min(PIECE, file.size - at)), file.base + at)
            at += 0 if reader.unconsumed_tail else len(packed)
            if not packed:
                raise DamagedError(f"{file.path} is packed with gzip, and cut off")
            yield reader.decompress(packed, PIECE)
    except zlib.error as error:
        raise DamagedError(f"{file.path} is not what gzip packed: {error}") from error
