"""The commands on disk images: info, map, check, allocate, verify, doctor; and options that others share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from imgtool.cli import completion, output
from imgtool.errors import DamagedError, DifferError, ImgtoolError, MissingToolError, UsageError
from imgtool.model import AllocateRequest, AllocateResult, Allocation, ConvertResult, ImageInfo, SourceOptions
from imgtool.progress import Control, Rate, Stop

if TYPE_CHECKING:
    from imgtool.model.metal import DiskInfo
    from imgtool.plan import Plan

STOP = Stop()
"""Set by the signal handlers of ``app.main``."""
PROGRESS = ("auto", "bar", "json", "none")
MULTIPLIERS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="A disk image.", autocompletion=completion.disks)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
SourceFormat = Annotated[str | None, typer.Option(
    "--source-format", metavar="FORMAT", help="What the image is, where name and header do not agree: raw, qcow2, vmdk, ...",
    autocompletion=completion.formats)]
External = Annotated[bool, typer.Option("--allow-external", help="Follow names in the image that lead outside its directory.")]
IgnoreLock = Annotated[bool, typer.Option("--ignore-lock", help="Go on although a lock says that the machine runs.")]
RateLimit = Annotated[str | None, typer.Option("--rate-limit", metavar="BYTES", help="Bytes a second at most, as in 100M.")]
ShowProgress = Annotated[str, typer.Option(
    "--progress", metavar="auto|bar|json|none", help="How progress is shown, on stderr.", autocompletion=lambda: PROGRESS)]
Thin = Annotated[bool, typer.Option("--thin", help="Space is taken when it is written (default).")]
ThinAgain = Annotated[bool, typer.Option("--thin", help="Space that holds zeros only is given back.")]
Thick = Annotated[bool, typer.Option("--thick", help="All space is reserved now (VMware: lazily zeroed thick).")]
Eager = Annotated[bool, typer.Option("--eager", help="All space is reserved and written with zeros now.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, and do nothing.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    for command in (info, map_, check, allocate, verify, doctor):
        app.command(name=command.__name__.rstrip("_"))(command)


def control_of(progress: str = "none", rate_limit: str | None = None) -> Control:
    """What the options say of progress and rate. Raises UsageError."""
    if progress not in PROGRESS:
        raise UsageError(f"--progress {progress}: one of {', '.join(PROGRESS)}")
    return Control(progress=output.progress_of(progress), stop=STOP, rate=Rate(_bytes(rate_limit) if rate_limit else None))


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not int(match[1]):
        raise UsageError(f"--rate-limit {text} is not a number of bytes", "as in 100M, for 100 MiB a second")
    return int(match[1]) * MULTIPLIERS[match[2].upper()]


def allocation_of(*, thin: bool, thick: bool, eager: bool) -> Allocation | None:
    """Which of the three was said. Raises UsageError for more than one."""
    said = [kind for kind, is_said in zip(Allocation, (thin, thick, eager), strict=True) if is_said]
    if len(said) > 1:
        raise UsageError(f"--{said[0].value} and --{said[1].value} exclude each other")
    return said[0] if said else None


def carry_out(plan: Plan, control: Control, lines: Callable[[Any], Iterable[str]], *, dry_run: bool, as_json: bool) -> None:
    """Prints a plan of one step, or does it and prints its result."""
    from imgtool.runs import local

    if dry_run:
        output.show(plan.to_json(), plan.explain(), as_json=as_json)
        return
    (result,) = cast("list[ConvertResult | AllocateResult]", local.run(plan, control))
    output.show(result, lines(result), as_json=as_json)
    output.say_warnings(result.warnings)


def info(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Disk images.", autocompletion=completion.disks)],
    as_json: AsJson = False, source_format: SourceFormat = None, allow_external: External = False,
) -> None:
    """Say what an image is: format, sizes, thin or thick, its chain.

    Sizes and allocation are measured on the disk, not read from a header. Of a physical disk: its model, serial and partitions.

    \b
    Examples:
      imgtool info disk.vmdk
      imgtool info --json *.qcow2
    """
    from imgtool.formats.disk import open_disk
    from imgtool.formats.measure import describe

    found: list[ImageInfo] = []
    below: list[DiskInfo | None] = []
    failed: list[ImgtoolError] = []
    alone = len(images) == 1
    for image in images:
        with output.each(failed, alone=alone):
            with open_disk(str(image), source_format=source_format, allow_external=allow_external, stop=STOP) as disk:
                described = describe(disk)
            below.append(_physical(image))
            found.append(described)
    _show_info(found, below, alone=alone, as_json=as_json)
    if failed:
        raise typer.Exit(failed[0].exit_code)


def _show_info(found: list[ImageInfo], below: list[DiskInfo | None], *, alone: bool, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        documents = [asdict(one) | ({"disk": asdict(metal)} if metal else {}) for one, metal in zip(found, below, strict=True)]
        output.show(documents[0] if alone else {"images": documents}, (), as_json=True)
        return
    for number, one in enumerate(found):
        more = output.disk_lines(metal) if (metal := below[number]) else ()
        output.show(one, [*([""] if number else []), *output.info_lines(one), *more], as_json=False)
        output.say_warnings(one.warnings)


def _physical(path: Path) -> DiskInfo | None:
    """Of a whole block device."""
    if not path.is_block_device():
        return None
    from imgtool.endpoints.metal.describe import physical

    return physical(str(path), STOP)


def map_(image: Image, as_json: AsJson = False, source_format: SourceFormat = None, allow_external: External = False) -> None:
    """Draw where the data is, or list its exact ranges (--json).

    \b
    Examples:
      imgtool map disk.qcow2
      imgtool map --json disk.vmdk
    """
    from imgtool.formats.disk import open_disk
    from imgtool.formats.measure import mapped

    with open_disk(str(image), source_format=source_format, allow_external=allow_external, stop=STOP) as disk:
        ranges = mapped(disk)
        extents = chain(list(islice(ranges, output.MAP_AT_ONCE)), ranges)
        if as_json:
            output.map_json(disk.virtual_size, extents)
        else:
            output.show(None, output.map_lines(disk.virtual_size, extents), as_json=False)
            output.say_warnings(disk.warnings)


def check(image: Image, as_json: AsJson = False, source_format: SourceFormat = None, allow_external: External = False) -> None:
    """Check that an image is sound: its tables, chain and files.

    An image that is not sound ends with exit code 5.

    \b
    Examples:
      imgtool check disk.qcow2
      imgtool check --json snapshot-000001.vmdk
    """
    from imgtool.steps.check import check as run

    result = run(str(image), SourceOptions(format=source_format, allow_external=allow_external), control_of())
    output.show(result, output.check_lines(result), as_json=as_json)
    output.say_warnings(result.warnings)
    if not result.sound:
        raise typer.Exit(DamagedError.exit_code)


def allocate(
    image: Image, thin: ThinAgain = False, thick: Thick = False, eager: Eager = False, rate_limit: RateLimit = None,
    source_format: SourceFormat = None, allow_external: External = False, ignore_lock: IgnoreLock = False,
    dry_run: DryRun = False, progress: ShowProgress = "auto", as_json: AsJson = False,
) -> None:
    """Make an image thin, thick or eager, in place.

    There is no second copy. What the guest reads stays as it is.

    \b
    Examples:
      imgtool allocate disk.qcow2 --thick
      imgtool allocate disk-flat.vmdk --thin
    """
    from imgtool.runs import build

    allocation = allocation_of(thin=thin, thick=thick, eager=eager)
    if allocation is None:
        raise UsageError("which allocation?", "one of --thin, --thick, --eager")
    request = AllocateRequest(path=str(image), allocation=allocation, reading=SourceOptions(
        format=source_format, allow_external=allow_external, ignore_lock=ignore_lock))
    control = control_of(progress, rate_limit)
    carry_out(build.allocate_plan(request, control), control, output.allocate_lines, dry_run=dry_run, as_json=as_json)


def verify(
    left: Annotated[Path, typer.Argument(metavar="A", help="A disk image.", autocompletion=completion.disks)],
    right: Annotated[Path, typer.Argument(metavar="B", help="Another, of any format.", autocompletion=completion.disks)],
    only_used: Annotated[bool, typer.Option("--only-used", help="Only what the file systems of A use.")] = False,
    source_format: SourceFormat = None, allow_external: External = False, rate_limit: RateLimit = None,
    progress: ShowProgress = "auto", as_json: AsJson = False,
) -> None:
    """Compare what a guest would read from two images.

    Their formats do not matter. Exit code 3 if they differ.

    \b
    Examples:
      imgtool verify x.vmdk x.qcow2
      imgtool verify --json disk.raw disk.vhdx
    """
    from imgtool.steps.verify import verify as run

    result = run(str(left), str(right), SourceOptions(format=source_format, allow_external=allow_external),
                 control_of(progress, rate_limit), used=only_used)
    output.show(result, output.verify_lines(result), as_json=as_json)
    output.say_warnings(result.warnings)
    if not result.identical:
        raise typer.Exit(DifferError.exit_code)


def doctor(as_json: AsJson = False) -> None:
    """Say which system tools are missing, and how to install them.

    Exit code 6 if one is missing that must be there.

    \b
    Examples:
      imgtool doctor
      imgtool doctor --json
    """
    from imgtool.steps.doctor import examine

    report = examine(STOP)
    output.show(report, report.lines(), as_json=as_json)
    if any(tool.needed and not tool.found for tool in report.tools):
        raise typer.Exit(MissingToolError.exit_code)
