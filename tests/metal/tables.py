"""Disks with partition tables, made by sfdisk and sgdisk, and changed by what ``fit`` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from imgtool.model.partitions import Fit, Table
from imgtool.partitions import read_table
from imgtool.partitions.fit import fit
from tests.oracle import tool

MIB = 1 << 20


def gpt(path: Path, size: int, *partitions: str) -> Path:
    """Partitions in sgdisk's words: ``2048:+10M``."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
    tool("sgdisk", *(f"--new={number}:{place}" for number, place in enumerate(partitions, 1)), path)
    return path


def mbr(path: Path, size: int, script: str) -> Path:
    """``script``: sfdisk's."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
    (path.parent / "script").write_text(f"label: dos\n{script}\n")
    tool("sh", "-c", f"sfdisk -q {path} < {path.parent / 'script'}")
    return path


def reader(path: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return read


def table(path: Path, size: int | None = None) -> Table:
    return read_table(reader(path), size or path.stat().st_size)


def fitted(path: Path, size: int, sector: int = 512, *, grow: bool = False) -> Fit:
    """The file becomes a disk of that size, with what ``fit`` writes."""
    found = fit(table(path), reader(path), size, sector, grow=grow)
    with path.open("r+b") as file:
        file.truncate(size)
        for patch in found.patches:
            file.seek(patch.offset)
            file.write(patch.data)
    return found


def sound(disk: Path) -> None:
    """For sgdisk: checksums of both copies, their places, the protective MBR."""
    said = tool("sgdisk", "--verify", disk).stdout
    assert "No problems found" in said, said
    assert "aution" not in said.replace("Caution: Partition", ""), said


def partitions(disk: Path) -> list[tuple[int, int, str]]:
    """Start and size in bytes, and the type, by sfdisk."""
    told = json.loads(tool("sfdisk", "--json", disk).stdout)["partitiontable"]
    unit = int(told.get("sectorsize", 512))
    return [(one["start"] * unit, one["size"] * unit, one["type"]) for one in told["partitions"]]
