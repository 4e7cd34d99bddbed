"""Converts through qemu-img: formats that imgtool does not write itself, and compressed targets."""

from __future__ import annotations

import os

from imgtool import qemu
from imgtool.errors import UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.vmdk.write import DEFAULT_HARDWARE, UNMANAGED_TOOLS
from imgtool.model import Allocation, CopyStats, ImageSpec, Kind
from imgtool.progress import Control

VPC_MAX = 2040 << 30
VHDX_MAX = 64 << 40


def options(spec: ImageSpec) -> list[tuple[str, str]]:
    """``-o`` for qemu-img. Raises UsageError for an option that is not the user's to say."""
    whole = spec.allocation != Allocation.THIN
    fixed = {
        "vhdx": [("subformat", "fixed" if whole else "dynamic")],
        "vpc": [("subformat", "fixed" if whole else "dynamic"), ("force_size", "on")],
        "vdi": [("static", "on")] if whole else [],
        "vmdk": [("subformat", spec.subformat or "streamOptimized")],
        "qcow2": [],
        "raw": [],
    }[spec.format]
    for key, _ in spec.options:
        if key in {"subformat", "static", "preallocation", "force_size", "backing_file", "backing_fmt", "data_file"}:
            raise UsageError(f"-o {key}: imgtool decides it", "--thin, --thick, --eager and --subformat say what it shall be")
    given = dict(spec.options)
    if spec.format == "vmdk":
        given = {"adapter_type": "lsilogic", "hwversion": DEFAULT_HARDWARE, "toolsversion": UNMANAGED_TOOLS} | given
    if spec.format == "qcow2" and spec.compress_type:
        given["compression_type"] = spec.compress_type
    return [*fixed, *given.items()]


def copy(disk: Disk, spec: ImageSpec, path: str, control: Control, *, locking: bool = True) -> CopyStats:
    """Raises NoSpaceError, ImgtoolError, StoppedError. qemu-img always leaves written zeros out."""
    qemu.convert(disk.graph(locking=locking), path, spec.format, options=options(spec),
                 compress=spec.compress and spec.format == "qcow2", size=disk.virtual_size, control=control)
    read = sum(extent.length for extent in disk.content() if extent.kind == Kind.DATA)
    return CopyStats(engine="qemu-img", bytes_read=read, bytes_written=os.stat(path).st_blocks * 512, detected_zeroes=True)
