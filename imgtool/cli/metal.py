"""The commands on physical disks: v2p."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgtool.cli import completion, output
from imgtool.cli.guests import DiskRoot, KeyFile, mac_pair, with_keys
from imgtool.cli.images import AsJson, DryRun, External, IgnoreLock, RateLimit, ShowProgress, SourceFormat, control_of
from imgtool.errors import RefusedError, UsageError
from imgtool.model import SourceOptions
from imgtool.progress import ends_at_once

if TYPE_CHECKING:
    from imgtool.model.v2p import DiskChoice, V2pPlan

Machine = Annotated[str, typer.Argument(
    metavar="NAME|IMAGE", help="A machine of --from; or a disk image, or a description.",
    autocompletion=completion.machines_or_files)]
Disks = Annotated[list[str], typer.Option(
    "--disk", metavar="SOURCE=DEVICE", help="A disk of the machine (vda, 0) and the physical disk for it, best by its name "
    "under /dev/disk/by-id. May be repeated.", autocompletion=completion.metal_disks)]
From = Annotated[str | None, typer.Option(
    "--from", metavar="URI|PATH", help="Where the machine is: esx://, qemu:///, or its description.",
    autocompletion=completion.sources)]
To = Annotated[str | None, typer.Option(
    "--to", metavar="metal+ssh://USER@HOST", help="The machine that has the disks; default: this one.",
    autocompletion=completion.metal_hosts)]
Confirmed = Annotated[list[str] | None, typer.Option(
    "--yes-write-to", metavar="SERIAL",
    help="Serial or by-id name of a disk that may be written over. May be repeated.")]
Wipe = Annotated[bool, typer.Option("--wipe", help="Zero all that the image does not have; write over what a RAID, LVM or ZFS "
                                   "has left.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.command()(v2p)


def v2p(
    name: Machine, disk: Disks, source: From = None, to: To = None, yes_write_to: Confirmed = None,
    grow: Annotated[bool, typer.Option("--grow", help="The last partition and its file system reach to the disk's end.")] = False,
    wipe: Wipe = False,
    no_adapt: Annotated[bool, typer.Option("--no-adapt", help="Write the guest as it is: no drivers, no boot loader.")] = False,
    mac: Annotated[list[str] | None, typer.Option(
        "--mac", metavar="OLD=NEW", help="A network card gets another address. May be repeated.")] = None,
    boot_entry: Annotated[bool, typer.Option(
        "--boot-entry", help="The firmware (UEFI) of the machine that has the disks starts it first: efibootmgr.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Read the disk back and compare.")] = True,
    discard_partial: Annotated[bool, typer.Option(
        "--discard-partial", help="Forget a run that was stopped, and do nothing else.")] = False,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="For --from.")] = None,
    thumbprint: Annotated[str | None, typer.Option(metavar="SHA256", help="Of the server's certificate.")] = None,
    key_file: KeyFile = None, disk_root: DiskRoot = None, rate_limit: RateLimit = None, source_format: SourceFormat = None,
    allow_external: External = False, ignore_lock: IgnoreLock = False, dry_run: DryRun = False, progress: ShowProgress = "auto",
    as_json: AsJson = False,
) -> None:
    """Write a virtual machine to physical disks that boot.

    What is on these disks will be gone: the serial of each must be typed, or said. Stopped, the same command goes on.

    \b
    Examples:
      imgtool v2p web.qcow2 --disk vda=/dev/disk/by-id/ata-X_123 --dry-run
      imgtool v2p web --from qemu:///system --disk vda=/dev/disk/by-id/nvme-X \\
          --to metal+ssh://root@new --yes-write-to S3X0
    """
    from imgtool.model.endpoint import Credentials
    from imgtool.model.v2p import V2pRequest
    from imgtool.steps.v2p import discard, prepare
    from imgtool.steps.v2p import v2p as run

    request = V2pRequest(
        name=name, source=source, target=to, disks=tuple(map(choice, disk)), confirmed=tuple(yes_write_to or ()),
        reading=SourceOptions(format=source_format, allow_external=allow_external, ignore_lock=ignore_lock),
        disk_roots=tuple(map(str, disk_root or ())), adapt=not no_adapt, macs=tuple(map(mac_pair, mac or ())),
        credentials=Credentials(password_file=str(password_file) if password_file else None, thumbprint=thumbprint),
        key_files=tuple(map(str, key_file or ())), grow=grow, wipe=wipe, verify=verify, boot_entry=boot_entry)
    control = control_of(progress, rate_limit)
    if discard_partial:
        found = discard(request)
        output.show({"discarded": found}, ["forgotten" if found else "there was nothing"], as_json=as_json)
        return
    asking = sys.stdin.isatty() and sys.stderr.isatty()
    if dry_run or asking:
        plan = prepare(request, control, fetch=not dry_run)
        if dry_run:
            _show(plan, as_json=as_json)
            return
        request = replace(request, confirmed=(*request.confirmed, *_asked(plan)))
    with output.interrupted("a disk that was begun is written in part", "the same command goes on where it stopped"):
        result = with_keys(lambda keys: run(request, control, keys=keys))
    output.show(result, output.v2p_lines(result), as_json=as_json)
    output.say_warnings(result.warnings)


def choice(text: str) -> DiskChoice:
    """``vda=/dev/disk/by-id/X``, or only the device. Raises UsageError."""
    from imgtool.model.v2p import DiskChoice

    source, equals, device = text.partition("=")
    if not equals or "/" in source:
        source, device = "", text
    if not device.startswith("/dev/"):
        raise UsageError(f"--disk {text}: SOURCE=DEVICE is wanted, as in vda=/dev/disk/by-id/ata-X_123")
    return DiskChoice(source=source, device=device)


def _show(plan: V2pPlan, *, as_json: bool) -> None:
    """The plan; a fatal problem has its exit code with --dry-run too."""
    from imgtool.plan import Plan, Step

    steps = [Step(verb="v2p", request=one, summary=f"{one.image} → {one.device}", bytes=one.image_size, notes=one.notes)
             for one in plan.disks]
    document = {**asdict(plan), "steps": Plan(steps=tuple(steps)).to_json()["steps"]}
    output.show(document, output.v2p_plan_lines(plan), as_json=as_json)
    output.say_warnings(plan.warnings)
    _refuse(plan)


def _refuse(plan: V2pPlan) -> None:
    for problem in plan.problems:
        if problem.fatal:
            raise RefusedError(problem.what, problem.hint)


def _asked(plan: V2pPlan) -> Sequence[str]:
    """What somebody types at the terminal for each disk that was not named before. Raises RefusedError."""
    _refuse(plan)
    typed = []
    for one in plan.disks:
        if one.confirmed:
            continue
        for line in output.v2p_disk_lines(one):
            typer.echo(output.printable(line), err=True)
        with ends_at_once():
            word = typer.prompt(f"all of it will be gone. Type {output.printable(one.confirm)} to go on", err=True).strip()
        if word != one.confirm:
            raise RefusedError(f"that is not {one.confirm}", "nothing was written")
        typed.append(word)
    return typed


