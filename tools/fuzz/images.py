"""What all image targets do with a disk: look, map, read; sometimes ask QEMU whether it reads the same."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable
from pathlib import Path

from imgtool.copying.batches import split
from imgtool.formats.disk import Disk, open_disk
from imgtool.formats.measure import describe, mapped
from imgtool.model import Kind

ITEMS = 5000
READ = 4 << 20
"""Bytes of a disk that are read."""
SMALL = 1 << 20
EACH = 200
"""Of so many disks that are read whole, one is read by QEMU, too: that takes as long as a hundred of them."""


def look(path: Path) -> None:
    with open_disk(str(path)) as disk:
        describe(disk)
        _map(disk)
        _read(disk)


class Compared:
    """``look``, and from time to time the same bytes from QEMU where it finds the image sound."""

    def __init__(self, fmt: str) -> None:
        self._format, self._left = fmt, EACH

    def __call__(self, path: Path) -> None:
        look(path)
        self._left -= 1
        if self._left <= 0:
            self._compare(path)

    def _compare(self, path: Path) -> None:
        with open_disk(str(path)) as disk:
            if disk.virtual_size > SMALL or len(disk.layers) > 1 or not disk.qemu_reads():
                return
            ours = b"".join(bytes(disk.read(one)) if one.kind == Kind.DATA else bytes(one.length) for one in disk.content())
        self._left = EACH
        if self._qemu("check", path) is None:
            return
        theirs = self._bytes(path)
        assert theirs is None or theirs[:len(ours)] == ours, "QEMU reads other bytes"

    def _bytes(self, path: Path) -> bytes | None:
        out = path.with_suffix(".by-qemu")
        said = self._qemu("convert", "-O", "raw", path, out)
        return None if said is None else out.read_bytes()

    def _qemu(self, verb: str, *words: object) -> bytes | None:
        """None where it finds something wrong."""
        argv = ["qemu-img", verb, "-f", self._format, *map(str, words)]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
        return done.stdout if done.returncode == 0 else None


def _map(disk: Disk) -> None:
    end, rest = 0, mapped(disk)
    for one in itertools.islice(rest, ITEMS):
        assert one.start == end, "a gap or an overlap in the map"
        assert one.length > 0, "an empty piece in the map"
        end = one.start + one.length
    assert end == disk.virtual_size or next(rest, None), "the map ends before the disk"


def _read(disk: Disk) -> None:
    read = 0
    for extent in itertools.islice(split(disk.content()), ITEMS):
        if extent.kind == Kind.DATA:
            assert len(disk.read(extent)) == extent.length, "a short read"
            read += extent.length
        if read > READ:
            break


def by_qemu(folder: Path, raw: Path, options: Iterable[str], suffix: str) -> bytes:
    """A raw file as qemu-img converts it."""
    path = folder / f"seed{suffix}"
    subprocess.run(["qemu-img", "convert", "-f", "raw", *options, raw, path], check=True, capture_output=True)
    data = path.read_bytes()
    path.unlink()
    return data
