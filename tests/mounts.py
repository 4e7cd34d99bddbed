"""File systems of their own for a test: a small tmpfs, an ext4 in a file."""

from __future__ import annotations

import shutil
import subprocess
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
