"""What is in an OVA, and in a folder with a ``.ovf``: names and places, without unpacking anything.

The archive comes from a stranger. ``tarfile`` reads its headers through ``_Headers``, which bounds what it may read; its members
are never extracted.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO, cast
from urllib.parse import unquote

from imgtool.errors import DamagedError, RefusedError
from imgtool.formats.opener import Opener
from imgtool.model import ImageFile
from imgtool.model.package import Member

MAX_TEXT = 16 << 20
"""Bytes of a description or a manifest."""
MAX_MEMBERS = 10_000
MAX_HEADERS = 32 << 20
"""Bytes of tar headers, long names included."""
BLOCK = 512
CHUNK_NAME = re.compile(r"\.(\d{9})")


@dataclass(frozen=True, kw_only=True)
class Package:
    """An OVF package, as ``read_ova`` and ``read_ovf`` found it."""

    path: str
    """Of the ``.ova`` or the ``.ovf``."""
    name: str
    """Of the description in it: ``vm.ovf``."""
    text: bytes
    """The description."""
    manifest: bytes | None = None
    members: tuple[Member, ...] | None = None
    """All files of an archive, in its order; None for a folder."""
    warnings: tuple[str, ...] = ()


def read_ova(path: str) -> Package:
    """The description and the members of an archive.

    Raises UsageError (no such file), DamagedError (no tar, no or several descriptions, cut off), RefusedError (a name that leads
    out of the archive, or that is there twice; links, devices).
    """
    with closing(Opener()) as opener:
        archive = opener.user(path)
        members = tuple(_members(archive))
        described = _only_description(path, [member.name for member in members])
        by_name = {member.name: member for member in members}
        manifest = by_name.get(_beside(described, ".mf"))
        return Package(
            path=path, name=described, text=_text(archive, by_name[described]), members=members,
            manifest=_text(archive, manifest) if manifest else None,
            warnings=tuple(_certificate_warning(path, _beside(described, ".cert") in by_name)))


def read_ovf(path: str) -> Package:
    """A description in a folder, and its manifest. Raises UsageError, DamagedError."""
    with closing(Opener()) as opener:
        file = opener.user(path)
        text = _text(file, Member(os.path.basename(path), 0, file.size))
        manifest = None
        if os.path.isfile(beside := _beside(path, ".mf")):
            listed = opener.named(os.path.basename(beside), file)
            manifest = _text(listed, Member(os.path.basename(beside), 0, listed.size))
    certificate = os.path.isfile(_beside(path, ".cert"))
    return Package(path=path, name=os.path.basename(path), text=text, manifest=manifest,
                   warnings=tuple(_certificate_warning(path, certificate)))


def find(package: Package, href: str) -> Member:
    """The member of an archive that a reference means. Raises DamagedError.

    Where it is missing, the piece with the highest number (``href.000000000``) stands for it: VMware names disks so that had
    snapshots.
    """
    by_name = {member.name: member for member in package.members or ()}
    name = pick(href, by_name)
    if name is None:
        raise DamagedError(f"{package.path} has no {href!r}, which its description names", "export the machine again")
    return by_name[name]


def pick(href: str, names: dict[str, Member] | list[str]) -> str | None:
    """Which of ``names`` an href means, as it is or with ``%20`` and the like undone; None where there is none."""
    for wanted in (os.path.normpath(href), os.path.normpath(unquote(href))):
        if wanted in names:
            return wanted
        pieces = [name for name in names if name.startswith(wanted) and CHUNK_NAME.fullmatch(name, len(wanted))]
        if pieces:
            return max(pieces)
    return None


def _beside(path: str, suffix: str) -> str:
    return os.path.splitext(path)[0] + suffix


def _certificate_warning(path: str, there: bool) -> Iterator[str]:
    if there:
        yield f"{path} is signed: its certificate is not checked"


def _only_description(path: str, names: list[str]) -> str:
    found = [name for name in names if name.lower().endswith(".ovf")]
    if not found:
        raise DamagedError(f"{path} has no .ovf in it", "an OVA is a tar archive with a description")
    if len(found) > 1:
        raise DamagedError(f"{path} has {len(found)} descriptions: {', '.join(map(repr, found[:5]))}",
                           "an OVA has one .ovf: unpack it")
    return found[0]


def _text(file: ImageFile, member: Member) -> bytes:
    if member.size > MAX_TEXT:
        raise DamagedError(f"{file.path}: {member.name!r} has {member.size} bytes, more than {MAX_TEXT}")
    return os.pread(file.fd, member.size, member.offset)


class _Headers:
    """The archive as ``tarfile`` sees it: whoever asks for more than headers is led by a hostile one."""

    def __init__(self, file: ImageFile) -> None:
        self._file, self._at, self._left = file, 0, MAX_HEADERS

    def read(self, count: int) -> bytes:
        self._left -= count
        if count < 0 or self._left < 0:
            raise DamagedError(f"{self._file.path}: the tar headers are larger than any archive's")
        data = os.pread(self._file.fd, count, self._at) if self._at < self._file.size else b""
        self._at += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset < 0:
            raise DamagedError(f"{self._file.path}: a member has a negative size")
        self._at = offset

    def tell(self) -> int:
        return self._at


def _members(file: ImageFile) -> Iterator[Member]:
    """The files of an archive in their order; folders and what macOS adds (``._x``) are left out."""
    seen: set[str] = set()
    for info in _infos(file):
        name = _name(file, info)
        if info.isdir() or os.path.basename(name).startswith("._"):
            continue
        if not info.isreg() or info.sparse is not None:
            raise RefusedError(f"{file.path}: {name!r} is no plain file (a link, a device, sparse)",
                               "an OVA has plain files only")
        if name in seen:
            raise RefusedError(f"{file.path} has {name!r} twice: it is not known which one counts")
        if info.size < 0 or info.offset_data + info.size > file.size:
            raise DamagedError(f"{file.path}: {name!r} reaches beyond the end of the archive", "the archive may be cut off")
        seen.add(name)
        yield Member(name, info.offset_data, info.size)


def _name(file: ImageFile, info: tarfile.TarInfo) -> str:
    """Raises RefusedError where the name leads out of the archive."""
    name = os.path.normpath(info.name)
    if os.path.isabs(name) or name.split("/")[0] == ".." or "\0" in name:
        raise RefusedError(f"{file.path}: the name {info.name!r} leads out of the archive", "do not unpack it")
    return name


def _infos(file: ImageFile) -> Iterator[tarfile.TarInfo]:
    """The headers. What ends the archive must be its end: zeros, or nothing."""
    try:
        headers = cast("IO[bytes]", _Headers(file))
        archive = tarfile.open(fileobj=headers, mode="r:", encoding="utf-8")  # noqa: SIM115 - it owns no file
        for count, info in enumerate(iter(archive.next, None)):
            if count >= MAX_MEMBERS:
                raise DamagedError(f"{file.path} has more than {MAX_MEMBERS} members")
            yield info
    except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise DamagedError(f"{file.path} is no sound tar archive: {error}",
                           "an OVA is a plain tar archive: if it is packed, unpack it") from error
    last = os.pread(file.fd, BLOCK, archive.offset)
    if last.strip(b"\0"):
        raise DamagedError(f"{file.path}: there is no tar header at byte {archive.offset}", "compare the archive's checksum")
