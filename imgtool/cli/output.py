"""What a person or a script gets to see: one JSON document or a few lines on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING

from imgtool.errors import ImgtoolError, StoppedError
from imgtool.model import AllocateResult, CheckResult, ConvertResult, ImageInfo, Mapped, VerifyResult
from imgtool.model.problem import Problem
from imgtool.progress import JsonLines, Progress, Silent, Terminal
from imgtool.units import size

if TYPE_CHECKING:
    from imgtool.model.guest import AdaptResult, GuestInfo
    from imgtool.model.metal import DiskInfo
    from imgtool.model.translation import MachineResult, TranslateResult
    from imgtool.model.v2p import Planned, V2pPlan, V2pResult

BAR = 64
ROWS = 8
SHADES = " ░▒▓█"
PLAIN_SHADES = " .:+#"
WIDEST = 70
"""Columns of ``--explain``, in characters."""
MAP_AT_ONCE = 200_000
"""Ranges that are read before anything is printed, so that an error leaves no half document; more would take memory."""


def show(value: object, lines: Iterable[str], *, as_json: bool) -> None:
    """The result of a command: as one JSON document, or as lines for a person."""
    if as_json:
        print(json.dumps(_plain(value), ensure_ascii=True))
    else:
        for line in lines:
            print(printable(line))


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def printable(text: str) -> str:
    """Names come from strangers: no control character reaches the terminal, nothing that it cannot show stops us."""
    clean = "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text)
    encoding = sys.stdout.encoding or "ascii"
    return clean.encode(encoding, "backslashreplace").decode(encoding)


def say_error(error: ImgtoolError) -> None:
    print(f"error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)


@contextmanager
def each(failed: list[ImgtoolError], *, alone: bool) -> Iterator[None]:
    """One of several: what is wrong with it is said, then comes the next one. ``alone``, or stopped: the command ends."""
    try:
        yield
    except ImgtoolError as error:
        if alone or isinstance(error, StoppedError):
            raise
        say_error(error)
        failed.append(error)


@contextmanager
def interrupted(left: str, hint: str) -> Iterator[None]:
    """What a command that was interrupted here has left, and how it goes on."""
    try:
        yield
    except StoppedError as stopped:
        raise StoppedError(stopped.signum, left, hint) from None


def say(line: str) -> None:
    """How far it is."""
    print(printable(line), file=sys.stderr, flush=True)


def say_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)


def say_problems(problems: Iterable[Problem]) -> None:
    say_warnings(one.what + (f" ({one.hint})" if one.hint else "") for one in problems)


def progress_of(kind: str) -> Progress:
    """A bar on a terminal, JSON lines if asked for, else nothing."""
    if kind == "json":
        return JsonLines(sys.stderr)
    if kind == "bar" or (kind == "auto" and sys.stderr.isatty()):
        return Terminal()
    return Silent()


def columns() -> int | None:
    """Of the terminal; None where lines may be as long as they are."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def counted(count: int, what: str) -> str:
    """1, "disk" → "1 disk"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def info_lines(info: ImageInfo) -> Iterable[str]:
    kind = f"{info.format} ({info.subformat})" if info.subformat else info.format
    yield f"image:      {info.path}"
    yield f"format:     {kind}" + (", compressed" if info.compressed else "") + (", encrypted" if info.encrypted else "")
    yield f"virtual:    {size(info.virtual_size)} ({info.virtual_size} bytes)"
    yield f"on disk:    {size(info.allocated_size)}, {info.allocation}"
    if info.cluster_size:
        yield f"cluster:    {size(info.cluster_size)}"
    for file in info.extents if len(info.extents) > 1 else ():
        yield f"file:       {file.path} ({size(file.size)})"
    for path in info.chain:
        yield f"on top of:  {path}"
    for snapshot in info.snapshots:
        yield f"snapshot:   {snapshot.id} {snapshot.name} ({snapshot.date})"
    details = {key: value for key, value in info.details.items() if value not in (None, False)}
    if details:
        yield "details:    " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in details.items())


def disk_lines(disk: DiskInfo) -> Iterable[str]:
    """What ``info`` says of a physical disk, below what it says of the image on it."""
    yield "disk:       " + (" ".join(word for word in (disk.model, disk.serial) if word) or disk.path)
    kinds = [f"sectors of {disk.sector} bytes" if disk.sector == disk.physical_sector
             else f"sectors of {disk.sector} bytes, {disk.physical_sector} inside"]
    kinds += [word for word, said in (("removable", disk.removable), ("read-only", disk.read_only)) if said]
    yield f"            {', '.join(kinds)}; {disk.table or 'no'} partition table"
    for name in disk.ids[:1]:
        yield f"name:       {name}"
    for part in disk.partitions:
        label = [f"label {part.label}"] if part.label else []
        words = [part.type or "unknown", *label, *(f"at {mount}" for mount in part.mounts)]
        yield f"partition:  {part.name}, {size(part.size)}: {', '.join(words)}"
    yield from (f"belongs to: {found.name}" for found in disk.signatures if found.member)
    yield from (f"in use:     {why}" for why in disk.used)
    if disk.health:
        counts = [f"{count} sectors {word}" for word, count in disk.health.bad_sectors.items() if count]
        yield f"health:     {'passed' if disk.health.passed else 'FAILING'}" + "".join(f", {one}" for one in counts)


def convert_lines(result: ConvertResult) -> Iterable[str]:
    kind = f"{result.format} ({result.subformat})" if result.subformat else result.format
    yield f"{result.destination}: {result.allocation} {kind}, {size(result.virtual_size)}"
    moved = [f"{size(result.bytes_written)} written"]
    if result.bytes_cloned:
        moved.append(f"{size(result.bytes_cloned)} cloned (shared with the source until one side is written)")
    yield f"{', '.join(moved)}, by {result.engine}, in {result.seconds:.1f} s"
    yield "verified: the guest reads the same bytes" if result.verified else "not verified"


def verify_lines(result: VerifyResult) -> Iterable[str]:
    if result.identical:
        yield f"identical: {size(result.bytes_compared)} compared in {result.seconds:.1f} s; the rest is known to be zeros"
    else:
        yield f"different: the first byte that differs is {result.first_difference}"


def check_lines(result: CheckResult) -> Iterable[str]:
    yield f"{result.path}: {'sound' if result.sound else 'NOT SOUND'} ({result.format})"
    yield from (f"  {error}" for error in result.errors)


def allocate_lines(result: AllocateResult) -> Iterable[str]:
    yield (f"{result.path}: {result.before} → {result.allocation}, {size(result.allocated_size_before)} → "
           f"{size(result.allocated_size)} on disk, in {result.seconds:.1f} s")


def translate_lines(result: TranslateResult, *, explain: bool) -> Iterable[str]:
    """Where it was written; with ``explain`` a table of all settings before that."""
    if explain:
        rows = [("SOURCE", "FIELD", "RESULT", "WHY")]
        rows += [(_setting(one.source_key, one.source_value), one.field, _setting(one.target_key, one.target_value), one.why)
                 for one in result.fields]
        widths = [min(WIDEST, max(len(row[column]) for row in rows)) for column in range(3)]
        lines = ["  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]).rstrip()
                 for row in rows]
        room = columns()
        yield from lines if room is None or max(map(len, lines)) <= room else _below_each_other(rows[1:])
    yield f"{result.destination or 'stdout'}: {result.format} of {result.name}" + (
        f", {counted(len(result.problems), 'warning')}" if result.problems else ", nothing lost")


def _below_each_other(rows: Iterable[tuple[str, str, str, str]]) -> Iterable[str]:
    """The table where the terminal is too narrow for it."""
    for source, field, target, why in rows:
        yield field
        yield from (f"  {head:<7} {text}" for head, text in (("source:", source), ("result:", target), ("why:", why)) if text)


def _setting(key: str, value: str) -> str:
    return f"{key} = {value}" if key else "-"


def machine_lines(result: MachineResult) -> Iterable[str]:
    yield f"{result.destination}: {result.name}, {counted(len(result.disks), 'disk')}, in {result.seconds:.1f} s"
    for disk in result.disks:
        kind = f"{disk.allocation} {disk.subformat or disk.format}"
        yield f"  {os.path.basename(disk.destination)}: {kind}, {size(disk.virtual_size)}"
    yield f"  {os.path.basename(result.description)}: the machine's description"
    yield "verified: the guest reads the same bytes" if result.verified else "not verified"


def guest_lines(info: GuestInfo) -> Iterable[str]:
    system = info.os
    yield f"system:     {system.name or system.family}" + (f", {system.arch}" if system.arch else "")
    if system.hostname:
        yield f"host name:  {system.hostname}"
    yield f"boots by:   {info.bootloader.kind}, {info.firmware}"
    for kernel in info.kernels:
        yield f"kernel:     {kernel.version}" + (" (default)" if kernel.default else "")
        yield f"            early drivers: {', '.join(kernel.early) or 'none'}"
    for one in info.filesystems:
        where = f" at {one.mounted_at}" if one.mounted_at else ""
        free = f", {size(one.free)} free" if one.free is not None else ""
        yield f"disk:       {one.device} {one.type}{where}" + (f", {size(one.size)}{free}" if one.size is not None else "")
    for nic in info.nics:
        how = "DHCP" if nic.dhcp else ", ".join(nic.addresses)
        card = f" on {nic.mac}" if nic.mac else ""
        yield f"network:    {nic.name} ({nic.system}){card} {how}".rstrip()
    for name, value in (("tools", ", ".join(info.tools)), ("SELinux", info.selinux),
                        ("cloud-init", "yes" if info.cloud_init else None)):
        if value:
            yield f"{name + ':':<11} {value}"
    for place in info.references:
        yield f"by name:    {place.path} ({place.what}): {place.name}" + (f", which is {place.stable}" if place.stable else "")


def adapt_lines(result: AdaptResult, *, dry_run: bool) -> Iterable[str]:
    verb = "would be made" if dry_run else "made"
    for change in result.changes:
        yield f"{change.where}: {change.what} ({change.why})"
    count = counted(len(result.changes), "change") if result.changes else "no change"
    yield f"{result.os.name or result.os.family}: {count} {verb}, in {result.seconds:.1f} s"
    if result.disk_bus or result.nic_model:
        yield f"hardware:   disk on {result.disk_bus or '?'}, network card {result.nic_model or '?'}"


def v2p_plan_lines(plan: V2pPlan) -> Iterable[str]:
    for one in plan.disks:
        yield from v2p_disk_lines(one)
    for problem in plan.problems:
        yield f"{'FATAL' if problem.fatal else 'warning'}: {problem.what}" + (f" ({problem.hint})" if problem.hint else "")


def v2p_disk_lines(one: Planned) -> Iterable[str]:
    """What goes where, and what is there now."""
    disk = one.disk
    yield f"{one.source} ({one.image}, {size(one.image_size)}) → {one.device}"
    kind = "disk" if disk.rotational is None else "rotating disk" if disk.rotational else "solid-state disk"
    yield (f"  {disk.path}: {disk.model or 'unknown model'}, serial {disk.serial or 'none'}, {size(disk.size)}, {kind}, "
           f"sectors of {disk.sector} bytes")
    yield from (f"  name:  {name}" for name in disk.ids)
    yield from (f"  on it: {line}" for line in one.contents or ("nothing that is known",))
    yield from (f"  {note}" for note in one.notes)
    yield f"  to be typed, or given with --yes-write-to: {one.confirm}"


def v2p_lines(result: V2pResult) -> Iterable[str]:
    for change in result.changes:
        yield f"{change.where}: {change.what} ({change.why})"
    for disk in result.disks:
        before = f", {size(disk.bytes_resumed)} of it before" if disk.bytes_resumed else ""
        yield (f"{disk.source} → {disk.device}: {size(disk.bytes_written)} written, {size(disk.bytes_zeroed)} zeroed{before}, "
               f"{'verified' if disk.verified else 'not verified'}")
        yield from (f"  {note}" for note in disk.notes)
    if result.boot_entry:
        yield f"the firmware starts first: {result.boot_entry}"
    yield f"{result.machine}: {counted(len(result.disks), 'disk')} in {result.seconds:.1f} s"


def map_json(virtual_size: int, extents: Iterable[Mapped]) -> None:
    """The map as one JSON document, written as it is found: a disk may have millions of ranges."""
    sys.stdout.write(f'{{"virtual_size": {virtual_size}, "extents": [')
    comma = ""
    for extent in extents:
        sys.stdout.write(comma + json.dumps(asdict(extent)))
        comma = ",\n"
    sys.stdout.write("]}\n")


def map_lines(virtual_size: int, extents: Iterable[Mapped]) -> Iterable[str]:
    """A picture: each cell is a part of the disk, the darker, the more of it is data."""
    cells = BAR * ROWS
    cell = max(1, -(-virtual_size // cells))
    data = [0] * cells
    totals = {"data": 0, "reserved": 0, "free": 0}
    for extent in extents:
        totals["reserved" if extent.zero and extent.allocated else "free" if extent.zero else "data"] += extent.length
        if not extent.zero:
            _fill(data, cell, extent.start, extent.start + extent.length)
    shades = SHADES if (sys.stdout.encoding or "").lower().startswith("utf") else PLAIN_SHADES
    used = -(-virtual_size // cell)
    for row in range(0, used, BAR):
        line = "".join(shades[0 if not part else 1 + min(3, part * 4 // (cell + 1))] for part in data[row:min(row + BAR, used)])
        yield f"{size(row * cell):>10} |{line}|"
    yield (f"each cell {size(cell)}; data {size(totals['data'])}, reserved zeros {size(totals['reserved'])}, "
           f"holes {size(totals['free'])}")


def _fill(data: list[int], cell: int, start: int, end: int) -> None:
    while start < end:
        index = start // cell
        stop = min(end, (index + 1) * cell)
        data[index] += stop - start
        start = stop
