"""The format of a file: by its header, and only if its name does not say otherwise.

A guest can write any bytes into the first sector of its raw disk. So a name that says "raw" with a header that says something
else is refused, until the user says ``--source-format``.
"""

from __future__ import annotations

import os
import stat

from imgtool.errors import DamagedError, RefusedError, UsageError
from imgtool.formats import FORMATS
from imgtool.formats.foreign import VHDX_MAGIC, VPC_COOKIE, is_vdi
from imgtool.formats.layer import read_at
from imgtool.formats.qcow2.header import MAGIC as QCOW_MAGIC
from imgtool.formats.vmdk import sesparse
from imgtool.formats.vmdk.descriptor import is_descriptor
from imgtool.formats.vmdk.read import FLAT_NAME, PART_NAME, descriptor_of
from imgtool.formats.vmdk.sparse import COWD, KDMV
from imgtool.model import ImageFile
from imgtool.suffixes import is_machine

SUFFIXES = {".qcow2": "qcow2", ".qcow": "qcow2", ".vmdk": "vmdk", ".vhdx": "vhdx", ".vhd": "vpc", ".vpc": "vpc", ".vdi": "vdi",
            ".raw": "raw", ".dd": "raw"}
"""Names that say a format. ``.img``, ``.iso``, ``.bin`` and names without a suffix go by the header."""
LUKS = b"LUKS\xba\xbe"
OTHERS = {b"QED\0": "QED", b"WithoutFreeSpace": "Parallels", b"WithouFreSpacExt": "Parallels",
          b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2"}
"""Known, and not read; counts only where the name does not say raw."""
HEAD = 4096


def header_format(file: ImageFile) -> str | None:
    """What the first bytes say; None is raw. qcow version 1 counts as qcow2 here, and is refused on opening."""
    head = read_at(file, HEAD, 0)
    if head[:4] == QCOW_MAGIC:
        return "qcow2"
    if head[:4] in (KDMV, COWD) or is_descriptor(head):
        return "vmdk"
    if head[:16] == sesparse.HEADER.pack(sesparse.MAGIC, sesparse.VERSION, *[0] * 24)[:16]:
        return "vmdk"
    if head[:8] == VHDX_MAGIC:
        return "vhdx"
    if head[:8] == VPC_COOKIE:
        return "vpc"
    return "vdi" if is_vdi(head) else None


def detect(file: ImageFile) -> tuple[str, tuple[str, ...]]:
    """Format of a file and warnings about it. Raises RefusedError or DamagedError where name and header disagree."""
    name = os.path.basename(file.path)
    found = header_format(file)
    if FLAT_NAME.search(name):
        return _flat(file, found)
    if PART_NAME.search(name):
        _refuse_part(file, found)
    named = "raw" if stat.S_ISBLK(os.fstat(file.fd).st_mode) else SUFFIXES.get(os.path.splitext(name)[1].lower())
    if named == "vpc" and found is None and _vhd_footer(file):
        found = "vpc"
    if named == "raw" and found:
        raise RefusedError(f"{file.path} is named like a raw disk, but begins like {found}: a guest can write such bytes",
                           f"say --source-format raw or --source-format {found}, whichever you know it to be")
    if named and named != (found or "raw"):
        what = f"it begins like {found}" if found else f"it has no {named} header"
        raise DamagedError(f"{file.path} is no {named} image: {what}",
                           f"if the name is wrong, say --source-format {found or 'raw'}")
    if found is None and named is None:
        _refuse_others(file, name)
    return found or "raw", ()


def forced(file: ImageFile, source_format: str) -> str:
    """The format that the user says; the header must still have it. Raises UsageError, DamagedError."""
    if source_format not in FORMATS:
        raise UsageError(f"unknown format {source_format!r}", f"one of: {', '.join(FORMATS)}")
    found = header_format(file)
    if source_format == "vpc" and _vhd_footer(file):
        found = "vpc"
    if source_format not in ("raw", found):
        raise DamagedError(f"{file.path} has no {source_format} header")
    return source_format


def _vhd_footer(file: ImageFile) -> bool:
    return file.size >= 512 and read_at(file, 8, file.size - 512) == VPC_COOKIE


def _flat(file: ImageFile, found: str | None) -> tuple[str, tuple[str, ...]]:
    if found:
        raise RefusedError(f"{file.path} is named like a raw disk, but begins like {found}: a guest can write such bytes",
                           "name its descriptor, or say --source-format raw")
    descriptor = descriptor_of(file.path)
    where = f"its descriptor is {descriptor}" if descriptor else "no descriptor beside it names it"
    return "raw", (f"{os.path.basename(file.path)} is the data of a VMDK, read as raw: {where}",)


def _refuse_part(file: ImageFile, found: str | None) -> None:
    if found == "vmdk" and is_descriptor(read_at(file, HEAD, 0)):
        return
    descriptor = descriptor_of(file.path)
    hint = f"name {descriptor} instead" if descriptor else "name the small .vmdk that lists the extents"
    raise RefusedError(f"{file.path} is one part of a disk, not the disk", hint)


def _refuse_others(file: ImageFile, name: str) -> None:
    if is_machine(name):
        raise UsageError(f"{file.path} describes a machine; it is no disk image", "name one of its disks")
    head = read_at(file, 16, 0)
    if head.startswith(LUKS):
        raise RefusedError(f"{file.path} is encrypted (LUKS)", "decrypt it first; if a guest does that, say --source-format raw")
    for magic, what in OTHERS.items():
        if head.startswith(magic):
            raise DamagedError(f"{file.path} begins like {what}, which imgtool does not read",
                               "unpack or convert it first; if it is a raw disk, say --source-format raw")
