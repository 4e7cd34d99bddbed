"""Loop devices and file systems in files; all of it gone at the end, also when the test fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.oracle import tool


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[Path]:
    """A file as a block device. ``options``: of losetup, as ``--sector-size=4096``, ``--partscan``, ``--read-only``."""
    device = Path(tool("losetup", *options, "--find", "--show", path).stdout.strip())
    try:
        yield device
    finally:
        tool("losetup", "--detach", device)


@contextmanager
def mounted(place: Path, fs: str, size: int, options: str = "defaults") -> Iterator[Path]:
    """A new file system in a sparse file of that size, mounted."""
    image, point = place / f"{fs}.img", place / fs
    with image.open("wb") as file:
        file.truncate(size)
    tool(f"mkfs.{fs}", "-q", image)
    with mounted_image(image, point, fs, options):
        yield point
    image.unlink()


@contextmanager
def mounted_image(image: Path, point: Path, fs: str, options: str) -> Iterator[Path]:
    """A file system that is there already, for as long as the block lasts."""
    point.mkdir()
    with loop_device(image) as device:
        tool("mount", "-t", fs, "-o", options, device, point)
        try:
            yield point
        finally:
            tool("umount", point)
    point.rmdir()
