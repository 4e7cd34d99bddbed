"""Which way a target is written, and why: what ``--dry-run`` prints."""

from __future__ import annotations

import os
from typing import NamedTuple

from imgtool import storage
from imgtool.copying.writeback import memory
from imgtool.formats.disk import Disk
from imgtool.formats.qcow2.pack import can_pack
from imgtool.formats.qcow2.write import shape
from imgtool.model import Allocation, ImageSpec


class Choice(NamedTuple):
    way: str
    """``native``: imgtool places ranges; ``stream``: imgtool compresses; ``qemu-img``."""
    reason: str
    share: bool = False
    """Blocks may be shared with the source."""
    clones: bool = False
    """They will be, where ranges align."""
    cached: bool = False
    """What is written stays in the page cache."""


def choose(disk: Disk, spec: ImageSpec, directory: str, *, clone: bool, verify: bool) -> Choice:
    """Depends on the target's format, and on the file systems of both sides; ``verify``: all will be read once more."""
    if spec.format == "vmdk" and spec.subformat == "streamOptimized":
        return Choice("stream", "compress: grains on all cores")
    if spec.format == "qcow2" and spec.compress:
        if can_pack(shape(spec)):
            return Choice("stream", "compress: clusters on all cores")
        return Choice("qemu-img", "qemu-img: it compresses clusters of this shape")
    if spec.format not in ("raw", "qcow2", "vmdk"):
        return Choice("qemu-img", f"qemu-img: it writes {spec.format}")
    cached = verify and _fits(disk)
    if spec.allocation != Allocation.THIN:
        return Choice("native", "copy: thick and eager images share no block", cached=cached)
    if not clone:
        return Choice("native", "copy: --no-clone", cached=cached)
    if _may_share(disk, directory):
        return Choice("native", "clone where ranges align: same file system, which has reflinks", share=True, clones=True)
    how = "kept in memory until they are compared" if cached else "long ranges past the page cache"
    return Choice("native", f"copy: no reflinks between source and destination; {how}", share=True, cached=cached)


def _may_share(disk: Disk, directory: str) -> bool:
    here = os.stat(directory).st_dev
    return storage.may_share(directory) and any(os.fstat(file.fd).st_dev == here for file in disk.files)


def _fits(disk: Disk) -> bool:
    """Source and copy together take half of this host's memory at most."""
    return bool(disk.files) and sum(storage.allocated_bytes(file.fd) for file in disk.files) <= memory() // 4
