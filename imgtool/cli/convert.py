"""convert: a disk image, or a whole machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgtool.cli import completion, machines, output
from imgtool.cli.images import (
    AsJson,
    DryRun,
    Eager,
    External,
    IgnoreLock,
    RateLimit,
    ShowProgress,
    SourceFormat,
    Thick,
    Thin,
    allocation_of,
    carry_out,
    control_of,
)
from imgtool.cli.machines import DiskRoot, HardwareVersion, MapNetwork, MapStorage, Name, NewIdentity, Strict
from imgtool.errors import UsageError
from imgtool.model import ConvertRequest, SourceOptions
from imgtool.runs.wishes import spec_of
from imgtool.suffixes import is_machine

if TYPE_CHECKING:
    from imgtool.model.translation import TranslateRequest
    from imgtool.progress import Control

Given = Annotated[Path, typer.Argument(
    metavar="SRC|MACHINE", help="A disk image; or a machine: .vmx, .xml, .ovf, .ova.",
    autocompletion=completion.machine_files)]
Wanted = Annotated[str | None, typer.Argument(
    metavar="DST|DIR", help="Default: beside SRC, with FORMAT's suffix. Of a machine: a new folder, or an .ova.")]
Format = Annotated[str, typer.Option(
    "--to", metavar="FORMAT", help="qcow2, vmdk, raw, vhdx, vpc or vdi.", autocompletion=completion.formats)]
Subformat = Annotated[str | None, typer.Option(
    metavar="NAME", help="Of vmdk: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, "
    "streamOptimized, vmfs.", autocompletion=completion.subformats)]
CompressType = Annotated[str | None, typer.Option(
    metavar="zlib|zstd", help="Of a compressed qcow2.", autocompletion=lambda: ("zlib", "zstd"))]
Rewrite = Annotated[Path | None, typer.Option(
    metavar="FILE", help="Beside DST, write what this description says, changed for the side that can use FORMAT.",
    autocompletion=completion.descriptions)]
RewriteTo = Annotated[Path | None, typer.Option(metavar="FILE", help="Name of what --rewrite writes.")]
Options = Annotated[list[str] | None, typer.Option(
    "-o", metavar="KEY=VALUE", help="As for qemu-img, e.g. cluster_size=2M.")]
DetectZeroes = Annotated[bool | None, typer.Option(
    "--detect-zeroes/--no-detect-zeroes", help="Look for written zeros and leave them out of a thin image.")]

def register(app: typer.Typer) -> None:
    """Adds the command of this module to the program."""
    app.command()(convert)


def convert(
    source: Given, destination: Wanted = None, to: Format = "",
    thin: Thin = False, thick: Thick = False, eager: Eager = False, subformat: Subformat = None,
    compress: Annotated[bool, typer.Option("--compress", help="Compress (qcow2, streamOptimized vmdk).")] = False,
    compress_type: CompressType = None,
    compress_level: Annotated[int | None, typer.Option(metavar="N", help="1 (fast) to 9 (small).")] = None,
    option: Options = None, detect_zeroes: DetectZeroes = None,
    no_clone: Annotated[bool, typer.Option("--no-clone", help="Share no blocks with the source.")] = False,
    only_used: Annotated[bool, typer.Option(
        "--only-used", help="What the guest's file systems do not use becomes zeros.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare the result with the source.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace DST.")] = False,
    rewrite: Rewrite = None, rewrite_to: RewriteTo = None,
    map_network: MapNetwork = None, map_storage: MapStorage = None, disk_root: DiskRoot = None, name: Name = None,
    new_identity: NewIdentity = False, hardware_version: HardwareVersion = None, strict: Strict = False,
    rate_limit: RateLimit = None, source_format: SourceFormat = None, allow_external: External = False,
    ignore_lock: IgnoreLock = False, dry_run: DryRun = False, progress: ShowProgress = "auto", as_json: AsJson = False,
) -> None:
    """Convert a disk image or a whole machine, and prove it equal.

    Of a machine: all disks, and its description, rewritten for the other side. The source is only read.

    \b
    Examples:
      imgtool convert web01.vmdk --to qcow2 --thick
      imgtool convert web01.vmx kvm/ --to qcow2 --map-network 'VM Network=br0'
    """
    if not to:
        raise UsageError("--to is missing", "--to qcow2, vmdk, raw, vhdx, vpc or vdi")
    pairs = tuple(_option(text) for item in option or [] for text in item.split(","))
    whole = is_machine(str(source))
    spec = spec_of(to, destination or "", whole=whole, subformat=subformat, compress=compress, compress_type=compress_type,
                 compress_level=compress_level, options=pairs, allocation=allocation_of(thin=thin, thick=thick, eager=eager))
    request = ConvertRequest(
        source=str(source), destination=_destination(str(source), destination, to, whole=whole),
        spec=spec, reading=SourceOptions(format=source_format, allow_external=allow_external, ignore_lock=ignore_lock),
        force=force, verify=verify, clone=not no_clone, detect_zeroes=detect_zeroes, only_used=only_used)
    of_machine: dict[str, Any] = {
        "map_network": map_network, "map_storage": map_storage, "disk_root": disk_root, "name": name,
        "new_identity": new_identity, "hardware_version": hardware_version, "strict": strict}
    if whole or rewrite or rewrite_to:
        how = machines.translate_options(**of_machine, force=force)
        _with_description(request, how, rewrite, rewrite_to, control_of(progress, rate_limit), dry_run=dry_run, as_json=as_json)
        return
    if any(of_machine.values()):
        raise UsageError("that option changes a machine's description, and a disk image has none",
                         "convert MACHINE DIR, or --rewrite FILE")
    from imgtool.runs import build

    control = control_of(progress, rate_limit)
    carry_out(build.convert_plan(request, control), control, output.convert_lines, dry_run=dry_run, as_json=as_json)


def _with_description(request: ConvertRequest, how: TranslateRequest, rewrite: Path | None, rewrite_to: Path | None,
                      control: Control, *, dry_run: bool, as_json: bool) -> None:
    """A machine; or one disk, and the description that names it."""
    whole = is_machine(request.source)
    if whole and not (rewrite or rewrite_to):
        machines.convert_machine(request, how, control, dry_run=dry_run, as_json=as_json)
    elif rewrite and not whole:
        machines.convert_and_rewrite(request, how, str(rewrite), rewrite_to, control, dry_run=dry_run, as_json=as_json)
    else:
        raise UsageError("--rewrite FILE goes with one disk image", "convert MACHINE DIR writes a description in any case")


def _destination(source: str, destination: str | None, to: str, *, whole: bool) -> str:
    from imgtool.steps.spec import destination_of

    if not whole:
        return destination_of(source, destination, to)
    if destination is None:
        raise UsageError("convert MACHINE DIR: DIR is missing", "a new folder, for the disks and their description")
    return os.path.realpath(destination)


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"-o {text}: KEY=VALUE is wanted, as in -o cluster_size=2M")
    return key.strip(), value


