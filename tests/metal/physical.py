"""Loop devices as physical disks, images for them, and what was written to them, counted by the kernel."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.loops import loop_device
from tests.metal.tables import MIB, gpt
from tests.program import ENVIRONMENT, imgtool

SIZE = 64 * MIB


@contextmanager
def physical(place: Path, size: int, *options: str, name: str = "physical", full: bool = True) -> Iterator[Path]:
    """A disk, ``full`` of what somebody had on it before."""
    file = place / name
    if not file.exists():
        with file.open("wb") as new:
            old = random.Random(9).randbytes(MIB)
            new.truncate(size)
            for start in range(0, size if full else 0, MIB):
                new.write(old[:min(MIB, size - start)])
            new.seek(0)
            new.write(bytes(MIB))
    with loop_device(file, *options) as device:
        yield device


def image(place: Path, name: str = "image.raw", size: int = SIZE) -> Path:
    """Two partitions with data, holes, and written zeros."""
    disk = gpt(place / name, size, "2048:+10M", "0:+30M")
    rand = random.Random(5)
    with disk.open("r+b") as file:
        for start, length in ((MIB, 3 * MIB), (9 * MIB + 4096, 70000), (12 * MIB, 13 * MIB + 512), (40 * MIB, MIB)):
            file.seek(start)
            file.write(rand.randbytes(length))
        file.seek(30 * MIB)
        file.write(bytes(2 * MIB))
    return disk


def serial(device: Path) -> str:
    """What is typed for a loop device: its file."""
    return Path(f"/sys/block/{device.name}/loop/backing_file").read_text().strip()


def v2p(source: object, device: Path, *words: object, yes: bool = True,
        **options: Any) -> subprocess.CompletedProcess[str]:
    said = ["--yes-write-to", serial(device)] if yes else []
    return imgtool("v2p", source, "--disk", f"0={device}", "--no-adapt", *said, *words, **options)


def written(device: Path) -> int:
    """Bytes that were written to a disk since it is there: Documentation/admin-guide/iostats, sectors of 512 bytes."""
    return int(Path(f"/sys/block/{device.name}/stat").read_text().split()[6]) * 512


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def has(device: Path, source: Path, *, but_tables: bool = True) -> None:
    """The disk has the image's bytes; ``but_tables``: the protective MBR and the GPT are its own."""
    want = source.read_bytes()
    with device.open("rb") as file:
        got = file.read(len(want))
    low, high = (34 * 512, min(len(got), len(want)) - 33 * 512) if but_tables else (0, len(want))
    assert got[low:high] == want[low:high]


QUICK = """
import sys
from imgtool.copying import receive
receive.SAVE_SECONDS, receive.SAVE_BYTES = 0.1, 1 << 20
from imgtool.__main__ import main
sys.argv = ["imgtool", *sys.argv[1:]]
main()
"""


def started(source: object, device: Path, *words: object) -> subprocess.Popen[str]:
    """A run in the background, which remembers often what it has done."""
    argv = [sys.executable, "-c", QUICK, "v2p", source, "--disk", f"0={device}", "--no-adapt", "--yes-write-to", serial(device),
            *words]
    return subprocess.Popen([*map(str, argv)], env={**ENVIRONMENT, **{key: os.environ[key] for key in ("IMGTOOL_STATE",)}},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
