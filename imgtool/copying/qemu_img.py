"""Converts through qemu-img: formats that imgtool does not write itself, and compressed targets."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile

from imgtool import qemu, storage
from imgtool.errors import UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.measure import data_length
from imgtool.formats.qcow2 import write as qcow2
from imgtool.model import Allocation, CopyStats, ImageSpec
from imgtool.progress import Control

VPC_MAX = 2040 << 30
VHDX_MAX = 64 << 40
LOOK = 0.1
"""Seconds between two looks at what there is to be written."""


def options(spec: ImageSpec) -> list[tuple[str, str]]:
    """``-o`` for qemu-img. Raises UsageError for an option that is not the user's to say."""
    whole = spec.allocation != Allocation.THIN
    fixed = {
        "vhdx": [("subformat", "fixed" if whole else "dynamic")],
        "vpc": [("subformat", "fixed" if whole else "dynamic"), ("force_size", "on")],
        "vdi": [("static", "on")] if whole else [],
        "qcow2": [],
        "raw": [],
    }[spec.format]
    known = {"vhdx": ("block_size", "log_size", "block_state_zero"), "qcow2": qcow2.OPTIONS}
    for key, value in spec.options:
        if key not in known.get(spec.format, ()):
            raise UsageError(f"-o {key}: not an option of {spec.format} here",
                             "--thin, --thick, --eager and --subformat say what it shall be")
        if not re.fullmatch(r"[A-Za-z0-9._]{1,32}", value):
            raise UsageError(f"-o {key}={value}: letters and digits only")
    given = dict(spec.options)
    if spec.format == "qcow2" and spec.compress_type:
        given["compression_type"] = spec.compress_type
    return [*fixed, *given.items()]


def copy(disk: Disk, spec: ImageSpec, path: str, control: Control, *, locking: bool = True) -> CopyStats:
    """Raises NoSpaceError, ImgtoolError, StoppedError. qemu-img always leaves written zeros out."""
    with _data_beside(disk) as data, _written_back(path):
        qemu.convert(disk.graph(locking=locking), path, spec.format, options=options(spec),
                     compress=spec.compress and spec.format == "qcow2", size=disk.virtual_size, control=control)
    return CopyStats(engine="qemu-img", bytes_read=data.result(), bytes_written=os.stat(path).st_blocks * 512,
                     detected_zeroes=True)


@contextmanager
def _data_beside(disk: Disk) -> Iterator[Future[int]]:
    """Bytes of data, by the map: of a nearly empty disk that takes a tenth of the time of its copy.

    What fails meanwhile does not wait for it.
    """
    failed = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="map") as beside:
        try:
            yield beside.submit(lambda: data_length(takewhile(lambda _: not failed.is_set(), disk.content())))
        except BaseException:
            failed.set()
            raise


@contextmanager
def _written_back(path: str) -> Iterator[None]:
    """What QEMU puts into the page cache is on its way to the disk at once: the flush at the end has little left to wait for."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(LOOK):
            with suppress(OSError), open(path, "rb") as file:  # it may not be there yet
                storage.begin_writeback(file.fileno(), 0, os.fstat(file.fileno()).st_size)

    helper = threading.Thread(target=work, name="write back", daemon=True)
    helper.start()
    try:
        yield
    finally:
        over.set()
        helper.join()
