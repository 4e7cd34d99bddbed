"""allocate: thin, thick or eager, in place. Each single step keeps the guest's bytes, so a crash leaves a valid image."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from imgtool import storage
from imgtool.copying.dig import dig
from imgtool.copying.settle import settle
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError, UsageError
from imgtool.formats.disk import Disk, open_given
from imgtool.formats.layer import Layer
from imgtool.formats.locks import hold, hold_file, refuse_if_used
from imgtool.formats.measure import allocated_bytes, allocation, payload_files
from imgtool.formats.qcow2 import whole as qcow2
from imgtool.formats.target import Payload
from imgtool.formats.vmdk import whole as vmdk
from imgtool.model import AllocateRequest, AllocateResult, Allocation, ImageFile, Kind
from imgtool.plan import Step
from imgtool.progress import Control
from imgtool.units import size


def prepare(request: AllocateRequest, control: Control) -> Step:
    """Looks, and writes nothing; raises what ``allocate`` would refuse."""
    with _alone(request, control), open_given(request.path, request.reading, control.stop) as disk:
        _check(request, disk)
        before = allocation(disk.top).value
        return Step(verb="allocate", request=request, bytes=disk.virtual_size,
                    summary=f"{request.path}: {before} → {request.allocation.value}, in place")


def allocate(request: AllocateRequest, control: Control) -> AllocateResult:
    """Raises RefusedError, UsageError, NoSpaceError, StoppedError."""
    began = time.monotonic()
    with _alone(request, control):
        return _allocate(request, control, began)


@contextmanager
def _alone(request: AllocateRequest, control: Control) -> Iterator[None]:
    """First the lock, then a look at who else has one: of two that begin at once, neither misses the other.

    What is opened under it is as the other has left it.
    """
    with open_given(request.path, request.reading, control.stop) as disk:
        hold_file(disk.top.files[0])
        if not request.reading.ignore_lock:
            refuse_if_used(disk, writing=True)
        yield


def _allocate(request: AllocateRequest, control: Control, began: float) -> AllocateResult:
    with open_given(request.path, request.reading, control.stop) as disk:
        _check(request, disk)
        hold(disk)
        before, size_before = allocation(disk.top), allocated_bytes(disk.top)
        with ExitStack() as stack:
            files = [Payload(file.path, _writable(file, stack)) for file in payload_files(disk.top)]
            warnings = _change(request, disk.top, files, control)
            for file in files:
                os.fsync(file.fd)
    with open_given(request.path, request.reading, control.stop) as disk:
        is_so = allocation(disk.top)
        if disk.top.format == "vmdk":
            vmdk.say_thin(disk.top, thin=is_so == Allocation.THIN)
        return AllocateResult(path=request.path, before=before.value, allocation=is_so.value, allocated_size_before=size_before,
                              allocated_size=allocated_bytes(disk.top), seconds=round(time.monotonic() - began, 3),
                              warnings=(*disk.warnings, *warnings))


def _writable(file: ImageFile, stack: ExitStack) -> int:
    fd = os.open(file.path, os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _check(request: AllocateRequest, disk: Disk) -> None:
    layer = disk.top
    if any(stat.S_ISBLK(os.fstat(file.fd).st_mode) for file in layer.files):
        raise RefusedError(f"{request.path} is a block device: its space cannot be changed")
    disk.refuse_encrypted()
    if request.allocation == Allocation.THIN:
        return
    _check_whole(layer)
    missing = max(0, layer.virtual_size - allocated_bytes(layer))
    missing += sum(length for file in layer.files for _, length in storage.shared(file.fd, file.size))
    free = storage.free_space(os.path.dirname(layer.path))
    if missing > free:
        raise NoSpaceError(f"{os.path.dirname(layer.path)} has {size(free)} free, {request.path} needs {size(missing)} more",
                           "free some space first")


def _check_whole(layer: Layer) -> None:
    if layer.format == "qcow2":
        qcow2.check_whole(layer)
    elif layer.format == "vmdk":
        vmdk.check_whole(layer)
    elif layer.subformat == "dynamic":
        raise UsageError(f"{layer.path} cannot be made thick in place: it is a dynamic {layer.format}",
                         "imgtool convert --thick makes a thick copy")


def _change(request: AllocateRequest, layer: Layer, files: list[Payload], control: Control) -> list[str]:
    if request.allocation == Allocation.THIN:
        for file in files:
            dig(file, control)
        return []
    if layer.format == "qcow2" and any(extent.kind != Kind.DATA for extent in layer.extents(0, layer.virtual_size)):
        qcow2.map_whole(layer, files[0].fd)
    if layer.format == "vmdk":
        by_path = {file.name: file.fd for file in files}
        for sparse in vmdk.sparse_files(layer):
            vmdk.map_whole(sparse, by_path[sparse.path])
    try:
        return settle(files, request.allocation, control)
    except OSError as error:
        raise ImgtoolError(f"{request.path}: {error.strerror}") from error
