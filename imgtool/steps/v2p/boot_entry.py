"""``--boot-entry``: the firmware of the machine that has the disks learns of what was written: efibootmgr(8).

Without it a UEFI machine finds the loader at its usual place (``\\EFI\\BOOT``), unless an older entry comes before. It is asked
for by name, since the machine that writes a disk need not be the one that will boot from it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from imgtool import proc
from imgtool.endpoints.far import tunnel
from imgtool.endpoints.far.wire import Wire
from imgtool.errors import ImgtoolError, StoppedError
from imgtool.formats.disk import Disk
from imgtool.formats.patched import reader
from imgtool.guests.linux.bootloaders.efi import FALLBACK
from imgtool.model.endpoint import Uri
from imgtool.model.metal import PhysicalDisk
from imgtool.model.problem import Problem
from imgtool.partitions import read_table
from imgtool.progress import Stop

BITS = "/sys/firmware/efi/fw_platform_size"
"""There where the kernel was started by UEFI: 64 or 32."""
MACHINE = "/proc/sys/kernel/arch"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LONGEST = 64
"""Characters of an entry's name."""
LIMITS = proc.Limits(seconds=60, memory=1 << 30)


def partition(disk: Disk, sector: int | None = None) -> int | None:
    """The number of the EFI system partition."""
    table = read_table(reader(disk), disk.virtual_size, sector)
    return next((entry.number for entry in table.entries if entry.type in (ESP, "0xef")), None)


def problems(wire: Wire, disks: Sequence[Disk]) -> tuple[Problem, ...]:
    """Why there can be no entry."""
    if loader(wire) is None:
        return (Problem(what=f"{wire.name} was not started by UEFI: it keeps no boot entries",
                        hint="start it (or its rescue medium) by UEFI, or leave --boot-entry out", fatal=True),)
    if not any(partition(disk) for disk in disks):
        return (Problem(what="none of the disks has an EFI system partition for --boot-entry", hint="leave --boot-entry out",
                        fatal=True),)
    return ()


def loader(wire: Wire) -> str | None:
    """Its path on the EFI system partition, for the firmware of that machine; None: it was not started by UEFI."""
    said: dict[str, str] = wire.call("files", patterns=[BITS, MACHINE])[0]["files"]
    if BITS not in said:
        return None
    machine = "i686" if said[BITS].strip() == "32" else said.get(MACHINE, "x86_64").strip()
    return "\\EFI\\BOOT\\" + FALLBACK.get(machine, FALLBACK["x86_64"])


class Entered(NamedTuple):
    """What became of it. The disk is written by then: what fails is a warning."""

    made: str | None = None
    warnings: tuple[str, ...] = ()


def add(wire: Wire, place: Uri, name: str, disks: Sequence[tuple[PhysicalDisk, Disk]], stop: Stop) -> Entered:
    """An entry that comes first, for the first disk (and what is on it now) with an EFI system partition."""
    disk, number = next((disk, found) for disk, content in disks if (found := partition(content, disk.sector)))
    label = "".join(char for char in name if char.isprintable())[:LONGEST] or "imgtool"
    argv = ["efibootmgr", "--quiet", "--create", "--disk", disk.path, "--part", str(number), "--label", label,
            "--loader", loader(wire) or ""]
    try:
        _run(place, argv, stop)
    except StoppedError:
        raise
    except ImgtoolError as error:
        why = f"{error.message}: {error.hint}" if error.hint else error.message
        return Entered(warnings=(f"the firmware has no boot entry ({why}). By hand: {shlex.join(argv)}",))
    return Entered(made=f"{label}: {argv[-1]} on partition {number} of {disk.path}")


def _run(place: Uri, argv: Sequence[str], stop: Stop) -> None:
    if place.host:
        tunnel.run(place, ["sh", "-c", 'PATH=$PATH:/usr/sbin:/sbin; exec "$@"', "sh", *argv], stop=stop)
        return
    done = proc.run(argv, stop=stop, limits=LIMITS)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ImgtoolError(f"efibootmgr: {lines[-1]}")
