"""Partition tables made to fit another disk: by what sgdisk and sfdisk say of the result; and tables that lie."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from imgtool.errors import DamagedError, RefusedError
from imgtool.model.partitions import TableKind
from imgtool.partitions.fit import fit
from tests.loops import loop_device
from tests.metal.tables import MIB, fitted, gpt, mbr, partitions, reader, sound, table
from tests.oracle import tool

BACKUP = 33 * 512
TWO = ("2048:+10M", "0:+30M")
LOGICAL = "x1: start=1MiB,size=10MiB,type=83\nx2: size=40MiB,type=5\nx5: size=10MiB,type=83\nx6: size=20MiB,type=83"


@pytest.mark.parametrize("size", [65 * MIB, 64 * MIB + 512, 100 * MIB + 3 * 512, 42 * MIB, 41 * MIB + BACKUP])
def test_a_gpt_fits_a_disk_of_another_size(tmp_path: Path, size: int) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    before = partitions(disk)
    fitted(disk, size)
    sound(disk)
    assert partitions(disk) == before
    assert disk.read_bytes().count(b"EFI PART") == 2, "the old backup is gone"


def test_too_small_says_by_how_much(tmp_path: Path) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    with pytest.raises(RefusedError, match="512 bytes too small"):
        fitted(disk, 41 * MIB + BACKUP - 512)
    with pytest.raises(RefusedError, match="1048576 bytes too small"):
        fitted(mbr(tmp_path / "mbr", 64 * MIB, "1MiB,30MiB,83"), 30 * MIB)
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(8 * MIB))
    with pytest.raises(RefusedError, match="512 bytes too small"):
        fitted(plain, 8 * MIB - 512)


def test_a_disk_of_the_same_size_is_left_as_it_is(tmp_path: Path) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    found = fitted(disk, 64 * MIB)
    assert (found.patches, found.backup) == ((), (64 * MIB - BACKUP, 64 * MIB))


def test_the_protective_record_of_a_disk_over_2_tib(tmp_path: Path) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    fitted(disk, 3 << 40)
    sound(disk)
    with disk.open("rb") as file:
        assert struct.unpack_from("<B3sII", file.read(512), 450)[::3] == (0xEE, 0xFFFFFFFF)
    fitted(disk, 80 * MIB)
    sound(disk)


def test_a_hybrid_mbr_keeps_its_partitions(tmp_path: Path) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    tool("sgdisk", "--hybrid=1:EE", disk)
    before = disk.read_bytes()[446:510]
    assert table(disk).hybrid
    fitted(disk, 100 * MIB)
    after = disk.read_bytes()[446:510]
    mine = [at for at in range(0, 64, 16) if before[at + 4] == 0xEE]
    assert all(after[at:at + 16] == before[at:at + 16] for at in range(0, 64, 16) if at not in mine)
    assert "No problems found" in tool("sgdisk", "--verify", disk).stdout


def test_the_backup_is_used_where_the_primary_is_damaged(tmp_path: Path) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    before = partitions(disk)
    with disk.open("r+b") as file:
        file.seek(512 + 40)
        file.write(b"\xff")
    assert table(disk).warnings
    fitted(disk, 100 * MIB)
    sound(disk)
    assert partitions(disk) == before


def test_the_last_partition_grows(tmp_path: Path) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    found = fitted(disk, 100 * MIB + 512, grow=True)
    sound(disk)
    assert found.grown
    assert partitions(disk)[1][:2] == (11 * MIB, 88 * MIB)
    old = mbr(tmp_path / "mbr", 64 * MIB, "1MiB,10MiB,83\n,20MiB,83")
    fitted(old, 100 * MIB, grow=True)
    assert [one[:2] for one in partitions(old)] == [(MIB, 10 * MIB), (11 * MIB, 89 * MIB)]


def test_an_mbr_ends_at_2_tib(tmp_path: Path) -> None:
    disk = mbr(tmp_path / "disk", 64 * MIB, "1MiB,10MiB,83")
    assert "2 TiB" in fitted(disk, 3 << 40, grow=True).notes[0]
    assert sum(partitions(disk)[0][:2]) <= 2 << 40


def test_a_partition_that_reaches_the_end_does_not_grow(tmp_path: Path) -> None:
    disk = mbr(tmp_path / "disk", 64 * MIB, "1MiB,63MiB,83")
    found = fitted(disk, 64 * MIB + 512, grow=True)
    assert (found.patches, found.grown) == ((), None)
    assert partitions(disk)[0][:2] == (MIB, 63 * MIB)


def test_a_table_without_room_for_larger_sectors_is_refused(tmp_path: Path) -> None:
    """The array of 128 partitions takes 6 sectors of 4096 bytes from the beginning on, 34 of 512 bytes are shorter."""
    disk = gpt(tmp_path / "disk", 64 * MIB)
    tool("sgdisk", "--set-alignment=1", "--new=1:40:+10M", disk)
    assert fitted(disk, 64 * MIB, 512).patches == ()
    with pytest.raises(RefusedError, match="does not fit before the first partition"):
        fitted(disk, 64 * MIB, 4096)
    tool("sgdisk", "--hybrid=1:EE", disk)
    with pytest.raises(RefusedError, match="hybrid MBR"):
        fitted(disk, 64 * MIB, 4096)


def test_logical_partitions_are_seen_and_not_grown(tmp_path: Path) -> None:
    disk = mbr(tmp_path / "disk", 64 * MIB, LOGICAL)
    found = table(disk)
    assert [one.number for one in found.entries] == [1, 2, 5, 6]
    assert [(one.start, one.size) for one in found.entries] == [one[:2] for one in partitions(disk)]
    with pytest.raises(RefusedError, match="logical"):
        fitted(disk, 100 * MIB, grow=True)
    with pytest.raises(RefusedError, match="too small"):
        fitted(disk, 50 * MIB)
    assert not fitted(disk, 100 * MIB).patches


@pytest.mark.parametrize(("make", "fits"), [
    (("mkfs.ext4", "-q", "-b", "4096"), True), (("mkfs.ext4", "-q", "-b", "1024"), False), (("mkswap", "-q"), True),
    (("mkfs.xfs", "-q", "-s", "size=4096"), True), (("mkfs.xfs", "-q", "-s", "size=512"), False),
    (("mkfs.btrfs", "-q"), True), (("mkfs.fat", "-S", "4096"), True), (("mkfs.fat", "-F", "32"), False),
    (("pvcreate", "-q", "--devices"), False),
], ids=lambda one: " ".join(one) if isinstance(one, tuple) else str(one))
def test_which_file_systems_can_have_larger_sectors(tmp_path: Path, make: tuple[str, ...], fits: bool) -> None:
    inside = tmp_path / "inside"
    inside.write_bytes(bytes(320 * MIB))
    if make[0] == "pvcreate":
        inside.write_bytes(bytes(512) + b"LABELONE" + bytes(320 * MIB - 520))
    else:
        tool(*make, inside)
    disk = gpt(tmp_path / "disk", 330 * MIB, "2048:+320M")
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(inside.read_bytes())
    if not fits:
        with pytest.raises(RefusedError, match="partition 1 holds"):
            fitted(disk, 330 * MIB, 4096)
        return
    fitted(disk, 330 * MIB, 4096)
    with loop_device(disk, "--sector-size=4096") as device:
        sound(device)
        assert partitions(device)[0][:2] == (MIB, 320 * MIB)


def test_a_table_in_large_sectors_fits_small_ones(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(64 * MIB))
    with loop_device(disk, "--sector-size=4096") as device:
        tool("sgdisk", "--new=1:256:+10M", device)
    assert table(disk).sector == 4096
    fitted(disk, 64 * MIB)
    sound(disk)
    assert partitions(disk)[0][:2] == (MIB, 10 * MIB)
    assert disk.read_bytes().count(b"EFI PART") == 2


def test_larger_sectors_are_refused_where_they_cannot_work(tmp_path: Path) -> None:
    old = mbr(tmp_path / "mbr", 64 * MIB, "1MiB,30MiB,83")
    with pytest.raises(RefusedError, match="MBR"):
        fitted(old, 64 * MIB, 4096)
    odd = gpt(tmp_path / "odd", 64 * MIB)
    tool("sgdisk", "--set-alignment=1", "--new=1:2049:+10M", odd)
    with pytest.raises(RefusedError, match="not aligned"):
        fitted(odd, 64 * MIB, 4096)
    bios = gpt(tmp_path / "bios", 64 * MIB, "2048:+1M")
    tool("sgdisk", "--typecode=1:ef02", bios)
    with pytest.raises(RefusedError, match="boot loader"):
        fitted(bios, 64 * MIB, 4096)
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(64 * MIB))
    tool("mkfs.ext4", "-q", "-b", "1024", plain)
    with pytest.raises(RefusedError, match="1024 bytes"):
        fitted(plain, 64 * MIB, 4096)


def test_what_is_no_table_is_none(tmp_path: Path) -> None:
    fat = tmp_path / "fat"
    fat.write_bytes(bytes(64 * MIB))
    assert table(fat).kind is TableKind.NONE
    tool("mkfs.fat", "-F", "32", fat)
    assert table(fat).kind is TableKind.NONE
    found = fit(table(fat), reader(fat), 65 * MIB, 512)
    assert not found.patches


def test_a_boot_sector_that_is_no_table_is_none(tmp_path: Path) -> None:
    """It ends as a table does; but a partition is active (0x80) or not (0)."""
    disk = mbr(tmp_path / "disk", 64 * MIB, "1MiB,30MiB,83")
    with disk.open("r+b") as file:
        file.seek(446 + 32)
        file.write(b"\x7f")
    assert table(disk).kind is TableKind.NONE


def test_a_partition_over_its_own_table_keeps_its_size(tmp_path: Path) -> None:
    disk = mbr(tmp_path / "disk", 64 * MIB, "1MiB,30MiB,83")
    with disk.open("r+b") as file:
        file.seek(446 + 8)
        file.write(bytes(4))
    with pytest.raises(DamagedError, match="begins with the disk"):
        fitted(disk, 100 * MIB)
    assert not fitted(disk, 64 * MIB).patches


def header(disk: Path, **fields: int) -> None:
    """Lies in both headers, with checksums that fit."""
    places = {"first": (40, "<Q"), "array": (72, "<Q"), "count": (80, "<I"), "each": (84, "<I"), "own": (24, "<Q")}
    with disk.open("r+b") as file:
        for at in (512, disk.stat().st_size - 512):
            file.seek(at)
            data = bytearray(file.read(92))
            for name, value in fields.items():
                struct.pack_into(places[name][1], data, places[name][0], value)
            data[16:20] = bytes(4)
            data[16:20] = struct.pack("<I", zlib.crc32(data))
            file.seek(at)
            file.write(data)


def entry(disk: Path, number: int, first: int, last: int) -> None:
    """Lies in the primary array, with checksums that fit."""
    with disk.open("r+b") as file:
        file.seek(1024 + (number - 1) * 128 + 32)
        file.write(struct.pack("<QQ", first, last))
        file.seek(1024)
        sum_ = zlib.crc32(file.read(128 * 128))
        file.seek(512)
        data = bytearray(file.read(92))
        data[88:92], data[16:20] = struct.pack("<I", sum_), bytes(4)
        data[16:20] = struct.pack("<I", zlib.crc32(data))
        file.seek(512)
        file.write(data)


@pytest.mark.parametrize("lie", [
    {"count": 1 << 31}, {"each": 100}, {"each": 1 << 31}, {"array": (1 << 63) - 1}, {"own": 7}, {"count": 0}, {"first": 1 << 63}])
def test_a_header_that_lies_is_not_believed(tmp_path: Path, lie: dict[str, int]) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    header(disk, **lie)
    with pytest.raises(DamagedError, match="cannot be made to fit"):
        fitted(disk, 100 * MIB)
    assert not fitted(disk, 64 * MIB).patches, "it can be written as it is"


def test_an_array_far_behind_moves_to_a_smaller_disk(tmp_path: Path) -> None:
    """Of a table without partitions; found by fuzzing."""
    disk = gpt(tmp_path / "disk", 64 * MIB)
    tool("sgdisk", "--clear", disk)
    header(disk, array=(64 * MIB - BACKUP) // 512)  # there is the array of the backup
    made = fitted(disk, 32 * MIB)
    assert all(patch.offset + len(patch.data) <= 32 * MIB for patch in made.patches)
    sound(disk)


@pytest.mark.parametrize("place", [(34, 33), (2048, 1 << 40), (3000, 5000), (10, 2000), (1 << 62, 1 << 63)])
def test_partitions_that_cannot_be_are_refused(tmp_path: Path, place: tuple[int, int]) -> None:
    disk = gpt(tmp_path / "disk", 64 * MIB, *TWO)
    entry(disk, 2, *place)
    with pytest.raises(DamagedError, match="its partition"):
        fitted(disk, 100 * MIB)


def test_a_chain_without_an_end(tmp_path: Path) -> None:
    disk = mbr(tmp_path / "disk", 64 * MIB, LOGICAL)
    with disk.open("r+b") as file:
        file.seek(11 * MIB + 446 + 16 + 8)
        file.write(bytes(4))
    assert table(disk).damaged
    with pytest.raises(DamagedError, match="no end"):
        fitted(disk, 100 * MIB)


def test_a_dynamic_disk_of_windows_keeps_its_size(tmp_path: Path) -> None:
    disk = mbr(tmp_path / "disk", 64 * MIB, "1MiB,30MiB,42")
    with pytest.raises(DamagedError, match="dynamic disk"):
        fitted(disk, 100 * MIB)
