"""``--snapshot lvm``: the volumes of a disk in use are read as they were at one moment, from snapshots; the rest as it is.

A snapshot is a volume, the copy is a whole disk. So where the disk has extents of a volume, its snapshot is read; where it has
the group's metadata, what stood there before the snapshots were made: the copy knows nothing of them. A shell over there makes
them, and removes them when its standard input ends, for whatever reason.

Sources: lvcreate(8), lvs(8), pvs(8), lvmreport(7).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import NamedTuple

from imgtool import proc
from imgtool.endpoints.far import ssh, tunnel
from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import Wire
from imgtool.endpoints.metal.composed import Composed, Part
from imgtool.errors import DamagedError, ImgtoolError, RefusedError
from imgtool.model.endpoint import Uri
from imgtool.model.metal import PhysicalDisk
from imgtool.progress import Stop

LIMITS = proc.Limits(seconds=60, memory=1 << 30)
REPORT = ("--reportformat", "json", "--units", "b", "--nosuffix")
VOLUMES = ("lvs", *REPORT, "--segments", "-o", "vg_name,lv_name,lv_active,segtype,seg_start,seg_size,seg_pe_ranges")
GROUPS = ("pvs", *REPORT, "-o", "pv_name,vg_name,pe_start,vg_extent_size")
SHELL = 'PATH=$PATH:/usr/sbin:/sbin; exec "$@"'
NAME = re.compile(r"[A-Za-z0-9+_.-]+/[A-Za-z0-9+_.-]+")
"""lvm(8): what names may consist of."""
RANGE = re.compile(r"(/[^:]+):(\d+)-(\d+)")
HOLD = """PATH=$PATH:/usr/sbin:/sbin
mark=$1 made= left=$(($# - 1))
shift
trap 'exit 1' HUP INT PIPE TERM
trap 'for one in $made; do lvremove --yes --quiet "$one" >/dev/null 2>&1; done; echo removed' EXIT
for one in "$@"; do
  made="$made ${one%/*}/$mark-${one#*/}"
  lvcreate --snapshot --quiet --extents "$((100 / left))%FREE" --name "$mark-${one#*/}" "$one" >&2 || exit 1
  left=$((left - 1))
done
echo ready
cat >/dev/null"""
"""Shell: a snapshot of each volume, for as long as standard input lasts. Their room is what the groups have free."""


class Segment(NamedTuple):
    """A part of a volume in one piece. Bytes."""

    volume: str
    """``group/name``."""
    at: int
    """In the volume."""
    pv: str
    start: int
    """On the physical volume."""
    size: int


class Layout(NamedTuple):
    segments: tuple[Segment, ...]
    """Of active volumes."""
    heads: Mapping[str, int]
    """Physical volume → bytes before its first extent."""


def layout(uri: Uri, stop: Stop) -> Layout:
    """Where the active volumes of that machine lie. Raises RefusedError (of a kind that is not just pieces), DamagedError, …"""
    groups, volumes = _rows(uri, GROUPS, "pv", stop), _rows(uri, VOLUMES, "seg", stop)
    try:
        heads = {row["pv_name"]: int(row["pe_start"]) for row in groups if row["vg_name"]}
        extents = {row["pv_name"]: int(row["vg_extent_size"]) for row in groups if row["vg_name"]}
        found = tuple(_segment(row, heads, extents) for row in volumes if row["lv_active"])
    except (KeyError, ValueError) as error:
        raise _odd("pvs and lvs", error) from error
    return Layout(found, heads)


def _segment(row: Mapping[str, str], heads: Mapping[str, int], extents: Mapping[str, int]) -> Segment:
    name = f"{row['vg_name']}/{row['lv_name']}"
    match = RANGE.fullmatch(row["seg_pe_ranges"])
    if row["segtype"] != "linear" or not match or match[1] not in heads or not NAME.fullmatch(name):
        raise RefusedError(f"the volume {name} is {row['segtype']}: its bytes do not lie on the disk as the volume has them",
                           "--live copies it; or deactivate it: lvchange -an")
    pv, first = match[1], int(match[2])
    return Segment(name, int(row["seg_start"]), pv, heads[pv] + first * extents[pv], int(row["seg_size"]))


def _rows(uri: Uri, command: Sequence[str], key: str, stop: Stop) -> list[dict[str, str]]:
    argv = ["sh", "-c", SHELL, "sh", *command]
    if uri.host:
        said = tunnel.run(uri, argv, stop=stop)
    else:
        done = proc.run(argv, stop=stop, limits=LIMITS)
        if done.returncode:
            raise ImgtoolError(f"{command[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        said = done.stdout
    try:
        return [{name: str(value) for name, value in row.items()} for row in json.loads(said)["report"][0][key]]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _odd(command[0], error) from error


def _odd(who: str, error: Exception) -> DamagedError:
    return DamagedError(f"what {who} says cannot be understood ({error!r})", "LVM 2.02.158 or later is needed")


def refuse_others(disk: PhysicalDisk, known: Layout) -> None:
    """Raises RefusedError where something else than LVM, or nothing of it, lies on the disk."""
    other = [why for why in disk.used if " is part of " in why and "(on " not in why and "the volume group of" not in why]
    if other:
        raise RefusedError(f"{other[0]}: no snapshot of LVM holds that still", "--live, or boot a rescue medium")
    if disk.busy and not any(place_of(disk, one.pv) is not None for one in known.segments):
        raise RefusedError(f"no active logical volume lies on {disk.path}: --snapshot lvm cannot hold it still",
                           "--snapshot fsfreeze, or --live")


def place_of(disk: PhysicalDisk, pv: str) -> int | None:
    """Where a physical volume begins on a disk."""
    places = {f"/dev/{part.name}": part.start for part in disk.partitions} | {disk.path: 0}
    return places.get(pv)


@contextmanager
def held(uri: Uri, volumes: Sequence[str]) -> Iterator[Callable[[str], str]]:
    """Snapshots of all of them, while the block lasts; gives the path of each. Raises ImgtoolError."""
    if not volumes:
        yield lambda volume: f"/dev/{volume}"
        return
    mark = f"imgtool-{secrets.token_hex(4)}"
    command = ["sh", "-c", HOLD, "sh", mark, *volumes]
    argv = ssh.argv(uri, command) if uri.host else ["setsid", "--wait", *command]  # outlives us, to remove them
    with proc.pipes(argv, keep=ssh.KEEP if uri.host else ()) as both:
        if both.back.readline() != b"ready\n":
            raise ImgtoolError(f"{uri.host or 'this machine'}: no snapshot could be made: {both.last_words()}",
                               "the group needs free extents for what is written meanwhile (vgs); or use --live")
        try:
            yield lambda volume: f"/dev/{volume.replace('/', f'/{mark}-')}"
        finally:
            both.to.close()
            both.back.read()


class Snapshots:
    """Of all volumes that lie on some disks, made together: a volume may lie on several."""

    def __init__(self, uri: Uri, wire: Wire, disks: Sequence[PhysicalDisk], stack: ExitStack, stop: Stop) -> None:
        """They are removed when ``stack`` ends. Raises RefusedError, ImgtoolError, UnreachableError."""
        self._wire, found = wire, layout(uri, stop)
        for disk in disks:
            refuse_others(disk, found)
        self._heads = {pv: bytes(_head(wire, disk, start, found.heads[pv])) for disk in disks for pv in found.heads
                       if (start := place_of(disk, pv)) is not None}
        ours = {one.volume for one in found.segments if one.pv in self._heads}
        self._segments = [one for one in found.segments if one.volume in ours]
        self._path = stack.enter_context(held(uri, sorted(ours)))

    def opened(self, disk: PhysicalDisk) -> Composed:
        """The disk as it was when the snapshots were made, where LVM has it. To be closed."""
        files: dict[str, FarFile] = {}
        parts = []
        for pv, head in self._heads.items():
            if (begin := place_of(disk, pv)) is None:
                continue
            parts.append(Part(begin, begin + len(head), head))
            for one in self._segments:
                if one.pv == pv:
                    file = files.get(one.volume) or files.setdefault(one.volume, FarFile(self._wire, self._path(one.volume)))
                    parts.append(Part(begin + one.start, begin + one.start + one.size, file, one.at))
        return Composed(FarFile(self._wire, disk.path), sorted(parts, key=lambda part: part.start))


def _head(wire: Wire, disk: PhysicalDisk, start: int, length: int) -> bytes | bytearray:
    with closing(FarFile(wire, disk.path)) as file:
        return file.read(start, length)


def still(disk: PhysicalDisk) -> PhysicalDisk:
    """As a disk at rest: who nevertheless writes outside of the volumes is noticed at the end."""
    return replace(disk, busy=(), places=(), mounted=())
