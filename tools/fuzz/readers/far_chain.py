"""What qemu-img at a far libvirt host says of a disk's chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from imgtool.endpoints import uri
from imgtool.endpoints.far import nbd, tunnel
from imgtool.endpoints.libvirt import far
from imgtool.endpoints.libvirt.disks import Behind
from imgtool.progress import Stop
from tools.fuzz.target import Reader, Target

IMAGES = "/var/lib/libvirt/images"
CHAIN = [{"filename": f"{IMAGES}/a.qcow2", "format": "qcow2", "backing-filename": "b.raw", "backing-filename-format": "raw"},
         {"filename": f"{IMAGES}/b.raw", "format": "raw"}]


def seeds(folder: Path) -> Iterator[bytes]:
    yield json.dumps(CHAIN).encode()
    yield json.dumps(CHAIN[1:]).encode()


def reader(folder: Path) -> Reader:
    host = uri.parse("qemu+ssh://root@kvm1/system")
    behind = Behind(name="a.qcow2", device="vda", path=f"{IMAGES}/a.qcow2", format="qcow2", kind="qcow2")

    def read(data: bytes) -> None:
        tunnel.run = lambda *_words, **_options: data.decode("utf-8", "surrogateescape")
        found = far.chain(host, behind, [IMAGES], Stop())
        if found[0][0] == behind.path:
            assert all(path.startswith(f"{IMAGES}/") for path, _ in found[1:]), "a file outside of the pools"
        nbd.graph(found, block=False)

    return read


TARGET = Target(seeds, reader, largest=2048, words=(
    b'"filename": ', b'"format": ', b'"backing-filename": ', b'"encrypted": true', b"null", b"[]", b"{}", b"\\u0000", b"../",
    b"[[[["))
