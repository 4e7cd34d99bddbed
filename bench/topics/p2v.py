"""A physical disk over ssh, a tenth of it used: what is read of it and what is sent, next to ``dd | ssh``.

Needs root: the disk is a loop device. Bytes read are the device's own count.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.case import Table
from bench.measure import GIB, MIB
from bench.mounts import call
from bench.topics import Settings
from fixtures.sshd import Sshd, sshd
from imgtool.copying import receive
from imgtool.endpoints.metal import Metal
from imgtool.endpoints.uri import parse
from imgtool.model import ImageSpec
from imgtool.progress import Control

SIZE = 20 * GIB
FILES, FILE = 32, 64 * MIB
HEADER = ("by", "seconds", "MiB read", "MiB sent", "read / used", "sent / used")


def cases(settings: Settings) -> Iterator[Table]:
    path, point = settings.place / "p2v.disk", settings.place / "p2v"
    point.mkdir()
    with path.open("wb") as file:
        file.truncate(SIZE)
    device = Path(call("losetup", "--find", "--show", path).strip())
    try:
        used = _filled(device, point)
        with sshd(settings.place / "p2v.sshd") as server:
            ways: dict[str, Callable[[], int]] = {
                "imgtool": lambda: _ours(server, device, settings.place / "p2v.copy"),
                "dd, ssh": lambda: _piped(server, f"dd if={device} bs=1M status=none"),
                "dd, zstd, ssh": lambda: _piped(server, f"dd if={device} bs=1M status=none | zstd -1 -T0 -q"),
            }
            rows = tuple(_row(name, way, device, used) for name, way in ways.items())
        yield Table(f"P2V over ssh on loopback: a disk of {SIZE // GIB} GiB, XFS, {used // MIB} MiB in use", HEADER, rows)
    finally:
        call("losetup", "--detach", device)
        path.unlink()


def _filled(device: Path, point: Path) -> int:
    """Bytes in use."""
    call("mkfs.xfs", "-q", device)
    call("mount", device, point)
    try:
        for number in range(FILES):
            (point / str(number)).write_bytes(os.urandom(FILE))
        os.sync()
        space = os.statvfs(point)
        return (space.f_blocks - space.f_bfree) * space.f_frsize
    finally:
        call("umount", point)


def _row(name: str, way: Callable[[], int], device: Path, used: int) -> tuple[str, ...]:
    Path("/proc/sys/vm/drop_caches").write_text("1")
    began, before = time.monotonic(), _read_of(device)
    sent = way()
    seconds, read = time.monotonic() - began, _read_of(device) - before
    return name, f"{seconds:.1f}", f"{read // MIB}", f"{sent // MIB}", f"{read / used:.2f}", f"{sent / used:.2f}"


def _read_of(device: Path) -> int:
    return int(Path(f"/sys/block/{device.name}/stat").read_text().split()[2]) * 512


def _ours(server: Sshd, device: Path, copy: Path) -> int:
    source, control = Metal(parse(server.uri("metal+ssh", str(device)))), Control()
    try:
        seen = source.look(source.machines()[0], control)
        with source.reader(seen, 0, control) as reader, receive.receiving(
                str(copy), size=reader.size, spec=ImageSpec(format="raw"), source=reader.state) as receiver:
            reader.fill(receiver, control)
            receiver.close_up()
            return int(reader.file.wire.received)
    finally:
        source.close()
        receive.discard(str(copy))


def _piped(server: Sshd, command: str) -> int:
    argv = ["ssh", "-T", "-p", str(server.port), "-i", str(server.folder / "user"),
            "-o", f"UserKnownHostsFile={server.folder}/known_hosts", "root@127.0.0.1", command]
    count = 0
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout
        while data := child.stdout.read(1 << 20):
            count += len(data)
    return count
