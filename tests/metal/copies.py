"""Loop devices as the disks of a physical machine, and copies of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgtool.copying import receive
from imgtool.copying.receive import Receiver
from imgtool.endpoints.metal import Metal
from imgtool.endpoints.metal.reader import MetalReader
from imgtool.model import ImageSpec
from imgtool.model.endpoint import Uri
from imgtool.model.metal import Reading
from imgtool.progress import Control
from tests.oracle import tool

CONTROL = Control()


@contextmanager
def disk(path: Path, *, sector: int = 512, direct: bool = False) -> Iterator[Path]:
    """A file as a disk of the machine, with the nodes of its partitions. ``direct``: past the page cache of what it lies on."""
    words = ["--direct-io=on"] if direct else []
    device = Path(tool("losetup", "--find", "--show", *words, "--sector-size", sector, path).stdout.strip())
    try:
        tool("partx", "-a", device, ok=(0, 1))
        yield device
    finally:
        tool("partx", "-d", device, ok=(0, 1))
        tool("losetup", "--detach", device)


@contextmanager
def metal(*devices: Path, reading: Reading | None = None, uri: Uri | None = None) -> Iterator[Metal]:
    """This machine, of which only these disks are seen; ``uri``: the way to it."""
    made = Metal(uri or Uri(scheme="metal", path=",".join(str(device).lstrip("/") for device in devices)), CONTROL.stop)
    made.reading = reading or Reading()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def copying(device: Path, copy: Path, *, reading: Reading | None = None,
            uri: Uri | None = None) -> Iterator[tuple[MetalReader, Receiver]]:
    """A copy of a disk, begun or gone on with: raw, under its temporary name."""
    with metal(device, reading=reading, uri=uri) as source:
        seen = source.look(source.machines()[0], CONTROL)
        with source.reader(seen, 0, CONTROL) as reader, \
                receive.receiving(str(copy), size=reader.size, spec=ImageSpec(format="raw"), source=reader.state) as receiver:
            yield reader, receiver


def copied(device: Path, copy: Path, *, reading: Reading | None = None, uri: Uri | None = None) -> MetalReader:
    """A whole copy under its own name; what was read."""
    with copying(device, copy, reading=reading, uri=uri) as (reader, receiver):
        reader.fill(receiver, CONTROL)
        receiver.close_up()
    publish(copy)
    return reader


def publish(copy: Path) -> None:
    receive.settle(str(copy))
    receive.publish(str(copy))
    receive.forget(str(copy))


@contextmanager
def mounted_on(device: Path, point: Path) -> Iterator[Path]:
    point.mkdir()
    tool("mount", device, point)
    try:
        yield point
    finally:
        until = time.monotonic() + 10
        while tool("umount", point, ok=(0, 32)).returncode and time.monotonic() < until:
            time.sleep(0.1)  # who held it has been killed, and is not quite gone
        assert not point.is_mount()
