"""Source images of each kind. All but raw are written by qemu-img: what others write is what we get to read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.descriptor import flat_descriptor
from bench.measure import ENVIRONMENT, ROOT, build
from bench.mounts import call
from bench.programs import KINDS, Source


@contextmanager
def raw(folder: Path, name: str, size: int, data: int, kind: str = "raw") -> Iterator[Source]:
    """A disk of ``size`` bytes with ``data`` bytes of data; gone at the end."""
    path = build(kind, folder / f"{name}.raw", size, data)
    yield from _used(Source(KINDS["raw"], path, (path,)))


@contextmanager
def repeated(part: Source, path: Path, times: int) -> Iterator[Source]:
    """A raw disk that is ``times`` times another, sharing its blocks. Needs xfs_io, and reflinks."""
    size = part.path.stat().st_size
    for number in range(times):
        call("xfs_io", "-f", "-c", f"reflink {part.path} 0 {number * size} {size}", path)
    yield from _used(Source(KINDS["raw"], path, (path,)))


@contextmanager
def fragmented(folder: Path, size: int, data: int) -> Iterator[Source]:
    """A qcow2 whose every cluster is another extent than its neighbour."""
    path = build("fragmented", folder / "fragmented.qcow2", size, data)
    yield from _used(Source(KINDS["qcow2"], path, (path,)))


@contextmanager
def debian(folder: Path, data: int = 0) -> Iterator[Source]:
    """A real Debian disk; from build/cache, if it was made before. Behind itself again until it has ``data`` bytes of data.

    Grains are compressed one by one, so that a second copy is as hard as the first.
    """
    path = folder / "debian.raw"
    subprocess.run([sys.executable, "-m", "fixtures.debian", path],
                   cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    status = path.stat()
    for number in range(1, -(-data // (status.st_blocks * 512))):
        again = f"seek={number * status.st_size}"
        call("dd", f"if={path}", f"of={path}", again, f"count={status.st_size}", "iflag=count_bytes", "oflag=seek_bytes", "bs=1M",
             "conv=sparse,notrunc")
        os.truncate(path, (number + 1) * status.st_size)
    yield from _used(Source(KINDS["raw"], path, (path,)))


@contextmanager
def as_kind(disk: Source, kind: str) -> Iterator[Source]:
    """The same disk as another kind of image, beside it. That of raw is itself; a flat one shares its file."""
    if kind == "raw":
        yield disk
        return
    stem = f"{disk.path.stem}-{'esxi' if kind == 'flat' else kind}"  # a name with -flat is that of an extent
    path = disk.path.with_name(f"{stem}.{KINDS[kind].suffix}")
    if kind == "flat":
        flat = path.with_name(f"{path.stem}-flat.vmdk")
        flat.hardlink_to(disk.path)
        flat_descriptor(path, flat)
        yield from _used(Source(KINDS[kind], path, (path, flat)))
        return
    call("qemu-img", "convert", "-f", disk.kind.format, *KINDS[kind].theirs, *KINDS[kind].variants[:2][-1], disk.path, path)
    call("sync", path)
    yield from _used(Source(KINDS[kind], path, (path,)))


def _used(source: Source) -> Iterator[Source]:
    try:
        yield source
    finally:
        source.remove()
