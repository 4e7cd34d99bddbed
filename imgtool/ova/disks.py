"""The disks of an OVF package, opened where they lie."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager

from imgtool import files, storage
from imgtool.errors import DamagedError, RefusedError
from imgtool.formats.disk import Disk, open_disk
from imgtool.formats.opener import Opener
from imgtool.model import ImageFile
from imgtool.model.package import FileReference, Member
from imgtool.ova.read import CHUNK_NAME, Package, find, pick
from imgtool.progress import Stop

PIECE = 1 << 20
MAX_NAME = 255
"""Bytes: NAME_MAX of limits.h."""
GZIP_FRAME = zlib.MAX_WBITS | 16
FIRST_PIECE = ".000000000"


@contextmanager
def open_file(package: Package, reference: FileReference, folder: str, stop: Stop, *,
              source_format: str | None = None) -> Iterator[Disk]:
    """A file of the package as a disk.

    It is read where it lies. Only a file that is packed with gzip is unpacked, into ``folder`` (a workspace of its own), and
    deleted at the end. Raises DamagedError (missing, damaged), RefusedError (leads out of it; cut in pieces), NoSpaceError.
    """
    if package.members is None:
        path, member = _beside(package, reference), None
    else:
        path, member = package.path, find(package, reference.href)
    name = os.path.basename(member.name if member else path)
    piece = os.path.splitext(name)[1]
    if reference.chunked and name != os.path.basename(reference.href) and CHUNK_NAME.fullmatch(piece) and piece != FIRST_PIECE:
        raise RefusedError(f"{package.path}: {reference.href!r} is cut in pieces",
                           f"unpack the package, join the pieces with cat into {os.path.basename(reference.href)!r}")
    if not reference.gzip:
        with open_disk(path, member=member, source_format=source_format, stop=stop) as disk:
            yield disk
        return
    with files.workspace(folder) as own:  # files of two folders may have the same name
        unpacked = os.path.join(own, _short(f"unpacked-{name.removesuffix('.gz')}"))
        _unpack(path, member, unpacked, stop)
        with open_disk(unpacked, source_format=source_format, stop=stop) as disk:
            yield disk


def _short(name: str) -> str:
    """Its end, as long as the name of a file may be."""
    return os.fsencode(name)[-MAX_NAME:].decode("utf-8", "ignore")


def _beside(package: Package, reference: FileReference) -> str:
    """The path of a file in the folder of an ``.ovf``. Raises DamagedError, RefusedError."""
    folder, name = os.path.split(os.path.join(os.path.dirname(package.path), reference.href))
    names = os.listdir(folder) if os.path.isdir(folder) else []
    picked = pick(name, names) or name
    with closing(Opener()) as opener:
        beside = os.path.join(os.path.dirname(reference.href), picked)
        return opener.named(beside, opener.user(package.path)).path


def _unpack(path: str, member: Member | None, target: str, stop: Stop) -> None:
    """A gzip file as a plain one. Raises DamagedError, NoSpaceError."""
    with closing(Opener()) as opener:
        file = opener.member(path, member) if member else opener.user(path)
        try:
            with open(target, "xb") as out:
                out.writelines(_inflated(file, stop))
        except OSError as error:
            storage.raise_os(error, f"unpacking {file.path}")


def _inflated(file: ImageFile, stop: Stop) -> Iterator[bytes]:
    """The bytes in a gzip file (RFC 1952: members, one after the other; zeros may fill up its end). Raises DamagedError."""
    reader, packed, at = zlib.decompressobj(GZIP_FRAME), b"", 0
    try:
        while True:
            stop.check()
            if not packed:
                packed = os.pread(file.fd, max(0, min(PIECE, file.size - at)), file.base + at)
                at += len(packed)
            if not packed:
                break
            if reader.eof and not (packed := packed.lstrip(b"\0")):
                continue
            if reader.eof:
                reader = zlib.decompressobj(GZIP_FRAME)
            yield reader.decompress(packed, PIECE)
            packed = reader.unconsumed_tail or reader.unused_data
    except zlib.error as error:
        raise DamagedError(f"{file.path} is not what gzip packed: {error}") from error
    if not reader.eof:
        raise DamagedError(f"{file.path} is packed with gzip, and cut off")
