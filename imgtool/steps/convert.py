"""convert: one disk, from any format into any other.

Everything happens in a workspace beside the destination; the final name appears when the image is whole, flushed and compared.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace

from imgtool import files, storage
from imgtool.copying import qemu_img
from imgtool.copying.choose import choose
from imgtool.copying.compare import compare
from imgtool.copying.direct import Direct
from imgtool.copying.native import Copier
from imgtool.copying.settle import settle
from imgtool.copying.stream import write_packed, write_stream
from imgtool.errors import DamagedError, DifferError, ImgtoolError, NoSpaceError, RefusedError
from imgtool.formats.disk import Disk, open_disk, open_given
from imgtool.formats.locks import hold, qemu_uses, refuse_if_used
from imgtool.formats.measure import allocation, data_bytes, data_limit
from imgtool.formats.qcow2.write import Qcow2Target
from imgtool.formats.target import FileTarget, Payload, Target
from imgtool.formats.vmdk.write import VmdkTarget
from imgtool.model import Allocation, ConvertRequest, ConvertResult, CopyStats, ImageFile, ImageSpec
from imgtool.plan import Step
from imgtool.progress import Control
from imgtool.steps.spec import check_size
from imgtool.units import size

TARGETS: dict[str, Callable[[str, str, int, ImageSpec], Target]] = {
    "raw": lambda folder, name, size, spec: FileTarget(folder, name, size, allocation=spec.allocation),
    "qcow2": Qcow2Target,
    "vmdk": VmdkTarget,
}


@dataclass(frozen=True)
class _Written:
    stats: CopyStats
    members: list[str]
    warnings: list[str]


def prepare(request: ConvertRequest, control: Control) -> Step:
    """Looks at source and destination without writing anything; raises what ``convert`` would refuse."""
    with open_given(request.source, request.reading, control.stop) as disk:
        return prepare_disk(request, disk)


def prepare_disk(request: ConvertRequest, disk: Disk) -> Step:
    """``prepare`` for a disk that is open."""
    check(request, disk)
    spec = request.spec
    choice = choose(disk, spec, os.path.dirname(request.destination), clone=request.clone, verify=request.verify)
    kind = f"{spec.format} ({spec.subformat})" if spec.subformat else spec.format
    notes = [choice.reason, *(f"warning: {warning}" for warning in disk.warnings)]
    notes.append("then compared with the source" if request.verify else "not compared (--no-verify)")
    return Step(verb="convert", request=request, bytes=data_limit(disk), notes=tuple(notes),
                summary=f"{request.source} → {request.destination}, {spec.allocation.value} {kind}")


def convert(request: ConvertRequest, control: Control) -> ConvertResult:
    """Raises RefusedError, NoSpaceError, DamagedError, DifferError (the copy is not the source), StoppedError."""
    with open_given(request.source, request.reading, control.stop) as disk:
        return convert_disk(request, disk, control)


def convert_disk(request: ConvertRequest, disk: Disk, control: Control) -> ConvertResult:
    """``convert`` for a disk that is open."""
    began = time.monotonic()
    directory, name = os.path.split(request.destination)
    hold(disk)  # before the look at who else has it: of two that begin at once, neither misses the other
    check(request, disk)
    with _source(request, disk, control) as (source, unused), files.workspace(directory) as folder:
        written = _write(request, source, folder, name, control)
        path = os.path.join(folder, name)
        with open_disk(path, source_format=request.spec.format, stop=control.stop) as copy:
            if request.verify:
                verify_copy(source, copy, control)
            is_so = allocation(copy.top)
            subformat = copy.top.subformat
        _refuse_shorter(disk)
        obsolete = _obsolete(request, disk, written.members)
        control.stop.check()
        files.publish(folder, written.members, replace=request.force, obsolete=obsolete)
    written = replace(written, warnings=[*unused, *written.warnings])
    return _result(request, disk, written, is_so, subformat, time.monotonic() - began)


def _refuse_shorter(disk: Disk) -> None:
    """What is read behind the end of a file is zeros: without comparing, nobody would see them. Raises DamagedError."""
    for file in disk.files:
        if storage.size_of(file.fd) < file.base + file.size:
            raise DamagedError(f"{file.path} became shorter while it was copied",
                               "nothing was left behind; end what writes to it, and look whether its data is still there")


def _source(request: ConvertRequest, disk: Disk, control: Control) -> AbstractContextManager[tuple[Disk, tuple[str, ...]]]:
    """What is copied: all of the disk, or what its file systems use; and warnings."""
    if not request.only_used:
        return nullcontext((disk, ()))
    from imgtool.guests.used import only_used

    return only_used(disk, control.stop)


def check(request: ConvertRequest, disk: Disk) -> None:
    """Everything that can be refused before the first byte."""
    spec, directory = request.spec, os.path.dirname(request.destination)
    check_size(spec, os.path.basename(request.destination), disk.virtual_size)
    disk.refuse_encrypted()
    if not request.reading.ignore_lock:
        refuse_if_used(disk)
    _check_destination(request, disk)
    refuse_without_room(directory, room_needed(request, disk))


def _check_destination(request: ConvertRequest, disk: Disk) -> None:
    path = request.destination
    if not os.path.lexists(path):
        return
    status = os.lstat(path)
    if stat.S_ISBLK(status.st_mode):
        raise RefusedError(f"{path} is a block device", "imgtool convert writes files only")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path} exists and is no file")
    if not request.force:
        raise RefusedError(f"{path} exists", "use --force to replace it")
    if any(os.path.samestat(os.stat(path), os.fstat(file.fd)) for file in disk.files):
        raise RefusedError(f"{path} is a part of the source", "name another destination")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if qemu_uses(ImageFile(path, fd, status.st_size), writing=True):
            raise RefusedError(f"{path} is in use by a running QEMU", "stop it first")
    finally:
        os.close(fd)


def room_needed(request: ConvertRequest, disk: Disk) -> int:
    """Bytes that the result certainly takes. Clones and compressed images may need less than is known: 0."""
    spec, directory = request.spec, os.path.dirname(request.destination)
    if spec.allocation != Allocation.THIN:
        return disk.virtual_size
    share = choose(disk, spec, directory, clone=request.clone, verify=request.verify).share
    if (share and storage.may_share(directory)) or spec.compress or spec.subformat == "streamOptimized":
        return 0
    limit = data_limit(disk)
    return limit if limit <= storage.free_space(directory) else data_bytes(disk)


def refuse_without_room(directory: str, needed: int) -> None:
    """Raises NoSpaceError before the copy, not in its middle."""
    free = storage.free_space(directory)
    if needed > free:
        raise NoSpaceError(f"{directory} has {size(free)} free, the result needs {size(needed)}: {size(needed - free)} more",
                           "free some space, or choose another file system")


def _write(request: ConvertRequest, disk: Disk, folder: str, name: str, control: Control) -> _Written:
    """Writes the image into the workspace."""
    way = choose(disk, request.spec, os.path.dirname(folder), clone=request.clone, verify=request.verify).way
    if way == "native":
        return _write_native(request, disk, folder, name, control)
    if way == "stream":
        return _write_stream(request, disk, folder, name, control)
    return _write_qemu(request, disk, folder, name, control)


def _write_stream(request: ConvertRequest, disk: Disk, folder: str, name: str, control: Control) -> _Written:
    write = write_packed if request.spec.format == "qcow2" else write_stream
    try:
        stats = write(disk, request.spec, folder, name, control)
    except OSError as error:
        storage.raise_os(error, f"writing {name}")
    return _Written(stats, [name], ["a compressed image never holds written zeros"] if request.detect_zeroes is False else [])


def _write_qemu(request: ConvertRequest, disk: Disk, folder: str, name: str, control: Control) -> _Written:
    if not disk.qemu_reads():
        return _write_staged(request, disk, folder, name, control)
    stats = qemu_img.copy(disk, request.spec, os.path.join(folder, name), control,
                          locking=not request.reading.ignore_lock)
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CLOEXEC)
    try:
        warnings = settle([Payload(name, fd)], request.spec.allocation, control)
    finally:
        os.close(fd)
    if request.detect_zeroes is False:
        warnings.append("qemu-img always leaves written zeros out")
    return _Written(stats, [name], warnings)


def _write_native(request: ConvertRequest, disk: Disk, folder: str, name: str, control: Control) -> _Written:
    spec = request.spec
    choice = choose(disk, spec, os.path.dirname(folder), clone=request.clone, verify=request.verify)
    with closing(_target(folder, name, disk.virtual_size, spec)) as target:
        copier = Copier(disk, target, control, whole=spec.allocation != Allocation.THIN, share=choice.share,
                        clones=choice.clones, detect=request.detect_zeroes if spec.allocation != Allocation.EAGER else False,
                        direct=Direct(writes=not choice.cached))
        try:
            stats = copier.run()
            target.finish()
        except OSError as error:
            storage.raise_os(error, f"writing {name}")
        warnings = settle(target.payload(), spec.allocation, control)
        return _Written(stats, target.members, warnings)


def _target(folder: str, name: str, size: int, spec: ImageSpec) -> Target:
    try:
        return TARGETS[spec.format](folder, name, size, spec)
    except OSError as error:
        storage.raise_os(error, f"making {name}")


def _write_staged(request: ConvertRequest, disk: Disk, folder: str, name: str, control: Control) -> _Written:
    """Where QEMU cannot read the source but must write the target: by way of a thin qcow2 in the workspace."""
    stage = ".stage.qcow2"
    thin = replace(request, spec=ImageSpec(format="qcow2"))
    _write_native(thin, disk, folder, stage, control)
    with open_disk(os.path.join(folder, stage), source_format="qcow2", stop=control.stop) as staged:
        written = _write(request, staged, folder, name, control)
    os.unlink(os.path.join(folder, stage))
    return written


def verify_copy(disk: Disk, copy: Disk, control: Control) -> None:
    """Raises DifferError."""
    if disk.virtual_size != copy.virtual_size:
        raise DifferError(f"the copy has {copy.virtual_size} bytes, the source {disk.virtual_size}",
                          "nothing was left behind; this is a bug of imgtool or of qemu-img")
    if (result := compare(disk, copy, control)).first_difference is not None:
        raise DifferError(f"the copy differs from the source at byte {result.first_difference}",
                          "nothing was left behind; was the source written to meanwhile?")


def _obsolete(request: ConvertRequest, disk: Disk, members: list[str]) -> list[str]:
    """Files beside the destination that only the image needs which is being replaced: the extents of a VMDK.

    Only names that imgtool and VMware give to extents of this disk: what else a descriptor names may be another's.
    """
    if not (request.force and os.path.lexists(request.destination)):
        return []
    try:
        with open_disk(request.destination) as old:
            directory = os.path.dirname(request.destination)
            needed = {os.path.basename(file.path) for file in disk.files} | set(members)
            beside = [os.path.basename(file.path) for file in old.top.files[1:] if os.path.dirname(file.path) == directory]
            own = re.compile(re.escape(os.path.splitext(os.path.basename(request.destination))[0])
                             + r"(-[0-9a-f]{6})?-(flat|[fs]\d{3,})\.vmdk")
            return [name for name in beside if name not in needed and own.fullmatch(name)]
    except ImgtoolError:
        return []


def _result(request: ConvertRequest, disk: Disk, written: _Written, is_so: Allocation, subformat: str | None,
            seconds: float) -> ConvertResult:
    directory = os.path.dirname(request.destination)
    warnings = [*disk.warnings, *written.warnings]
    if is_so != request.spec.allocation:
        warnings.append(f"{request.spec.allocation.value} was asked for; on the disk the image is {is_so.value}")
    if not request.verify:
        warnings.append("the result was not compared with the source (--no-verify)")
    stats = written.stats
    return ConvertResult(
        source=request.source, destination=request.destination, format=request.spec.format, subformat=subformat,
        allocation=is_so.value, virtual_size=disk.virtual_size, engine=stats.engine, bytes_read=stats.bytes_read,
        bytes_written=stats.bytes_written, bytes_cloned=stats.bytes_cloned, detected_zeroes=stats.detected_zeroes,
        seconds=round(seconds, 3), verified=request.verify,
        files=tuple(os.path.join(directory, member) for member in written.members), warnings=tuple(warnings))
