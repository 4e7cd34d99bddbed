"""check: is an image sound? Our own reading of all its tables, and qemu-img check where the format has one."""

from __future__ import annotations

from imgtool import qemu
from imgtool.errors import DamagedError
from imgtool.formats.disk import Disk, open_given, qemu_reads
from imgtool.formats.layer import Layer
from imgtool.model import CheckResult, SourceOptions
from imgtool.progress import Control

CHECKED = ("qcow2", "vmdk", "vhdx", "vdi")
"""Formats that qemu-img can check."""


def check(path: str, reading: SourceOptions, control: Control) -> CheckResult:
    """Of the image and of all that it stands on. An unsound image is a result, not an error."""
    try:
        with open_given(path, reading, control.stop) as disk:
            return _check(disk, control)
    except DamagedError as error:
        return CheckResult(path=path, format=reading.format or "unknown", sound=False, errors=(error.message,))


def _check(disk: Disk, control: Control) -> CheckResult:
    errors: list[str] = []
    warnings = list(disk.warnings)
    leaks = 0
    try:
        for _ in disk.extents():
            control.stop.check()
    except DamagedError as error:
        errors.append(error.message)
    for layer in disk.layers:
        if layer.format in CHECKED and not layer.encrypted:
            said, leaked = _qemu_check(layer, control)
            errors += said
            leaks += leaked
    if leaks:
        warnings.append(f"{leaks} clusters are allocated and belong to nothing: harmless; qemu-img check -r leaks frees them")
    return CheckResult(path=disk.path, format=disk.top.format, sound=not errors, errors=tuple(errors), warnings=tuple(warnings),
                       leaked_clusters=leaks)


def _qemu_check(layer: Layer, control: Control) -> tuple[list[str], int]:
    """What qemu-img says of one layer, without those below: errors, leaked clusters."""
    if not qemu_reads(layer) or layer.subformat == "seSparse":
        return [], 0
    graph: dict[str, object] = {"driver": layer.format, "file": qemu.file_node(layer.files[0])}
    if layer.format == "qcow2" or layer.backing:
        graph["backing"] = None
    if layer.format == "qcow2" and len(layer.files) > 1:
        graph["data-file"] = qemu.file_node(layer.files[1])
    report, said = qemu.check(graph, stop=control.stop)
    corruptions, failures = int(str(report.get("corruptions", 0))), int(str(report.get("check-errors", 0)))
    errors = [f"{layer.path}: qemu-img check found {corruptions} corruption(s)"] if corruptions else []
    if failures:
        errors.append(f"{layer.path}: qemu-img check failed: {said.strip() or failures}")
    return errors, int(str(report.get("leaks", 0)))
