"""From what the user said to what shall be written: defaults, and what excludes what."""

from __future__ import annotations

import os

from imgtool.copying import qemu_img
from imgtool.errors import UsageError
from imgtool.formats.detect import SUFFIXES
from imgtool.formats.qcow2 import write as qcow2
from imgtool.formats.vmdk import write as vmdk
from imgtool.formats.vmdk.read import FLAT_NAME
from imgtool.model import Allocation, ImageSpec

SUFFIX_OF = {"qcow2": ".qcow2", "vmdk": ".vmdk", "raw": ".raw", "vhdx": ".vhdx", "vpc": ".vhd", "vdi": ".vdi"}
SUBFORMATS = {
    "vmdk": (*vmdk.SPARSE, *vmdk.FLAT, "streamOptimized"),
    "vhdx": ("dynamic", "fixed"), "vpc": ("dynamic", "fixed"), "vdi": ("dynamic", "static"),
}
ALWAYS_THICK = ("monolithicFlat", "twoGbMaxExtentFlat", "fixed", "static")
"""Subformats that are thick unless ``--thin`` is said."""


Pairs = tuple[tuple[str, str], ...]


def image_spec(format_name: str, *, subformat: str | None, allocation: Allocation | None, compress: bool,
               compress_type: str | None = None, compress_level: int | None = None, options: Pairs = ()) -> ImageSpec:
    """Fills in the defaults. Raises UsageError for what does not go together."""
    if format_name not in SUFFIX_OF:
        raise UsageError(f"unknown format {format_name!r}", f"one of: {', '.join(SUFFIX_OF)}")
    options, subformat = _subformat_option(options, subformat)
    known = SUBFORMATS.get(format_name, ())
    if subformat and subformat not in known:
        raise UsageError(f"{format_name} has no subformat {subformat!r}",
                         f"one of: {', '.join(known)}" if known else f"{format_name} has none")
    if compress and format_name == "vmdk":
        subformat = subformat or "streamOptimized"
    if allocation is None:
        allocation = Allocation.THICK if subformat in ALWAYS_THICK else Allocation.THIN
    if format_name == "vmdk" and subformat is None:
        subformat = "monolithicSparse" if allocation == Allocation.THIN else "monolithicFlat"
    if compress and format_name == "qcow2":
        compress_type = compress_type or dict(options).get("compression_type") or _default_compression(options)
        options = tuple(pair for pair in options if pair[0] != "compression_type")
    spec = ImageSpec(format=format_name, subformat=subformat, allocation=allocation, compress=compress,
                     compress_type=compress_type, compress_level=compress_level, options=options)
    _check_together(spec)
    return spec


def _default_compression(options: Pairs) -> str:
    """zstd, except where the image is for readers that do not know it."""
    return "zlib" if dict(options).get("compat") in ("0.10", "v2") else "zstd"


def _subformat_option(options: Pairs, subformat: str | None) -> tuple[Pairs, str | None]:
    """``-o subformat=…`` is ``--subformat …``, as users of qemu-img know it."""
    said = [value for key, value in options if key == "subformat"]
    if said and subformat and said[-1] != subformat:
        raise UsageError("--subformat and -o subformat do not agree")
    return tuple(pair for pair in options if pair[0] != "subformat"), subformat or (said[-1] if said else None)


def _check_together(spec: ImageSpec) -> None:
    whole = spec.allocation != Allocation.THIN
    if whole and (spec.compress or spec.subformat == "streamOptimized"):
        raise UsageError(f"a compressed image cannot be {spec.allocation.value}", "leave one of the two out")
    if spec.compress and not (spec.format == "qcow2" or spec.subformat == "streamOptimized"):
        raise UsageError(f"{spec.subformat or spec.format} cannot be compressed", "qcow2 and vmdk (streamOptimized) can")
    if spec.compress_type and not (spec.compress and spec.format == "qcow2"):
        raise UsageError("--compress-type goes with --compress --to qcow2")
    if spec.compress_type not in (None, "zlib", "zstd"):
        raise UsageError(f"unknown compression type {spec.compress_type!r}", "zlib or zstd")
    if spec.compress_level is not None and not 1 <= spec.compress_level <= 9:
        raise UsageError(f"--compress-level {spec.compress_level}: 1 (fast) to 9 (small)")
    if spec.compress_level is not None and not (spec.compress or spec.subformat == "streamOptimized"):
        raise UsageError("--compress-level goes with --compress")
    if dict(spec.options).get("compat") in ("0.10", "v2") and spec.compress_type == "zstd":
        raise UsageError("compat 0.10 has no zstd", "--compress-type zlib")
    if spec.subformat in ("fixed", "static") and not whole:
        raise UsageError(f"{spec.subformat} is not thin", "leave --thin out, or the subformat")
    if spec.subformat == "dynamic" and whole:
        raise UsageError(f"dynamic is not {spec.allocation.value}", "leave the subformat out")
    if spec.format == "raw" and spec.options:
        raise UsageError("raw has no -o options")


def check_size(spec: ImageSpec, name: str, size: int) -> None:
    """What a format cannot hold. Raises UsageError."""
    if spec.format == "vmdk":
        vmdk.check_options(spec, name, size)
        if spec.subformat == "monolithicSparse" and spec.allocation != Allocation.THIN and size > vmdk.MAX_SPARSE_DATA:
            raise UsageError("a sparse VMDK holds at most 2 TiB of data", "--subformat monolithicFlat")
    elif spec.format == "qcow2":
        qcow2.l1_entries(size, qcow2.shape(spec))
    else:
        qemu_img.options(spec)
    if not size and spec.format in ("vpc", "vhdx", "vdi"):
        raise UsageError(f"a {spec.format} image of 0 bytes is impossible")
    if spec.format == "vpc" and size > qemu_img.VPC_MAX:
        raise UsageError(f"{size} bytes are more than a VHD holds (2040 GiB)", "use vhdx")
    if spec.format == "vhdx" and size > qemu_img.VHDX_MAX:
        raise UsageError(f"{size} bytes are more than a VHDX holds (64 TiB)")


def destination_of(source: str, destination: str | None, format_name: str) -> str:
    """The absolute path of the result, links resolved. Raises UsageError if it is the source, or named like another format."""
    if destination is None:
        destination = os.path.splitext(source)[0] + SUFFIX_OF[format_name]
    path = os.path.realpath(destination)
    if path == os.path.realpath(source) or (os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)):
        raise UsageError(f"{destination} is the source itself", "name another destination")
    if os.path.isdir(path) or destination.endswith("/"):
        raise UsageError(f"{destination or repr(destination)} is a directory", "name the file to write, as in "
                         f"{os.path.join(destination, os.path.basename(os.path.splitext(source)[0]) + SUFFIX_OF[format_name])}")
    if not os.path.isdir(os.path.dirname(path)):
        raise UsageError(f"the directory {os.path.dirname(path)} does not exist", "mkdir -p makes it")
    refuse_other_name(destination, path, format_name)
    return path


def refuse_other_name(destination: str, path: str, format_name: str) -> None:
    """A name that says another format than the image has. ``path``: where the name leads. Raises UsageError."""
    named = "raw" if FLAT_NAME.search(path) else SUFFIXES.get(os.path.splitext(path)[1].lower())
    if named and named != format_name:
        raise UsageError(f"{destination} is a name for {named}, not for {format_name}",
                         f"use the suffix {SUFFIX_OF[format_name]}")
