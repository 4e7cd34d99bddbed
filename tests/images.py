"""Every kind of image that imgtool reads, written without imgtool: by qemu-img, qemu-io and the builders of ``fixtures``.

``READABLE[kind](directory)`` makes one; what a guest reads of it is ``Source.pieces``. Each goes into a directory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fixtures import patterns, vmdk_kinds
from fixtures.patterns import HOLE, PARENT, ZEROS, Piece
from tests.oracle import tool

SMALL = "64k:A 1M:- 200k:b 512:- 300k:0 512:C 130k:- 7k:D 64k:0 2M:- 65k:0 300k:a 1536:B"
"""Data, holes, written zeros; the end is a multiple of 512 and of nothing larger, and has data."""
LARGE = "2M:a 512:C 31M:- 70k:B 1M:0 600k:D 8M:- 64k:b 9M:- 2560:0"
"""More than one grain table (32 MiB each) and many L2 tables; the end is written zeros."""
DELTA = "32k:. 40k:E 1M:. 100k:- 70k:0 512:e 3M:. 512:F"
SECOND = "8k:. 512:G 200k:. 70k:- 1M:. 64k:0 2M:. 4k:g"


@dataclass(frozen=True)
class Source:
    """An image to be read."""

    path: Path
    format: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the guest's disk."""
        return patterns.size(self.pieces)


Make = Callable[[Path, str], Source]
"""(directory, pattern) → the image; the pattern is what the guest reads of it, or of its lowest layer."""


def fit(delta: str, size: int) -> tuple[Piece, ...]:
    """A delta cut to a disk's size, or filled up with what the parent has."""
    pieces = [Piece(one.start, min(one.end, size) - one.start, one.kind) for one in patterns.parse(delta) if one.start < size]
    end = pieces[-1].end
    return (*pieces, Piece(end, size - end, PARENT)) if end < size else tuple(pieces)


def fill(path: Path, fmt: str, pieces: Sequence[Piece], *, zero: str = "write -z") -> None:
    """Write a pattern with qemu-io as a guest would: holes over something are ``write -z``, zeros are written bytes."""
    content = path.parent / ".content"
    commands: list[str] = []
    for piece in pieces:
        if piece.kind == HOLE:
            commands.append(f"{zero} {piece.start} {piece.length}")
        elif piece.kind == ZEROS:
            commands.append(f"write -P 0 {piece.start} {piece.length}")
        elif piece.is_data:
            for offset, data in patterns.chunks(piece):
                part = content.with_name(f".content-{offset}")
                part.write_bytes(data)
                commands.append(f"write -s {part} {offset} {len(data)}")
    said = tool("qemu-io", "-f", fmt, *(word for command in commands for word in ("-c", command)), path.name,
                cwd=path.parent).stdout
    assert "failed" not in said, said
    for part in path.parent.glob(".content-*"):
        part.unlink()


def _raw(directory: Path, pattern: str) -> Source:
    return Source(patterns.write_raw(directory / "x.raw", pattern), "raw", patterns.parse(pattern))


def _raw_thick(directory: Path, pattern: str) -> Source:
    """Holes are unwritten extents here."""
    source = _raw(directory, pattern)
    tool("fallocate", "-l", source.size, source.path)
    return source


def _written(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Without the holes: an image that is new has them already."""
    return tuple(piece for piece in pieces if piece.kind != HOLE)


def _qcow2(directory: Path, pattern: str, options: str) -> Source:
    pieces, path = patterns.parse(pattern), directory / "x.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, patterns.size(pieces))
    fill(path, "qcow2", _written(pieces))
    return Source(path, "qcow2", pieces)


def _qcow2_data_file(directory: Path, pattern: str, raw: str) -> Source:
    """The name is relative; QEMU takes it from where it runs, so it runs in the image's directory."""
    pieces, path = patterns.parse(pattern), directory / "x.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file=x.data,data_file_raw={raw}", path.name,
         patterns.size(pieces), cwd=directory)
    fill(path, "qcow2", _written(pieces))
    return Source(path, "qcow2", pieces)


def _qcow2_snapshots(directory: Path, pattern: str) -> Source:
    """What the snapshots hold is not what the disk holds now."""
    pieces, path = patterns.parse(pattern), directory / "x.qcow2"
    size = patterns.size(pieces)
    tool("qemu-img", "create", "-q", "-f", "qcow2", path, size)
    fill(path, "qcow2", patterns.parse(f"{size}:Z"))
    tool("qemu-img", "snapshot", "-c", "one", path)
    fill(path, "qcow2", fit("32k:. 40k:Y", size))
    tool("qemu-img", "snapshot", "-c", "two", path)
    fill(path, "qcow2", pieces)
    return Source(path, "qcow2", pieces)


def _qcow2_chain(directory: Path, pattern: str, options: str = "compat=1.1") -> Source:
    pieces, size = patterns.parse(pattern), patterns.size(pattern)
    below: Path | None = None
    for name, layer in (("x", pieces), ("x-1", fit(DELTA, size)), ("x-2", fit(SECOND, size))):
        path = directory / f"{name}.qcow2"
        backing = ("-b", below.name, "-F", "qcow2") if below else ()
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *backing, path.name, size, cwd=directory)
        # Without zero clusters (compat 0.10) only written zeros hide what is below.
        fill(path, "qcow2", layer if below else _written(layer), zero="write -P 0" if "0.10" in options else "write -z")
        pieces = patterns.overlay(pieces, layer) if below else layer
        below = path
    assert below is not None
    return Source(below, "qcow2", pieces)


def _by_qemu_img(directory: Path, pattern: str, fmt: str, options: str, *, compress: bool = False, suffix: str = "") -> Source:
    raw = patterns.write_raw(directory.with_name(f"{directory.name}.raw"), pattern)
    path = directory / f"x.{suffix or fmt}"
    tool("qemu-img", "convert", "-f", "raw", "-O", fmt, *(["-c"] if compress else []), *(["-o", options] if options else []),
         raw, path)
    raw.unlink()
    return Source(path, fmt, patterns.parse(pattern))


def _vmdk(directory: Path, pattern: str, kind: str, **options: Any) -> Source:
    image = vmdk_kinds.write(kind, directory, "x", pattern, **options)
    return Source(image.path, "vmdk", patterns.parse(pattern))


def _vmdk_chain(directory: Path, pattern: str, base: str, kind: str) -> Source:
    size = patterns.size(pattern)
    layers = [(base, patterns.parse(pattern)), (kind, fit(DELTA, size)), (kind, fit(SECOND, size))]
    top = vmdk_kinds.chain(directory, "x", layers)[-1]
    assert top.path.name == "x-000002.vmdk"
    return Source(top.path, "vmdk", top.disk.seen())


def _flat_alone(directory: Path, pattern: str) -> Source:
    image = vmdk_kinds.write("vmfs", directory, "x", pattern)
    return Source(image.files[1], "raw", patterns.parse(pattern))


READABLE: dict[str, Make] = {
    "raw": _raw,
    "raw-thick": _raw_thick,
    "qcow2-0.10": partial(_qcow2, options="compat=0.10"),
    "qcow2-1.1": partial(_qcow2, options="compat=1.1"),
    "qcow2-extended": partial(_qcow2, options="extended_l2=on"),
    "qcow2-512": partial(_qcow2, options="cluster_size=512"),
    "qcow2-2M": partial(_qcow2, options="cluster_size=2M"),
    "qcow2-thick": partial(_qcow2, options="preallocation=falloc"),
    "qcow2-zlib": partial(_by_qemu_img, fmt="qcow2", options="", compress=True),
    "qcow2-zstd": partial(_by_qemu_img, fmt="qcow2", options="compression_type=zstd", compress=True),
    "qcow2-zlib-2M": partial(_by_qemu_img, fmt="qcow2", options="cluster_size=2M", compress=True),
    "qcow2-chain": _qcow2_chain,
    "qcow2-chain-0.10": partial(_qcow2_chain, options="compat=0.10"),
    "qcow2-chain-extended": partial(_qcow2_chain, options="extended_l2=on"),
    "qcow2-data-file": partial(_qcow2_data_file, raw="off"),
    "qcow2-data-file-raw": partial(_qcow2_data_file, raw="on"),
    "qcow2-snapshots": _qcow2_snapshots,
    **{f"vmdk-{kind}": partial(_vmdk, kind=kind) for kind in vmdk_kinds.KINDS},
    "vmdk-vmfs-thick": partial(_vmdk, kind="vmfs", thin=False),
    "vmdk-vmfsSparse-8": partial(_vmdk, kind="vmfsSparse", grain=8, seed=1),
    "vmdk-seSparse-mixed": partial(_vmdk, kind="seSparse", seed=1, first_grain=(5 << 12) + 7),
    "vmdk-monolithicSparse-zeroed": partial(_vmdk, kind="monolithicSparse", zeroed_grains=True, seed=1),
    "vmdk-monolithicSparse-8": partial(_vmdk, kind="monolithicSparse", grain=8, redundant=False, unclean=True),
    "vmdk-monolithicFlat-offset": partial(_vmdk, kind="monolithicFlat", offset=64 * 1024),
    "vmdk-streamOptimized-clipped": partial(_vmdk, kind="streamOptimized", clip_last=True),
    "vmdk-twoGbMaxExtentSparse-1M": partial(_vmdk, kind="twoGbMaxExtentSparse", split=1 << 20, grain=16, seed=1),
    "vmdk-twoGbMaxExtentFlat-1M": partial(_vmdk, kind="twoGbMaxExtentFlat", split=1 << 20),
    **{f"chain-{kind}": partial(_vmdk_chain, base="vmfs", kind=kind) for kind in vmdk_kinds.WITH_PARENT},
    "chain-on-streamOptimized": partial(_vmdk_chain, base="streamOptimized", kind="monolithicSparse"),
    "chain-on-zero-extents": partial(_vmdk_chain, base="vmfsExtents", kind="seSparse"),
    **{f"qemu-{subformat}": partial(_by_qemu_img, fmt="vmdk", options=f"subformat={subformat}")
       for subformat in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
                         "streamOptimized")},
    "vhdx-dynamic": partial(_by_qemu_img, fmt="vhdx", options="subformat=dynamic"),
    "vhdx-fixed": partial(_by_qemu_img, fmt="vhdx", options="subformat=fixed"),
    "vpc-dynamic": partial(_by_qemu_img, fmt="vpc", options="subformat=dynamic,force_size=on", suffix="vhd"),
    "vpc-fixed": partial(_by_qemu_img, fmt="vpc", options="subformat=fixed,force_size=on", suffix="vhd"),
    "vdi-dynamic": partial(_by_qemu_img, fmt="vdi", options=""),
    "vdi-static": partial(_by_qemu_img, fmt="vdi", options="static=on"),
    "flat-alone": _flat_alone,
}

RELATED = {"qcow2-thick", "qcow2-zlib-2M", "qcow2-chain-0.10", "qcow2-chain-extended", "qcow2-data-file-raw", "vmdk-vmfs-thick",
           "vmdk-vmfsSparse-8", "vmdk-seSparse-mixed", "vmdk-monolithicSparse-zeroed", "vmdk-monolithicSparse-8",
           "vmdk-monolithicFlat-offset", "vmdk-streamOptimized-clipped", "vmdk-twoGbMaxExtentSparse-1M",
           "vmdk-twoGbMaxExtentFlat-1M", "chain-on-streamOptimized", "chain-on-zero-extents"}
"""Sources that are another one with another inner order: the long run has them everywhere."""
