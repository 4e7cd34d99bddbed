"""The manifest of an OVF package: one line ``SHA256(name)= digest`` a file. Source: DMTF DSP0243, section 5.1."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from imgtool.errors import DifferError
from imgtool.formats.opener import Opener
from imgtool.model import ImageFile
from imgtool.model.package import Packed
from imgtool.ova.read import Package, pick
from imgtool.progress import Bar, Control

LINE = re.compile(r"\s*(SHA-?1|SHA-?256|SHA-?512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]{40,128})\s*")
PIECE = 1 << 20


class Digest(NamedTuple):
    """One line of a manifest."""

    algorithm: str
    """As hashlib names it."""
    name: str
    digest: str
    """Lower case."""


def parse_manifest(raw: bytes) -> tuple[list[Digest], list[str]]:
    """The digests, each once, since each costs a reading of its file; and the lines that are none."""
    found: list[Digest] = []
    odd: list[str] = []
    for line in raw.decode("utf-8", "surrogateescape").lstrip("\ufeff").splitlines():
        if match := LINE.fullmatch(line):
            algorithm = match[1].lower().replace("-", "")
            if hashlib.new(algorithm).digest_size * 2 == len(match[3]):
                found.append(Digest(algorithm, os.path.normpath(match[2]), match[3].lower()))
                continue
        if line.strip():
            odd.append(line)
    return list(dict.fromkeys(found)), odd


def render_manifest(files: Iterable[Packed]) -> bytes:
    """SHA256, as VMware's ovftool writes it since 4.0."""
    return "".join(f"SHA256({file.name})= {file.sha256}\n" for file in files).encode()


def check_manifest(package: Package, control: Control) -> tuple[str, ...]:
    """Reads each file that the manifest names, once; warnings. Raises DifferError, StoppedError."""
    if package.manifest is None:
        return (f"{package.path} has no manifest: whether its files are whole is not known",)
    digests, odd = parse_manifest(package.manifest)
    warnings = [f"the manifest of {package.path} has a line that is no checksum: {line[:80]!r}" for line in odd[:5]]
    with closing(Opener()) as opener:
        files = dict(_files(package, [one.name for one in digests], opener))
        with control.progress.bar(sum(file.size for file in files.values()), "manifest") as bar:
            for one in digests:
                if one.name not in files:
                    warnings.append(f"the manifest of {package.path} names {one.name!r}, which is not there")
                elif digest(files[one.name], one.algorithm, control, bar) != one.digest:
                    raise DifferError(f"{package.path}: {one.name!r} is not what the manifest says ({one.algorithm.upper()})",
                                      "it was changed or damaged on its way: fetch it again")
    unnamed = _unnamed(package, {one.name for one in digests})
    return (*warnings, *(f"the manifest of {package.path} says nothing of {name!r}" for name in unnamed))


def _unnamed(package: Package, named: set[str]) -> list[str]:
    """What should be in the manifest: of an archive all files, of a folder, in which others may lie, those that the OVF names."""
    if package.members is not None:
        names = [member.name for member in package.members if not member.name.endswith((".mf", ".cert"))]
        return [name for name in names if name not in named]
    from imgtool.descriptions import ovf  # with lxml: for packages only

    names = [package.name, *(reference.href for reference in ovf.files(package.text))]
    return [name for name in names if not pick(name, list(named))]


def _files(package: Package, names: list[str], opener: Opener) -> Iterator[tuple[str, ImageFile]]:
    if package.members is not None:
        wanted = set(names)
        yield from ((member.name, opener.member(package.path, member)) for member in package.members if member.name in wanted)
        return
    described = opener.user(package.path)
    for name in names:
        if os.path.isfile(os.path.join(os.path.dirname(package.path), name)):
            yield name, opener.named(name, described)


def digest(file: ImageFile, algorithm: str, control: Control, bar: Bar) -> str:
    """Of a file, or of a range of an archive; lower case, hexadecimal. Raises StoppedError."""
    summed = hashlib.new(algorithm, usedforsecurity=False)
    for at in range(0, file.size, PIECE):
        control.stop.check()
        data = os.pread(file.fd, min(PIECE, file.size - at), file.base + at)
        summed.update(data)
        bar.update(len(data))
    return summed.hexdigest()
