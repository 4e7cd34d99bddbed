"""File systems of their own for a test: a small tmpfs, an ext4 in a file."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def need(tool: str) -> str:
    """The path of a tool; the test fails without it."""
    path = shutil.which(tool, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert path, f"{tool} is not installed; run: make setup"
    return path


def call(*argv: object) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def unmount(where: Path, seconds: float = 20) -> None:
    """What was killed a moment ago may still have it open."""
    end = time.monotonic() + seconds
    while subprocess.run([need("umount"), where], capture_output=True, check=False).returncode:
        assert time.monotonic() < end, f"{where} is still in use"
        time.sleep(0.1)


@contextmanager
def mounted(where: Path, *options: object) -> Iterator[Path]:
    where.mkdir()
    call(need("mount"), *options, where)
    try:
        yield where
    finally:
        call(need("umount"), where)


def tmpfs(where: Path, size: int) -> Iterator[Path]:
    with mounted(where, "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as path:
        yield path


def ext4(where: Path, size: int) -> Iterator[Path]:
    image = where.with_suffix(".ext4")
    with image.open("wb") as file:
        file.truncate(size)
    call(need("mkfs.ext4"), "-q", "-F", "-b", 4096, image)
    with mounted(where, "-o", "loop", image) as path:
        yield path
