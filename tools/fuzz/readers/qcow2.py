"""qcow2: header, extensions, snapshots, L1 and L2 tables, subclusters, compressed clusters."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fixtures.patterns import write_raw
from tools.fuzz.images import Compared, by_qemu
from tools.fuzz.target import Reader, Target

CONTENT = "4k:A 2k:- 8k:a 16k:- 2k:0 512:B 31k:- 512:C"
KINDS = (
    "cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=4k", "extended_l2=on,cluster_size=16k",
    "cluster_size=512,refcount_bits=1", "cluster_size=1k,lazy_refcounts=on",
)


def seeds(folder: Path) -> Iterator[bytes]:
    raw = write_raw(folder / "raw", CONTENT)
    for kind in KINDS:
        yield by_qemu(folder, raw, ["-O", "qcow2", "-o", kind], ".qcow2")
    for kind in ("cluster_size=512", "cluster_size=4k,compression_type=zstd"):
        yield by_qemu(folder, raw, ["-O", "qcow2", "-c", "-o", kind], ".qcow2")
    yield _changed(folder, by_qemu(folder, raw, ["-O", "qcow2", "-o", "cluster_size=512"], ".qcow2"), "snapshot", "-c", "one")
    raw.replace(folder / "base.raw")
    yield _changed(folder, by_qemu(folder, folder / "base.raw", ["-O", "qcow2", "-o", "cluster_size=512"], ".qcow2"),
                   "rebase", "-u", "-b", "base.raw", "-F", "raw")


def _changed(folder: Path, data: bytes, *words: str) -> bytes:
    path = folder / "changed.qcow2"
    path.write_bytes(data)
    subprocess.run(["qemu-img", *words, path.name], cwd=folder, check=True, capture_output=True)
    return path.read_bytes()


def reader(folder: Path) -> Reader:
    path, look = folder / "x.qcow2", Compared("qcow2")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        look(path)

    return read


LARGE = (1 << 62, 1 << 63, 1, (1 << 63) | 512, (1 << 55) - 1)
TARGET = Target(seeds, reader, largest=160 << 10, words=(
    b"QFI\xfb", b"base.raw", b"x.qcow2", *(struct.pack(">Q", value) for value in LARGE),
    *(struct.pack(">I", value) for value in (0xE2792ACA, 0x6803F857, 0x23852875, 0x44415441, 9, 16, 21))))
