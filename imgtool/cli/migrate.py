"""migrate and p2v: a machine from one place to another, the whole way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgtool.cli import completion, output
from imgtool.cli.guests import KeyFile, with_keys
from imgtool.cli.images import (
    STOP,
    AsJson,
    DryRun,
    Eager,
    IgnoreLock,
    RateLimit,
    ShowProgress,
    Thick,
    Thin,
    allocation_of,
    control_of,
)
from imgtool.cli.machines import DiskRoot, HardwareVersion, MapNetwork, MapStorage, Name, NewIdentity, translate_options
from imgtool.errors import ImgtoolError, UsageError
from imgtool.model import Allocation
from imgtool.units import size

if TYPE_CHECKING:
    from imgtool.model.endpoint import Credentials, Uri
    from imgtool.model.migration import GuestOptions, Migrated, MigrateRequest
    from imgtool.progress import Control

PHYSICAL = "metal+ssh://root@HOST, or metal:///dev/X"

From = Annotated[str, typer.Option(
    "--from", metavar="URI", help="esx://, vpx://, qemu:///system, qemu+ssh://; or a .vmx, .xml, .ovf, .ova.",
    autocompletion=completion.sources)]
To = Annotated[str, typer.Option(
    "--to", metavar="URI", help="esx://, vpx://, qemu:///system, qemu+ssh://; or a folder.", autocompletion=completion.targets)]
FromPassword = Annotated[Path | None, typer.Option(
    "--from-password-file", metavar="FILE", help="Its first line is the password at the source.")]
ToPassword = Annotated[Path | None, typer.Option(
    "--to-password-file", metavar="FILE", help="Its first line is the password at the target.")]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", metavar="FILE", help="Of both sides.")]
Thumbprint = Annotated[list[str] | None, typer.Option(
    "--thumbprint", metavar="[from=|to=]HEX", help="Of the certificate that the other side must show. May be repeated.")]
Storage = Annotated[str | None, typer.Option("--storage", metavar="NAME", help="Datastore or storage pool at the target.")]
Pool = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Resource pool at the target.")]
InFolder = Annotated[str | None, typer.Option("--folder", metavar="NAME", help="Folder of machines at the target.")]
OnHost = Annotated[str | None, typer.Option("--host", metavar="NAME", help="Host of a vCenter.")]
DiskFormat = Annotated[str | None, typer.Option(
    "--format", metavar="FORMAT", help="Of the disks at the target: qcow2, raw.", autocompletion=lambda: ("qcow2", "raw"))]
Staging = Annotated[Path | None, typer.Option(
    "--staging", metavar="DIR", help="Where copies lie that are on their way. Default: imgtool's state folder.")]
VirtioWin = Annotated[Path | None, typer.Option(
    "--virtio-win", metavar="DIR|ISO", help="Windows on KVM: virtio-win.iso, or what is in it.")]
Drivers = Annotated[Path | None, typer.Option(
    "--drivers", metavar="DIR|ISO", help="Windows on ESXi: the drivers of VMware Tools (pvscsi, vmxnet3).")]
Packages = Annotated[Path | None, typer.Option(
    "--packages", metavar="DIR", help="Packages (deb, rpm, apk and the like) that the guest installs when it first boots.")]
NoClone = Annotated[bool, typer.Option("--no-clone", help="Share no blocks with the source.")]
Adapt = Annotated[bool, typer.Option("--adapt/--no-adapt", help="Change the guest for its new hardware.")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Compare what arrived with what was sent.")]
Start = Annotated[bool, typer.Option("--start", help="Start the machine at the end, and look at it.")]
ShutDown = Annotated[bool, typer.Option("--shutdown-source", help="Shut the machine down at the source first, by its guest.")]
List = Annotated[bool, typer.Option("--list", help="List the machines at the source, and do nothing.")]
Discard = Annotated[bool, typer.Option("--discard-partial", help="Remove what a stopped run has left, and do nothing else.")]
Report = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write a page (HTML) about what was done.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.command()(migrate)
    app.command()(p2v)


def migrate(
    machine: Annotated[str | None, typer.Argument(
        metavar="NAME", help="Of the machine at the source.", autocompletion=completion.machines)] = None,
    source: From = "", target: To = "", name: Name = None,
    storage: Storage = None, pool: Pool = None, folder: InFolder = None, host: OnHost = None,
    map_network: MapNetwork = None, map_storage: MapStorage = None, disk_root: DiskRoot = None, disk_format: DiskFormat = None,
    thin: Thin = False, thick: Thick = False, eager: Eager = False, no_clone: NoClone = False,
    adapt: Adapt = True, key_file: KeyFile = None, virtio_win: VirtioWin = None, drivers: Drivers = None,
    packages: Packages = None,
    rebuild_initramfs: Annotated[bool, typer.Option("--rebuild-initramfs", help="Run the guest's own tool.")] = False,
    new_identity: NewIdentity = False, hardware_version: HardwareVersion = None,
    shutdown_source: ShutDown = False, start: Start = False, verify: Verify = True,
    password_file: PasswordFile = None, from_password_file: FromPassword = None, to_password_file: ToPassword = None,
    thumbprint: Thumbprint = None, staging: Staging = None, discard_partial: Discard = False, list_machines: List = False,
    report: Report = None, rate_limit: RateLimit = None, ignore_lock: IgnoreLock = False, dry_run: DryRun = False,
    progress: ShowProgress = "auto", as_json: AsJson = False,
) -> None:
    """Move a machine from one hypervisor to another, the whole way.

    It is powered off. It is copied, adapted, verified and defined; the source stays. Stopped, the same command goes on.

    \b
    Examples:
      imgtool migrate web01 --from esx://root@esxi1/ --to qemu:///system \\
          --map-network 'VM Network=br0'
      imgtool migrate web01 --from qemu:///system --to esx://root@esxi1/ \\
          --storage datastore1 --dry-run
    """
    from imgtool.endpoints.uri import parse
    from imgtool.model.endpoint import Placing
    from imgtool.model.migration import MigrateRequest

    credentials = _credentials(password_file, from_password_file, thumbprint, "from")
    if list_machines:
        _list(_needed(source, "--from"), credentials, as_json=as_json)
        return
    how = translate_options(
        map_network=map_network, map_storage=map_storage, disk_root=disk_root, name=name, new_identity=new_identity,
        hardware_version=hardware_version, strict=False, force=False)
    request = MigrateRequest(
        name=machine, source=parse(_needed(source, "--from")), target=parse(_needed(target, "--to")),
        source_credentials=credentials, new_name=name,
        target_credentials=_credentials(password_file, to_password_file, thumbprint, "to"),
        placing=Placing(storage=storage, pool=pool, folder=folder, host=host,
                        networks=tuple(new.name for _, new in how.networks if new.name)),
        networks=how.networks, storage=how.storage, disk_roots=how.disk_roots, format=disk_format,
        allocation=allocation_of(thin=thin, thick=thick, eager=eager) or Allocation.THIN,
        guest=_guest(adapt, key_file, virtio_win or drivers, packages, rebuild_initramfs=rebuild_initramfs),
        new_identity=new_identity, hardware_version=hardware_version, verify=verify, clone=not no_clone, start=start,
        shutdown_source=shutdown_source, ignore_lock=ignore_lock, staging=str(staging.absolute()) if staging else None)
    _carry_out(request, control_of(progress, rate_limit), discard_partial=discard_partial, dry_run=dry_run, as_json=as_json,
               report=report)


def p2v(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of the new machine. Default: the host's name.")] = None,
    source: Annotated[str, typer.Option(
        "--from", metavar="URI", help="metal+ssh://user@host[/dev/X,/dev/Y], or metal:///dev/X.",
        autocompletion=completion.metal)] = "",
    target: To = "", storage: Storage = None, pool: Pool = None, folder: InFolder = None, host: OnHost = None,
    map_network: MapNetwork = None, disk_format: DiskFormat = None,
    thin: Thin = False, thick: Thick = False, eager: Eager = False,
    live: Annotated[bool, typer.Option("--live", help="Disks in use: passes over what changes, the last one frozen.")] = False,
    snapshot: Annotated[str | None, typer.Option(
        "--snapshot", metavar="fsfreeze|lvm", help="Disks in use: one pass, with the file systems frozen; or logical volumes "
        "from snapshots, which are made and removed there.",
        autocompletion=lambda: ("fsfreeze", "lvm"))] = None,
    freeze_seconds: Annotated[float, typer.Option(
        "--freeze-seconds", metavar="N", help="File systems that were frozen thaw by themselves after so long.")] = 60.0,
    whole: Annotated[bool, typer.Option("--whole", help="Every byte, not only what file systems use.")] = False,
    rescue: Annotated[Path | None, typer.Option(
        "--rescue", metavar="DIR", help="Go on at bad sectors; DIR gets a map of them (ddrescue's format). Exit code 1.")] = None,
    adapt: Adapt = True, key_file: KeyFile = None, virtio_win: VirtioWin = None, drivers: Drivers = None,
    packages: Packages = None,
    hardware_version: HardwareVersion = None,
    start: Start = False, verify: Verify = True, password_file: ToPassword = None, thumbprint: Thumbprint = None,
    staging: Staging = None, discard_partial: Discard = False, report: Report = None, rate_limit: RateLimit = None,
    dry_run: DryRun = False, progress: ShowProgress = "auto", as_json: AsJson = False,
) -> None:
    """Make a virtual machine of a physical one.

    Its hardware, its disks (what their file systems use), drivers and network. Stopped, the same command goes on.

    \b
    Examples:
      imgtool p2v web01 --from metal+ssh://root@old-server --to qemu:///system
      imgtool p2v old --from metal:///dev/sdb --to /srv/old
    """
    from imgtool.endpoints.uri import parse
    from imgtool.model.endpoint import Placing
    from imgtool.model.metal import Reading
    from imgtool.model.migration import MigrateRequest

    _refuse_snapshot(snapshot, live=live)
    how = translate_options(map_network=map_network, map_storage=None, disk_root=None, name=name, new_identity=False,
                            hardware_version=hardware_version, strict=False, force=False)
    rescued = _folder(rescue) if rescue else None
    request = MigrateRequest(
        name=None, source=_physical(source), target=parse(_needed(target, "--to")), new_name=name,
        target_credentials=_credentials(None, password_file, thumbprint, "to"),
        placing=Placing(storage=storage, pool=pool, folder=folder, host=host,
                        networks=tuple(new.name for _, new in how.networks if new.name)),
        networks=how.networks, format=disk_format,
        allocation=allocation_of(thin=thin, thick=thick, eager=eager) or Allocation.THIN,
        guest=_guest(adapt, key_file, virtio_win or drivers, packages, rebuild_initramfs=False),
        hardware_version=hardware_version, verify=verify, start=start, staging=str(staging.absolute()) if staging else None,
        reading=Reading(whole=whole, live=live, frozen=snapshot == "fsfreeze", lvm=snapshot == "lvm", rescue=rescued,
                        freeze_seconds=freeze_seconds))
    _carry_out(request, control_of(progress, rate_limit), discard_partial=discard_partial, dry_run=dry_run, as_json=as_json,
               report=report)


def _refuse_snapshot(kind: str | None, *, live: bool) -> None:
    """Raises UsageError."""
    if kind == "btrfs":
        raise UsageError("--snapshot btrfs: a snapshot of btrfs is a folder of the same file system, no disk that can be copied",
                         "--snapshot fsfreeze or --live: btrfs can be frozen")
    if kind not in (None, "fsfreeze", "lvm"):
        raise UsageError(f"--snapshot {kind}: imgtool knows fsfreeze and lvm",
                         "or take the snapshot yourself, and name it in --from")
    if kind == "lvm" and live:
        raise UsageError("--live and --snapshot lvm exclude each other", "--live needs no snapshot")


def _guest(adapt: bool, key_file: list[Path] | None, drivers: Path | None, packages: Path | None, *,
           rebuild_initramfs: bool) -> GuestOptions:
    from imgtool.model.migration import GuestOptions

    return GuestOptions(adapt=adapt, key_files=tuple(map(str, key_file or ())), drivers=str(drivers) if drivers else None,
                        packages=str(packages) if packages else None, rebuild_initramfs=rebuild_initramfs)


def _folder(path: Path) -> str:
    if not path.is_dir():
        raise UsageError(f"--rescue {path} is not a folder", "mkdir -p makes it")
    return str(path.absolute())


def _carry_out(request: MigrateRequest, control: Control, *, discard_partial: bool, dry_run: bool, as_json: bool,
               report: Path | None) -> None:
    from imgtool.steps import migrate as steps

    if report and not report.absolute().parent.is_dir():
        raise UsageError(f"--report {report}: its folder does not exist", "mkdir -p makes it")
    if discard_partial:
        removed = steps.discard(request, control)
        output.show({"removed": removed}, removed or ["nothing was left"], as_json=as_json)
    elif dry_run:
        plan = steps.prepare(request, control)
        output.show(plan.to_json(), plan.explain(), as_json=as_json)
        steps.refuse(plan.problems)
    else:
        with output.interrupted("nothing was left under a final name",
                                "the same command goes on where it stopped; --discard-partial removes what has arrived"):
            result = with_keys(lambda keys: steps.migrate(request, control, keys=keys))
        output.show(result, lines(result), as_json=as_json)
        output.say_problems(result.problems)
        output.say_warnings((*result.warnings, *(text for disk in result.disks for text in disk.warnings)))
        if report:
            _write_report(result.job, report)
        if lost := sum(disk.bytes_lost for disk in result.disks):
            raise ImgtoolError(f"{lost} bytes could not be read, and are zeros in {result.machine}",
                               "the maps that --rescue has written say where; look at the file systems before it is used")


def _write_report(job: str, path: Path) -> None:
    """What goes wrong here is said: the machine has moved."""
    from imgtool.runs.pages.job import write_report

    try:
        write_report(job, str(path))
    except (ImgtoolError, OSError) as error:
        output.say_warnings([f"no report was written: {error}"])


def _needed(said: str, option: str, how: str = "URI, as in esx://root@esxi1/ or qemu:///system") -> str:
    if not said:
        raise UsageError(f"{option} is missing", f"{option} {how}")
    return said


def _physical(said: str) -> Uri:
    """Raises UsageError for what is no physical machine."""
    from imgtool.endpoints.uri import parse

    if not (uri := parse(_needed(said, "--from", PHYSICAL))).scheme.startswith("metal"):
        raise UsageError(f"--from {said}: p2v reads physical machines",
                         f"{PHYSICAL}; imgtool migrate moves virtual ones, convert reads image files")
    return uri


def _credentials(both: Path | None, own: Path | None, thumbprints: Sequence[str] | None, side: str) -> Credentials:
    from imgtool.model.endpoint import Credentials

    pins = [text.rpartition("=") for text in thumbprints or ()]
    wrong = [head for head, _, _ in pins if head not in ("", "from", "to")]
    if wrong:
        raise UsageError(f"--thumbprint {wrong[0]}=… is neither the source's nor the target's",
                         "--thumbprint from=HEX, to=HEX, or HEX for both")
    fitting = [pin for head, _, pin in pins if head in ("", side)]
    file = own or both
    return Credentials(password_file=str(file) if file else None, thumbprint=fitting[-1] if fitting else None)


def _list(source: str, credentials: Credentials, *, as_json: bool) -> None:
    from imgtool.endpoints.uri import parse
    from imgtool.steps.migrate import machines

    found = machines(parse(source), credentials, STOP)
    rows = [f"{one.power:<10} {f'{one.folder}/' if one.folder else ''}{one.name}" for one in found]
    output.show({"machines": [asdict(one) for one in found]}, rows or ["no machines"], as_json=as_json)


def lines(result: Migrated) -> Iterable[str]:
    """What a person is told at the end."""
    disks = output.counted(len(result.disks), "disk")
    yield f"{result.machine}: at {result.target} as {result.id}, {disks}, in {result.seconds:.1f} s"
    for disk in result.disks:
        moved = [f"{size(disk.bytes_read)} read"] if disk.bytes_read else []
        moved += [f"{size(disk.bytes_cloned)} cloned (shared with the source until one side is written)"] if \
            disk.bytes_cloned else []
        yield f"  {os.path.basename(disk.destination)}: {size(disk.virtual_size)}, {', '.join(moved) or disk.engine}"
        if disk.passes:
            passes = (f"{one.name} {size(one.bytes_read)} in {one.seconds:.1f} s" for one in disk.passes)
            yield f"    passes: {', '.join(passes)}"
    if result.changes:
        yield f"the guest: {len(result.changes)} changes for its new hardware (imgtool jobs show {result.job})"
    if result.started:
        yield f"started: {result.started}"
    yield "verified: what arrived is what was read" if result.verified else "not verified"
