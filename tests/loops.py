"""Loop devices and file systems in files; all of it gone at the end, also when the test fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.oracle import tool


@contextmanager
def loop_device(path: Path, *options: str, sector: int = 512) -> Iterator[Path]:
    """A file as a block device. ``options``: of losetup, as ``--partscan``, ``--read-only``."""
    words = [f"--sector-size={sector}", *options] if sector != 512 else [*options]
    device = Path(tool("losetup", *words, "--find", "--show", path).stdout.strip())
    try:
        yield device
    finally:
        tool("losetup", "--detach", device)


@contextmanager
def loop_device_at(device: Path, path: Path, seconds: float = 120) -> Iterator[None]:
    """The same, of that name; another test may have taken it since, and gives it back."""
    end = time.monotonic() + seconds
    while tool("losetup", device, path, ok=(0, 1)).returncode:
        assert time.monotonic() < end, f"{device} is still in use"
        time.sleep(0.1)
    try:
        yield
    finally:
        tool("losetup", "--detach", device)


@contextmanager
def mounted(place: Path, fs: str, size: int, options: str = "defaults", sector: int = 512) -> Iterator[Path]:
    """A new file system in a sparse file of that size, mounted."""
    image, point = place / f"{fs}.img", place / fs
    with image.open("wb") as file:
        file.truncate(size)
    tool(f"mkfs.{fs}", "-q", *(("-b", sector) if sector > 512 else ()), image)
    with mounted_image(image, point, fs, options, sector):
        yield point
    image.unlink()


@contextmanager
def mounted_image(image: Path, point: Path, fs: str, options: str, sector: int = 512) -> Iterator[Path]:
    """A file system that is there already, for as long as the block lasts."""
    point.mkdir()
    with loop_device(image, sector=sector) as device:
        tool("mount", "-t", fs, "-o", options, device, point)
        try:
            yield point
        finally:
            tool("umount", point)
    point.rmdir()
