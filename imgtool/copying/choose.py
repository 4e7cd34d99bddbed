"""Which way a target is written, and why: what ``--dry-run`` prints."""

from __future__ import annotations

import os
from typing import NamedTuple

from imgtool import storage
from imgtool.formats.disk import Disk
from imgtool.formats.vmdk.write import FLAT, SPARSE
from imgtool.model import Allocation, ImageSpec


class Choice(NamedTuple):
    native: bool
    """imgtool writes the image itself; else qemu-img does."""
    share: bool
    """Blocks may be shared with the source."""
    reason: str


def choose(disk: Disk, spec: ImageSpec, directory: str, *, clone: bool) -> Choice:
    """Depends on the target's format, and on the file systems of both sides."""
    if spec.compress:
        return Choice(native=False, share=False, reason="qemu-img: it compresses")
    if spec.format == "vmdk" and spec.subformat not in (*FLAT, *SPARSE):
        return Choice(native=False, share=False, reason=f"qemu-img: it writes {spec.subformat}")
    if spec.format not in ("raw", "qcow2", "vmdk"):
        return Choice(native=False, share=False, reason=f"qemu-img: it writes {spec.format}")
    if spec.allocation != Allocation.THIN:
        return Choice(native=True, share=False, reason="copy: thick and eager images share no block")
    if not clone:
        return Choice(native=True, share=False, reason="copy: --no-clone")
    if _may_share(disk, directory):
        return Choice(native=True, share=True, reason="clone where ranges align: same file system, which has reflinks")
    return Choice(native=True, share=True, reason="copy in the kernel: no reflinks between source and destination")


def _may_share(disk: Disk, directory: str) -> bool:
    here = os.stat(directory).st_dev
    return storage.may_share(directory) and any(os.fstat(file.fd).st_dev == here for file in disk.files)
