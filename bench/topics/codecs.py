"""Speed and size of the levels of imgtool.codec, on grains of a real Debian disk, one core; zlib 6 is what qemu-img does.

    python -m bench.topics.codecs DISK BYTES     prints a JSON list of rows: in a process of its own, as its memory counts there
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.case import Table
from bench.measure import ENVIRONMENT, MIB
from bench.sources import debian
from bench.topics import Settings

GRAIN = 64 << 10
SAMPLE = 64 * MIB
Row = tuple[str, str, str, str]


def cases(settings: Settings) -> Iterator[Table]:
    sample = min(SAMPLE, settings.data)
    with debian(settings.place) as disk:
        done = subprocess.run([sys.executable, "-m", "bench.topics.codecs", disk.path, str(sample)], env=ENVIRONMENT, check=True,
                              capture_output=True, text=True)
    rows = tuple(tuple(row) for row in json.loads(done.stdout))
    yield Table(f"{sample >> 20} MiB of a Debian disk in grains of 64 KiB without those of zeros, one core.",
                ("codec", "MB/s", "size", "inflate MB/s"), rows)


def measure(disk: Path, size: int) -> Iterator[Row]:
    from imgtool import codec

    grains = list(_grains(disk, size))
    yield _row("zlib 6 (as qemu-img)", grains, partial(zlib.compress, level=6), zlib.decompress)
    for level in range(1, 10):
        yield _row(f"deflate, level {level}", grains, partial(codec.deflate_zlib, level=level),
                   partial(codec.inflate, size=GRAIN))
    for level in range(1, 10):
        yield _row(f"deflate for qcow2 (window of 4 KiB), level {level}", grains, partial(codec.deflate_window, level=level),
                   partial(codec.inflate, size=GRAIN, bare=True))
    for level in (1, 3, 6, 9):
        yield _row(f"zstd, level {level}", grains, partial(codec.zstd, level=level), partial(codec.unzstd, size=GRAIN))


def _grains(disk: Path, size: int) -> Iterator[bytes]:
    """From the whole disk, evenly: the first part of one is mostly the kernel."""
    zeros = bytes(GRAIN)
    found = range(0, disk.stat().st_size, GRAIN)
    with disk.open("rb") as file:
        full = [at for at in found if _read(file, at) != zeros]
        step = max(1, len(full) * GRAIN // size)
        for at in full[::step][:size // GRAIN]:
            yield _read(file, at)


def _read(file, at: int) -> bytes:  # type: ignore[no-untyped-def]
    file.seek(at)
    return bytes(file.read(GRAIN))


def _row(name: str, grains: list[bytes], pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]) -> Row:
    began = time.perf_counter()
    packed = [pack(grain) for grain in grains]
    middle = time.perf_counter()
    same = [unpack(each) for each in packed] == grains
    ended = time.perf_counter()
    assert same, name
    total = sum(map(len, grains))
    return (name, f"{total / (middle - began) / 1e6:.0f}", f"{sum(map(len, packed)) / total:.3f}",
            f"{total / (ended - middle) / 1e6:.0f}")


if __name__ == "__main__":
    print(json.dumps(list(measure(Path(sys.argv[1]), int(sys.argv[2])))))
