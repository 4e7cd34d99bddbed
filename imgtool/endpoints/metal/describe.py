"""What ``imgtool info`` says of a physical disk of this machine: what it is, what is on it, who uses it, how it feels.

Nothing is written, and no file system is mounted: names come from blkid's look at the first blocks. Health: smartctl's, where
it is installed (https://www.smartmontools.org/wiki/JSON).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgtool import proc
from imgtool.endpoints.far import program
from imgtool.endpoints.metal import disks
from imgtool.endpoints.metal.signatures import SEEN, Signature, signatures
from imgtool.errors import ImgtoolError, UsageError
from imgtool.model.metal import DiskHealth, DiskInfo, Member, PartitionInfo, PhysicalDisk
from imgtool.progress import Stop

LIMITS = proc.Limits(seconds=30, memory=1 << 30)
UNCORRECTABLE = 198
SECTORS = {5: "reallocated", 197: "pending", UNCORRECTABLE: "uncorrectable"}
"""Numbers of ATA attributes that count sectors (their raw values)."""
NVME = "nvme_smart_health_information_log"


def physical(path: str, stop: Stop) -> DiskInfo | None:
    """None of a partition, or of what has no place in /sys. Raises ImgtoolError where it cannot be read."""
    server: Any = program.Server
    files = server(None, None).op_files({"patterns": disks.PATTERNS}, b"")["files"]
    try:
        disk = disks.named(files, os.path.realpath(path))
    except UsageError:
        return None
    table = _blkid(disk.path, stop).get("PTTYPE")
    parts = [(part.name, part.start, part.size) for part in disk.partitions]
    held = tuple(Member(name=found.name, offset=found.offset, member=found.member) for found in _signatures(disk))
    return DiskInfo(
        path=disk.path, model=disk.model, serial=disk.serial, wwid=disk.wwid, ids=disk.ids, size=disk.size, sector=disk.sector,
        physical_sector=disk.physical_sector, rotational=disk.rotational, removable=disk.removable, read_only=disk.read_only,
        table={"dos": "mbr"}.get(table, table) if table else None, signatures=held, used=disk.used,
        partitions=tuple(_partition(*part, files, stop) for part in (parts or [(disk.name, 0, disk.size)])),
        health=_health(disk.path, stop))


def _partition(name: str, start: int, size: int, files: Mapping[str, str], stop: Stop) -> PartitionInfo:
    known = _blkid(f"/dev/{name}", stop)
    return PartitionInfo(name=name, start=start, size=size, type=known.get("TYPE"), label=known.get("LABEL"),
                         uuid=known.get("UUID"), mounts=disks.mounts(name, files))


def _blkid(path: str, stop: Stop) -> dict[str, str]:
    """blkid(8), low-level probing; names and labels as they are, without control characters."""
    done = proc.run(["blkid", "-p", "-o", "export", path], stop=stop, limits=LIMITS)
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: "".join(char for char in re.sub(r"\\(.)", r"\1", value) if char.isprintable()) for key, _, value in pairs}


def _signatures(disk: PhysicalDisk) -> list[Signature]:
    try:
        with Path(disk.path).open("rb") as file:
            head = file.read(SEEN)
            file.seek(max(disk.size - SEEN, 0))
            return list(signatures(head, file.read(SEEN), disk.size))
    except OSError as error:
        raise ImgtoolError(f"{disk.path} cannot be read: {error.strerror}") from error


def _health(path: str, stop: Stop) -> DiskHealth | None:
    """None where nobody can say: no smartctl, no such thing in the disk, behind a RAID controller, not root."""
    if not shutil.which("smartctl"):
        return None
    with suppress(ImgtoolError, ValueError):
        return health_of(json.loads(proc.run(["smartctl", "-j", "-H", "-A", path], stop=stop, limits=LIMITS).stdout))
    return None


def health_of(said: Any) -> DiskHealth | None:
    """From smartctl's JSON: ATA, NVMe and SCSI."""
    status = _at(said, "smart_status", "passed")
    if not isinstance(status, bool):
        return None
    table = _at(said, "ata_smart_attributes", "table")
    rows = [(_number(row, "id"), _number(row, "raw", "value")) for row in (table if isinstance(table, list) else [])]
    rows.append((UNCORRECTABLE, _number(said, NVME, "media_errors")))
    return DiskHealth(
        passed=status, temperature=_number(said, "temperature", "current"), hours=_number(said, "power_on_time", "hours"),
        worn_percent=_number(said, NVME, "percentage_used"),
        bad_sectors={SECTORS[attribute]: count for attribute, count in rows if attribute in SECTORS and count is not None})


def _number(said: Any, *keys: str) -> int | None:
    found = _at(said, *keys)
    return found if isinstance(found, int) else None


def _at(said: Any, *keys: str) -> Any:
    for key in keys:
        said = said.get(key) if isinstance(said, dict) else None
    return said
