"""Writes an OVF package: an OVA as one stream into its place, or the description and manifest beside finished disks.

An OVA begins with the description and the manifest (DSP0243, section 5.3: then the files in the order of the References), but
both speak of the disks. So room is left for them, and filled at the end; what the description does not need of it is blank lines.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from imgtool import storage
from imgtool.errors import UsageError
from imgtool.formats.target import create
from imgtool.model.package import Packed
from imgtool.ova.manifest import render_manifest

BLOCK = 512
MAX_NAME = 100
"""Bytes of a name in a plain tar header."""
RECORD = 20 * BLOCK
"""An archive is a multiple of this."""
MAX_PLAIN = 8 << 30
"""Bytes from which on a tar header needs GNU's binary form of the size."""
MODE = 0o644
DIGEST = "0" * 64
SIZE_ROOM = 64
"""Bytes that the size of a file takes in a description, at most."""


class OvaWriter:
    """A new archive ``name`` in ``folder`` (a workspace). ``add`` the disks in the order of ``disks``, then ``finish``.

    ``stem``: name of the description without ``.ovf``. ``room``: its bytes, before ``ovf.sized`` puts the sizes of the disks in.
    """

    def __init__(self, folder: str, name: str, *, stem: str, room: int, disks: Sequence[str]) -> None:
        self._name, self._disks, self._packed = name, list(disks), list[Packed]()
        self._described, self._manifest = f"{stem}.ovf", f"{stem}.mf"
        for one in (self._described, self._manifest, *disks):
            _check_name(one)
        self._room = _padded(room + SIZE_ROOM * len(disks))
        self._listed = len(self._render_manifest(DIGEST, [Packed(name=disk, size=0, sha256=DIGEST) for disk in disks]))
        self._at = BLOCK + self._room + BLOCK + _padded(self._listed)
        self._fd = create(folder, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)

    def add(self, name: str, pieces: Iterable[bytes]) -> Packed:
        """Writes the next disk, as its bytes come. Raises NoSpaceError, and what ``pieces`` raises."""
        if name != self._disks[len(self._packed)]:
            raise UsageError(f"{name!r} is not the next file of {self._name}")
        summed, first = hashlib.sha256(usedforsecurity=False), self._at + BLOCK
        at = first
        try:
            for piece in pieces:
                storage.write_all(self._fd, piece, at)
                summed.update(piece)
                at += len(piece)
            storage.write_all(self._fd, _header(name, at - first), self._at)
        except OSError as error:
            storage.raise_os(error, f"writing {self._name}")
        self._at = first + _padded(at - first)
        self._packed.append(Packed(name=name, size=at - first, sha256=summed.hexdigest()))
        return self._packed[-1]

    def finish(self, text: bytes) -> tuple[Packed, ...]:
        """Writes description and manifest to the front; all files, in their order. Raises NoSpaceError."""
        if len(text) > self._room or len(self._packed) < len(self._disks):
            raise UsageError(f"{self._name}: the description has {len(text)} bytes, more than the {self._room} left for it; "
                             f"or a disk is missing")
        text = text.ljust(self._room - BLOCK + 1, b"\n") if _padded(len(text)) < self._room else text
        described = Packed(name=self._described, size=len(text), sha256=hashlib.sha256(text).hexdigest())
        listed = self._render_manifest(described.sha256, self._packed)
        try:
            storage.write_all(self._fd, _header(self._described, len(text)) + text, 0)
            storage.write_all(self._fd, _header(self._manifest, len(listed)) + listed, BLOCK + self._room)
            os.ftruncate(self._fd, -(-(self._at + 2 * BLOCK) // RECORD) * RECORD)
        except OSError as error:
            storage.raise_os(error, f"writing {self._name}")
        return described, Packed(name=self._manifest, size=len(listed), sha256=hashlib.sha256(listed).hexdigest()), *self._packed

    def _render_manifest(self, described: str, disks: Sequence[Packed]) -> bytes:
        return render_manifest([Packed(name=self._described, size=0, sha256=described), *disks])


def _check_name(name: str) -> None:
    """Raises UsageError for what a manifest or a tar header cannot hold."""
    raw = os.fsencode(name)
    if len(raw) > MAX_NAME or "/" in name or not name.isprintable() or name in ("", ".", ".."):
        raise UsageError(f"{name!r} cannot be the name of a file in an OVA",
                         f"at most {MAX_NAME} bytes, no control characters, no /")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _header(name: str, size: int) -> bytes:
    """POSIX ustar, as DSP0243 wants it, as long as it can say the size."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, MODE
    return info.tobuf(tarfile.USTAR_FORMAT if size < MAX_PLAIN else tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
