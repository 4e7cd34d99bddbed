"""ISO images with drivers for Windows. An input begins with the first descriptor: before it stands nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from imgtool.guests.windows import iso, media
from tools.fuzz.target import Reader, Target

START = iso.FIRST * iso.SECTOR


def seeds(folder: Path) -> Iterator[bytes]:
    drivers, made = folder / "drivers", folder / "seed.iso"
    (drivers / "amd64/w11").mkdir(parents=True)
    for name in ("a.inf", "amd64/viostor.sys", "amd64/w11/Long Name Of A Driver.cat"):
        (drivers / name).write_bytes(b"driver")
    for words in (["-J", "-r"], []):
        subprocess.run(["xorrisofs", "-quiet", *words, "-o", made, drivers], check=True, capture_output=True)
        data = made.read_bytes()
        yield data[START:].rstrip(b"\0")


def reader(folder: Path) -> Reader:
    path = folder / "x.iso"

    def read(data: bytes) -> None:
        path.write_bytes(bytes(START) + data)
        for entry in media.entries(str(path))[:50]:
            assert not entry.name.startswith("/")
            if entry.size <= media.MAX_FILE:
                assert len(entry.read()) == entry.size, "a file behind the end"

    return read


TARGET = Target(seeds, reader, (b"CD001", *iso.ESCAPES, b"\x01CD001", b"\x02CD001", b"\xffCD001", b";1", b"\0.\0.", b"/"),
                largest=96 << 10)
