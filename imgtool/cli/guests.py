"""The commands on what is inside the disks: inspect, adapt."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from imgtool.cli import completion, output
from imgtool.cli.images import STOP, AsJson, External, IgnoreLock, SourceFormat
from imgtool.errors import LockedError, UsageError
from imgtool.model import SourceOptions
from imgtool.progress import Control, ends_at_once
from imgtool.suffixes import is_machine

Machine = Annotated[list[Path], typer.Argument(
    metavar="IMAGE...|MACHINE", help="All disks of one machine, or its description.", autocompletion=completion.machine_files)]
KeyFile = Annotated[list[Path] | None, typer.Option(
    "--key-file", metavar="FILE", help="A file with the passphrase of an encrypted volume. May be repeated.")]
DiskRoot = Annotated[list[Path] | None, typer.Option(
    "--disk-root", metavar="DIR", help="Disks that the description names may lie there too. May be repeated.")]
Result = TypeVar("Result")


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    for command in (inspect, adapt):
        app.command(name=command.__name__)(command)


def with_keys(work: Callable[[Sequence[str]], Result]) -> Result:
    """Asks for a passphrase where one is missing and somebody sits at a terminal."""
    try:
        return work(())
    except LockedError as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        with ends_at_once():
            key = getpass.getpass(f"{error.message}\npassphrase: ", stream=sys.stderr)
        return work((key,))


def inspect(
    images: Machine, as_json: AsJson = False, key_file: KeyFile = None, disk_root: DiskRoot = None,
    source_format: SourceFormat = None, allow_external: External = False, ignore_lock: IgnoreLock = False,
) -> None:
    """Look at the system inside: kernels, drivers, network.

    Also its distribution, boot loader, file systems and tools. Nothing is changed.

    \b
    Examples:
      imgtool inspect disk.vmdk
      imgtool inspect --json system.qcow2 data.qcow2
    """
    from imgtool.model.guest import InspectRequest
    from imgtool.steps.inspect import inspect as run
    from imgtool.steps.machine_disks import machine_disks

    reading = SourceOptions(format=source_format, allow_external=allow_external, ignore_lock=ignore_lock)
    disks = machine_disks([str(image) for image in images], [str(folder) for folder in disk_root or ()])
    request = InspectRequest(images=disks, reading=reading, key_files=tuple(map(str, key_file or ())))
    info = with_keys(lambda keys: run(request, Control(stop=STOP), keys=keys))
    output.show(info, output.guest_lines(info), as_json=as_json)
    output.say_warnings(info.warnings)


def adapt(
    images: Machine,
    platform: Annotated[str, typer.Option(
        "--for", metavar="kvm|esxi|metal", help="Where the guest shall run.", autocompletion=lambda: ("kvm", "esxi", "metal"))],
    mac: Annotated[list[str] | None, typer.Option(
        "--mac", metavar="OLD=NEW", help="A network card gets another address. May be repeated.")] = None,
    rebuild_initramfs: Annotated[bool, typer.Option(
        "--rebuild-initramfs", help="Run the guest's own tool instead of extending its initramfs.")] = False,
    virtio_win: Annotated[Path | None, typer.Option(
        "--virtio-win", metavar="DIR|ISO", help="Windows on KVM: virtio-win.iso, or what is in it.")] = None,
    drivers: Annotated[Path | None, typer.Option(
        "--drivers", metavar="DIR|ISO", help="Windows on ESXi: the drivers of VMware Tools (pvscsi, vmxnet3).")] = None,
    packages: Annotated[Path | None, typer.Option(
        "--packages", metavar="DIR",
        help="Packages (deb, rpm, apk and the like) that the guest installs when it first boots.")] = None,
    backup: Annotated[bool, typer.Option("--backup/--no-backup", help="Keep each changed file as *.imgtool-orig.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be changed; change nothing.")] = False,
    machine: Annotated[Path | None, typer.Option(
        "--machine", metavar="MACHINE", help="Its description: addresses of its network cards are followed.",
        autocompletion=completion.descriptions)] = None,
    key_file: KeyFile = None, disk_root: DiskRoot = None, as_json: AsJson = False,
    source_format: SourceFormat = None, allow_external: External = False, ignore_lock: IgnoreLock = False,
) -> None:
    """Change a guest so that it boots and has its network elsewhere.

    The image is changed in place: all of it, or nothing.

    \b
    Examples:
      imgtool adapt disk.qcow2 --for kvm
      imgtool adapt a.vmdk b.vmdk --for esxi --dry-run
    """
    from imgtool.model.guest import AdaptRequest, Platform
    from imgtool.steps.adapt import adapt as run
    from imgtool.steps.machine_disks import machine_disks, machine_nics

    if platform not in list(Platform):
        raise UsageError(f"--for {platform}: one of {', '.join(Platform)}")
    reading = SourceOptions(format=source_format, allow_external=allow_external, ignore_lock=ignore_lock)
    named, macs = [str(image) for image in images], dict(mac_pair(text) for text in mac or ())
    described = str(machine) if machine else named[0] if is_machine(named[0]) else None
    nics = machine_nics(described) if described else ()
    request = AdaptRequest(
        images=machine_disks(named, [str(folder) for folder in disk_root or ()]), platform=Platform(platform), reading=reading,
        key_files=tuple(map(str, key_file or ())), macs=tuple(macs.items()), nics=tuple(macs.get(one, one) for one in nics),
        rebuild_initramfs=rebuild_initramfs, drivers=str(virtio_win or drivers or "") or None,
        packages=str(packages) if packages else None, backup=backup, dry_run=dry_run)
    control = Control(progress=output.progress_of("auto"), stop=STOP)
    result = with_keys(lambda keys: run(request, control, keys=keys))
    output.show(result, output.adapt_lines(result, dry_run=dry_run), as_json=as_json)
    output.say_warnings(result.warnings)


def mac_pair(text: str) -> tuple[str, str]:
    import re

    match = re.fullmatch(r"((?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2})=((?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2})", text.strip().lower())
    if not match:
        raise UsageError(f"--mac {text}: OLD=NEW is wanted, as in 00:50:56:01:02:03=52:54:00:01:02:03")
    return match[1].replace("-", ":"), match[2].replace("-", ":")
