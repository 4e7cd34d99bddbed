"""Damaged images: small ones of every kind, and the ways to spoil them. The same seed gives the same mutant everywhere."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from fixtures import vmdk_kinds
from fixtures.patterns import write_raw
from fixtures.run import run

PATTERN = "100k:A 28k:- 64k:a 512k:- 200k:0 88k:B 32k:-"
HEAD = 64 << 10
INTERESTING = (
    0,
    1,
    2,
    511,
    512,
    4096,
    65535,
    65536,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    1 << 62,
    1 << 56,
    1 << 55,
    (1 << 54) - 1,
    1 << 48,
    1 << 40,
)

Base = tuple[Path, Path, list[tuple[int, int]]]
"""The file to open, the one of its files to spoil, and where that has its tables."""
Maker = Callable[[Path], Base]


def _by_qemu(driver: str, suffix: str, *options: str) -> Maker:
    def make(folder: Path) -> Base:
        raw = write_raw(folder / "raw", PATTERN)
        path = folder / f"x{suffix}"
        run(["qemu-img", "convert", "-f", "raw", "-O", driver, *options, raw, path])
        raw.unlink()
        return path, path, _tables(path)

    return make


def _tables(path: Path) -> list[tuple[int, int]]:
    """Where qcow2 has its tables; others have theirs at the beginning."""
    data = path.read_bytes()
    if data[:4] != b"QFI\xfb":
        return [(0, 4096)]
    cluster = 1 << struct.unpack_from(">I", data, 20)[0]
    l1, refcounts, snapshots = (struct.unpack_from(">Q", data, at)[0] for at in (40, 48, 64))
    l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00FFFFFFFFFFFE00
    return [(0, 200), (l1, 64), (l2, min(cluster, 2048)), (refcounts, 32), *([(snapshots, 256)] if snapshots else [])]


def _snapshots(folder: Path) -> Base:
    path, _, _ = _by_qemu("qcow2", ".qcow2")(folder)
    for name in ("first", "second"):
        run(["qemu-img", "snapshot", "-c", name, path])
    return path, path, _tables(path)


def _vmdk(kind: str, tables: list[tuple[int, int]], *, extent: bool = False, **options: object) -> Maker:
    def make(folder: Path) -> Base:
        image = vmdk_kinds.write(kind, folder, "x", PATTERN, **options)
        return image.path, image.files[-1 if extent else 0], tables

    return make


def _stream(folder: Path) -> Base:
    path = vmdk_kinds.write("streamOptimized", folder, "x", PATTERN).path
    size = path.stat().st_size
    return path, path, [(0, 80), (65536, 12), (size - 4096, 4096), (size - 1024, 80), (512, 1024)]


def _delta(kind: str, tables: list[tuple[int, int]]) -> Maker:
    def make(folder: Path) -> Base:
        base = vmdk_kinds.write("vmfs", folder, "base", PATTERN)
        image = vmdk_kinds.write(kind, folder, "x", "64k:C 192k:. 64k:- 704k:.", parent=base)
        return image.path, image.files[-1], tables

    return make


KINDS: dict[str, Maker] = {
    "qcow2 v3": _by_qemu("qcow2", ".qcow2"),
    "qcow2 v2": _by_qemu("qcow2", ".qcow2", "-o", "compat=0.10"),
    "qcow2 subclusters": _by_qemu("qcow2", ".qcow2", "-o", "extended_l2=on,cluster_size=16k"),
    "qcow2 small clusters": _by_qemu("qcow2", ".qcow2", "-o", "cluster_size=512"),
    "qcow2 zlib": _by_qemu("qcow2", ".qcow2", "-c"),
    "qcow2 zstd": _by_qemu("qcow2", ".qcow2", "-c", "-o", "compression_type=zstd"),
    "qcow2 snapshots": _snapshots,
    "vmdk sparse": _vmdk("monolithicSparse", [(0, 80), (512, 900), (21 * 512, 600), (26 * 512, 600)]),
    "vmdk descriptor": _vmdk("vmfs", [(0, 600)]),
    "vmdk split descriptor": _vmdk("twoGbMaxExtentFlat", [(0, 600)], split=256 << 10),
    "vmdk split extent": _vmdk("twoGbMaxExtentSparse", [(0, 80), (512, 600), (6 * 512, 600)], extent=True),
    "vmdk stream": _stream,
    "vmdk cowd": _delta("vmfsSparse", [(0, 32), (2048, 16), (2560, 4096)]),
    "vmdk sesparse": _delta("seSparse", [(0, 208), (512, 32), (4096 * 512, 64), (4160 * 512, 512)]),
}
FOREIGN: dict[str, Maker] = {
    "vhdx": _by_qemu("vhdx", ".vhdx"),
    "vpc": _by_qemu("vpc", ".vhd", "-o", "force_size=on"),
    "vdi": _by_qemu("vdi", ".vdi"),
}


def mutate(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> Iterator[str]:
    """Spoils ``data`` in one to three ways; says how."""
    ways = [_random_bytes, _numbers, _numbers, _numbers, _flips, _truncate, _duplicate, _text]
    for way in rng.sample(ways, rng.choice([1, 1, 2, 3])):
        yield way(data, tables, rng)


def _place(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> int:
    start, length = rng.choice([*tables, tables[0], (0, HEAD)])
    return max(0, min(start + rng.randrange(length), len(data) - 1))


def _random_bytes(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> str:
    places = [_place(data, tables, rng) for _ in range(rng.randrange(1, 20))]
    for at in places:
        data[at : at + 1] = rng.randbytes(1)
    return f"bytes at {places}"


def _flips(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> str:
    at = _place(data, tables, rng)
    data[at] ^= 1 << rng.randrange(8)
    return f"a bit of byte {at}"


def _numbers(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> str:
    at = _place(data, tables, rng) & ~3
    form = rng.choice(["<I", ">I", "<Q", ">Q"])
    width = struct.calcsize(form)
    if at + width > len(data):
        return "nothing"
    old = struct.unpack_from(form, data, at)[0]
    value = rng.choice(
        [*INTERESTING, old + 1, old - 1, old * 2, old << 20, len(data), len(data) - 1, len(data) // 512, len(data) // 512 + 1]
    )
    struct.pack_into(form, data, at, value % (1 << width * 8))
    return f"{form} {value:#x} at {at}"


def _truncate(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> str:
    size = rng.choice(
        [rng.randrange(len(data) + 1), rng.randrange(min(len(data), 4096) + 1), len(data) - 1, len(data) // 512 // 2 * 512]
    )
    del data[size:]
    data += bytes(1) if not data else b""
    return f"cut to {size}"


def _duplicate(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> str:
    length = rng.choice([8, 512, 4096, 65536])
    source, target = (_place(data, tables, rng) // length * length for _ in range(2))
    block = bytes(data[source : source + length])
    data[target : target + len(block)] = block
    return f"{length} bytes from {source} to {target}"


def _text(data: bytearray, tables: list[tuple[int, int]], rng: random.Random) -> str:
    """Digits and words of a descriptor, where there is one."""
    old, new = rng.choice(
        [
            (b"RW ", b"RW 9"),
            (b" 1\n", b" 99999999999\n"),
            (b'"', b""),
            (b"CID=", b"CID=-"),
            (b"createType", b"x"),
            (b"\n", b"\0"),
            (b"RW ", b"RW 99999999999999999"),
            (b"-flat", b"-flat\n"),
            (b"FLAT", b"SPARSE"),
            (b"VMFS", b"SESPARSE"),
            (b"UTF-8", b"utf-16"),
            (b"parentCID=ffffffff", b"parentCID=00000001"),
            (b"SPARSE", b"ZERO"),
        ]
    )
    at = data.find(old, 0, 4096)
    if at >= 0:
        data[at : at + len(old)] = new
    return f"{old!r} to {new!r}"
