"""A physical disk for the benchmarks: a loop device with a Debian on it, a tenth of it in use. Needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import GIB, MIB
from bench.mounts import call
from fixtures import debian_guests
from fixtures.debian_guests import Guest

SIZE = 20 * GIB
FILES, FILE = 24, 64 * MIB
GUEST, ROOT = Guest("metal", layout="gpt", network="networkd", stable=True), 2
"""Before its root there is GRUB's partition."""


@contextmanager
def disk(place: Path) -> Iterator[tuple[Path, int]]:
    """(device, bytes in use): the guest's partitions, and behind them an XFS with files that do not pack."""
    path = debian_guests.build(place / "physical.disk", GUEST).path
    os.truncate(path, SIZE)
    call("sgdisk", "--move-second-header", "--new=9:0:0", path)
    device = Path(call("losetup", "--find", "--show", path).strip())
    try:
        call("partx", "-a", device)
        yield device, _filled(device, place / "physical")
    finally:
        call("partx", "-d", device)
        call("losetup", "--detach", device)
        path.unlink()


def _filled(device: Path, point: Path) -> int:
    point.mkdir()
    last = f"{device}p9"
    call("mkfs.xfs", "-q", last)
    call("mount", last, point)
    try:
        for number in range(FILES):
            (point / str(number)).write_bytes(os.urandom(FILE))
    finally:
        call("umount", point)
    return sum(_used(Path(one), point) for one in (f"{device}p{ROOT}", last))


def _used(partition: Path, point: Path) -> int:
    """By the file system's own account."""
    call("mount", "-o", "ro", partition, point)
    try:
        space = os.statvfs(point)
        return (space.f_blocks - space.f_bfree) * space.f_frsize
    finally:
        call("umount", point)


def read_of(device: Path) -> int:
    """Bytes that were read of it: Documentation/admin-guide/iostats, sectors of 512 bytes."""
    return int(Path(f"/sys/block/{device.name}/stat").read_text(encoding="ascii").split()[2]) * 512
