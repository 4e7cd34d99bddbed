"""VMDKs that imgtool writes, opened by libvmdk and 7z, and read byte by byte where no tool looks."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import pytest

from fixtures import patterns
from tests import oracle, targets
from tests.images import LARGE, READABLE, SMALL, Source
from tests.targets import VARIANTS, WRITABLE

KINDS = [name for name, goal in WRITABLE.items() if goal.format == "vmdk"]
TYPES = {"monolithicSparse": "Monolithic sparse", "monolithicFlat": "Monolithic flat", "vmfs": "VMFS flat",
         "twoGbMaxExtentSparse": "2GB extent sparse", "twoGbMaxExtentFlat": "2GB extent flat",
         "streamOptimized": "Stream optimized"}
"""createType in the words of vmdkinfo."""
SECTOR = 512


def convert(tmp_path: Path, name: str, pattern: str = SMALL) -> tuple[Source, Path]:
    for part in ("x", "y"):
        (tmp_path / part).mkdir(exist_ok=True)
    source = READABLE["raw"](tmp_path / "x", pattern)
    goal = WRITABLE.get(name) or VARIANTS[name]
    return source, Path(targets.run(source, goal, tmp_path / "y").destination)


@pytest.mark.parametrize("pattern", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_libvmdk(tmp_path: Path, name: str, pattern: str) -> None:
    source, path = convert(tmp_path, name, pattern)
    told = oracle.tool("vmdkinfo", path).stdout
    assert f"({source.size} bytes)" in told
    assert re.search(rf"Disk type:\s+{TYPES[name.partition('-')[0]]}$", told, re.MULTILINE), told


@pytest.mark.parametrize("pattern", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_7z_reads_the_same(tmp_path: Path, name: str, pattern: str) -> None:
    source, path = convert(tmp_path, name, pattern)
    oracle.tool("7z", "t", path)
    oracle.tool("7z", "e", f"-o{tmp_path}/out", path)
    (extracted,) = (tmp_path / "out").iterdir()
    assert hashlib.sha256(extracted.read_bytes()).hexdigest() == patterns.expected_sha256(source.pieces)


@pytest.mark.parametrize("name", ["vpc-thin", "vpc-thick", "vdi-thin", "qcow2-thin", "qcow2-zlib"])
def test_7z_reads_other_formats(tmp_path: Path, name: str) -> None:
    source, path = convert(tmp_path, name)
    oracle.tool("7z", "e", f"-o{tmp_path}/out", path)
    (extracted,) = (tmp_path / "out").iterdir()
    assert hashlib.sha256(extracted.read_bytes()).hexdigest() == patterns.expected_sha256(source.pieces)


def numbers(path: Path, offset: int, form: str) -> tuple[int, ...]:
    """Numbers as they stand in a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return struct.unpack(form, file.read(struct.calcsize(form)))


def test_stream_optimized_is_of_version_3(tmp_path: Path) -> None:
    source, path = convert(tmp_path, "streamOptimized", LARGE)
    magic, version, flags, capacity, grain = numbers(path, 0, "<IIIQQ")
    assert (magic, version, capacity, grain) == (0x564D444B, 3, source.size // SECTOR, 128)
    assert flags & (1 << 16)
    assert flags & (1 << 17)
    assert numbers(path, 77, "<H") == (1,)


@pytest.mark.parametrize("name", ["monolithicSparse-thin", "monolithicSparse-thick", "twoGbMaxExtentSparse-thin"])
def test_both_grain_directories_say_the_same(tmp_path: Path, name: str) -> None:
    source, path = convert(tmp_path, name, LARGE)
    extent = path if name.startswith("mono") else path.with_name("y-s001.vmdk")
    redundant, directory = numbers(extent, 48, "<QQ")
    assert 0 < redundant < directory
    assert numbers(extent, 8, "<I")[0] & 2
    tables = -(-source.size // (32 << 20))
    assert tables == 2
    first, second = (numbers(extent, at * SECTOR, f"<{tables}I") for at in (redundant, directory))
    assert not set(first) & set(second)
    read = [[numbers(extent, at * SECTOR, "<512I") for at in places] for places in (first, second)]
    assert read[0] == read[1]
    assert any(any(table) for table in read[0])


def pairs(path: Path) -> dict[str, str]:
    """The descriptor's ``key = value``; a key that stands there twice fails."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r'([\w.]+)\s*=\s*"?(.*?)"?', line):
            assert match[1] not in found, line
            found[match[1]] = match[2]
    return found


@pytest.mark.parametrize(("name", "thin"), [("vmfs-thin", True), ("vmfs-thick", False), ("vmfs-eager", False)])
def test_vmfs_descriptor(tmp_path: Path, name: str, thin: bool) -> None:
    source, path = convert(tmp_path, name)
    text, found = path.read_text(encoding="utf-8"), pairs(path)
    assert text.startswith("# Disk DescriptorFile\nversion=1\n")
    assert text.endswith("\n")
    assert f'\nRW {source.size // SECTOR} VMFS "y-flat.vmdk"\n' in text
    assert found["createType"] == "vmfs"
    assert found["parentCID"] == "ffffffff"
    assert re.fullmatch(r"[0-9a-f]{8}", found["CID"])
    assert found["ddb.adapterType"] == "lsilogic"
    assert int(found["ddb.virtualHWVersion"]) >= 4
    assert found.get("ddb.thinProvisioned") == ("1" if thin else None)
    assert "parentFileNameHint" not in found
    assert (path.parent / "y-flat.vmdk").stat().st_size == source.size
    cylinders, heads, sectors = (int(found[f"ddb.geometry.{key}"]) for key in ("cylinders", "heads", "sectors"))
    assert (heads, sectors) == (64, 32)
    assert cylinders == max(1, source.size // SECTOR // (64 * 32))


@pytest.mark.parametrize(("sectors", "heads", "track"), [
    (2 << 20, 128, 32), ((2 << 20) - 1, 64, 32), (4 << 20, 255, 63), ((4 << 20) - 1, 128, 32), (62 << 31, 255, 63)])
def test_geometry_follows_the_size(tmp_path: Path, sectors: int, heads: int, track: int) -> None:
    """1 GiB and 2 GiB are where VMware's hosts change heads and sectors."""
    source = tmp_path / "x.qcow2"
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", source, sectors * SECTOR)
    disk = Source(source, "qcow2", ())
    (tmp_path / "y").mkdir()
    # A flat file of 62 TiB is more than ext4 holds: the sparse kind has the same database.
    made = targets.run(disk, WRITABLE["monolithicSparse-thin"], tmp_path / "y")
    with open(made.destination, "rb") as file:
        text = file.read(64 * SECTOR)[SECTOR:].split(b"\0")[0].decode()
    assert f'ddb.geometry.heads = "{heads}"' in text
    assert f'ddb.geometry.sectors = "{track}"' in text
    assert f'ddb.geometry.cylinders = "{min(65535, sectors // (heads * track))}"' in text


def test_ide(tmp_path: Path) -> None:
    _, path = convert(tmp_path, "vmfs-ide")
    found = pairs(path)
    assert (found["ddb.adapterType"], found["ddb.virtualHWVersion"]) == ("ide", "11")
    assert (found["ddb.geometry.heads"], found["ddb.geometry.sectors"]) == ("16", "63")


@pytest.mark.parametrize("name", ["vmfs-thin", "monolithicSparse-thin", "streamOptimized"])
def test_each_run_has_its_own_ids(tmp_path: Path, name: str) -> None:
    seen: list[tuple[bytes, ...]] = []
    for run in range(3):
        (tmp_path / str(run)).mkdir()
        _, path = convert(tmp_path / str(run), name)
        with path.open("rb") as file:
            head = file.read(64 * SECTOR)
        seen.append(tuple(re.findall(rb'^(?:CID=|ddb\.uuid = "|ddb\.longContentID = ")[^"\n]+', head, re.MULTILINE)))
    assert len(set(seen)) == 3
    firsts = {ids[0] for ids in seen}
    assert len(firsts) == 3
    assert not firsts & {b"CID=ffffffff", b"CID=00000000", b"CID=fffffffe"}
