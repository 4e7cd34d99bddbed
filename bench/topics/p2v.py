"""A physical disk over ssh, a tenth of it used: what is read of it and what is sent, next to ``dd | ssh`` and to virt-v2v.

virt-v2v's way with a physical machine (virt-p2v) is the whole disk as NBD, forwarded by ssh; here nbdkit serves it. virt-v2v also
converts the guest, which takes most of its time; ``qemu-img convert`` of the same NBD only copies. Needs root: the disk is a loop
device. Bytes read are the device's own count, bytes sent are what the receiving end got.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.case import Table
from bench.guests import TCG
from bench.measure import GIB, MIB
from bench.physical import SIZE, disk, read_of
from bench.topics import Settings
from fixtures.sshd import Sshd, sshd
from imgtool.copying import receive
from imgtool.endpoints.metal import Metal
from imgtool.endpoints.uri import parse
from imgtool.model import ImageSpec
from imgtool.progress import Control

HEADER = ("by", "seconds", "MiB read", "MiB sent", "read / used", "sent / used")
MOST = 1.1
"""imgtool reads and sends at most so many times what is used."""
DOMAIN = """<domain type='qemu'><name>p2v</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='network' device='disk'>
<driver name='qemu' type='raw'/><source protocol='nbd'><host name='localhost' port='{port}'/></source>
<target dev='sda' bus='sata'/></disk></devices></domain>"""


def cases(settings: Settings) -> Iterator[Table]:
    with disk(settings.place) as (device, used), sshd(settings.place / "p2v.sshd") as server:
        out = settings.place / "p2v.out"
        ways: dict[str, Callable[[], int]] = {
            "imgtool": lambda: _ours(server, device, out),
            "dd, ssh": lambda: _piped(server, f"dd if={device} bs=1M status=none"),
            "dd, zstd, ssh": lambda: _piped(server, f"dd if={device} bs=1M status=none | zstd -1 -T0 -q"),
            "qemu-img convert, NBD, ssh": lambda: _served(server, device, lambda port: _converted(port, out)),
        }
        if shutil.which("virt-v2v"):
            ways["virt-v2v, NBD, ssh (converts, too)"] = lambda: _served(server, device, lambda port: _virt_v2v(port, out))
        rows = tuple(_row(name, way, device, used, out) for name, way in ways.items())
        kept = all(float(ratio) <= MOST for ratio in rows[0][-2:])
        yield Table(f"P2V over ssh on loopback: a disk of {SIZE // GIB} GiB with a Debian (ext4) and an XFS, "
                    f"{used // MIB} MiB in use. imgtool is to read and send at most {MOST} times that: "
                    f"{'kept' if kept else '**missed**'}.", HEADER, rows)


def _row(name: str, way: Callable[[], int], device: Path, used: int, out: Path) -> tuple[str, ...]:
    out.mkdir()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")
        began, before = time.monotonic(), read_of(device)
        sent = way()
        seconds, read = time.monotonic() - began, read_of(device) - before
    finally:
        shutil.rmtree(out)
    print(f"{name}: {seconds:.1f} s, read {read / used:.2f}, sent {sent / used:.2f} of what is used", file=sys.stderr)
    return name, f"{seconds:.1f}", f"{read // MIB}", f"{sent // MIB}", f"{read / used:.2f}", f"{sent / used:.2f}"


def _ours(server: Sshd, device: Path, out: Path) -> int:
    source, control = Metal(parse(server.uri("metal+ssh", str(device)))), Control()
    try:
        seen = source.look(source.machines()[0], control)
        with source.reader(seen, 0, control) as reader, receive.receiving(
                str(out / "disk"), size=reader.size, spec=ImageSpec(format="raw"), source=reader.state) as receiver:
            reader.fill(receiver, control)
            receiver.close_up()
            return int(reader.file.wire.received)
    finally:
        source.close()


def _ssh(server: Sshd, *words: str) -> list[str]:
    return ["ssh", "-T", "-p", str(server.port), "-i", str(server.folder / "user"),
            "-o", f"UserKnownHostsFile={server.folder}/known_hosts", *words]


def _piped(server: Sshd, command: str) -> int:
    count = 0
    with subprocess.Popen(_ssh(server, "root@127.0.0.1", command), stdout=subprocess.PIPE) as child:
        assert child.stdout
        while data := child.stdout.read(1 << 20):
            count += len(data)
    return count


def _served(server: Sshd, device: Path, use: Callable[[int], None]) -> int:
    """What came through ssh while the disk was used at that port: what its process has read."""
    there = server.folder / "nbd"
    there.unlink(missing_ok=True)  # nbdkit leaves it when it is ended
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with _running(["nbdkit", "--foreground", "--readonly", "--unix", str(there), "file", str(device)], there.exists), \
            _running(_ssh(server, "-N", "-L", f"127.0.0.1:{port}:{there}", "root@127.0.0.1"), lambda: _listens(port)) as ssh:
        use(port)
        found = Path(f"/proc/{ssh.pid}/io").read_text(encoding="ascii").split()
        return int(found[found.index("rchar:") + 1])


@contextmanager
def _running(argv: list[str], ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv) as child:
        try:
            end = time.monotonic() + 30
            while not ready():
                assert child.poll() is None, argv
                assert time.monotonic() < end, argv
                time.sleep(0.05)
            yield child
        finally:
            child.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _converted(port: int, out: Path) -> None:
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd://127.0.0.1:{port}", out / "disk"], check=True)


def _virt_v2v(port: int, out: Path) -> None:
    (out / "p2v.xml").write_text(DOMAIN.format(port=port), encoding="utf-8")
    subprocess.run(["virt-v2v", "--quiet", "-i", "libvirtxml", out / "p2v.xml", "-o", "local", "-os", out, "-of", "raw"],
                   check=True, env={**os.environ, **TCG}, stdout=subprocess.DEVNULL)
