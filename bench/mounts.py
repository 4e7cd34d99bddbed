"""File systems in loop files, gone at the end however it comes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q")}
PATIENCE = 10
"""Seconds in which a program that was stopped lets go of its files."""


def call(*argv: object) -> str:
    """Standard output. Fails as the program does."""
    if not shutil.which(str(argv[0])):
        raise RuntimeError(f"{argv[0]} is not installed; run: make setup")
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def mounted(place: Path, fs: str, size: int) -> Iterator[Path]:
    """A new file system in a sparse file of ``size`` bytes. Needs root.

    The device reads and writes past the outer page cache: else each byte would be cached twice, and a flush of the inner file
    system would wait for what others wrote.
    """
    image, point = place / f"{fs}.img", place / fs
    with image.open("wb") as file:
        file.truncate(size)
    point.mkdir()
    try:
        call(*MKFS[fs], image)
        device = call("losetup", "--find", "--show", "--direct-io=on", image).strip()
        try:
            call("mount", "-t", fs, device, point)
        finally:
            call("losetup", "--detach", device)  # the kernel detaches it when it is unmounted
        try:
            yield point
        finally:
            unmount(point)
    finally:
        point.rmdir()
        image.unlink()


def unmount(point: Path) -> None:
    """Also with a program on it that has just been told to end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            call("umount", point)
        except RuntimeError:
            if time.monotonic() > deadline:
                call("umount", "--lazy", point)
                raise
            time.sleep(0.2)
        else:
            return
