"""``imgtool info`` of a physical disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgtool.endpoints.metal import disks, hardware
from imgtool.endpoints.metal.describe import health_of
from tests.metal.copies import disk
from tests.oracle import tool
from tests.program import imgtool, result

MIB = 1 << 20


def test_a_disk(tmp_path: Path) -> None:
    path, label = tmp_path / "disk", "a\x1b[31m \"b\\"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    with disk(path, sector=4096) as device:
        tool("sh", "-c", f"printf 'size=4096\\nsize=4096\\n' | sfdisk -q -X gpt {device}", ok=(0, 1))
        tool("partx", "-u", device, ok=(0, 1))
        tool("mkfs.ext4", "-q", "-L", label, f"{device}p1")
        tool("mkswap", "-q", f"{device}p2")
        (tmp_path / "m").mkdir()
        tool("mount", f"{device}p1", tmp_path / "m")
        try:
            told = result("info", device)
            shown = imgtool("info", device)
        finally:
            tool("umount", tmp_path / "m")
    assert (told["format"], told["virtual_size"]) == ("raw", 64 * MIB)
    found = told["disk"]
    assert (found["path"], found["ids"], found["sector"], found["table"]) == (str(device), [str(path)], 4096, "gpt")
    first, second = found["partitions"]
    assert (first["type"], first["label"], first["mounts"]) == ("ext4", label.replace("\x1b", "^["), [str(tmp_path / "m")])
    assert (first["start"], first["size"], second["type"]) == (MIB, 16 * MIB, "swap")
    assert {one["name"] for one in found["signatures"]} >= {"GPT", "backup GPT"}
    assert found["used"] == [f"/dev/{first['name']} is mounted at {tmp_path / 'm'}"]
    assert found["health"] is None
    assert "\x1b" not in shown.stdout
    assert "in use:     " in shown.stdout
    assert "gpt partition table" in shown.stdout


def test_a_member_of_a_volume_group_and_an_image_file(tmp_path: Path) -> None:
    path = tmp_path / "pv.raw"
    path.write_bytes(bytes(512) + b"LABELONE" + bytes(8 * MIB - 520))
    assert "disk" not in result("info", path)
    with disk(path) as device:
        shown = imgtool("info", device)
    assert "belongs to: LVM2 physical volume" in shown.stdout, shown.stderr


ATA = {"smart_status": {"passed": False}, "temperature": {"current": 41}, "power_on_time": {"hours": 70123},
       "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 16}}, {"id": 9, "raw": {"value": 1}},
                                          {"id": 197, "raw": {"value": 0}}]}}
NVME = {"smart_status": {"passed": True}, "nvme_smart_health_information_log": {"percentage_used": 7, "media_errors": 3}}


def test_health() -> None:
    ata, nvme = health_of(ATA), health_of(NVME)
    assert ata
    assert (ata.passed, ata.temperature, ata.hours, ata.bad_sectors) == (False, 41, 70123, {"reallocated": 16, "pending": 0})
    assert nvme
    assert (nvme.passed, nvme.worn_percent, nvme.bad_sectors) == (True, 7, {"uncorrectable": 3})


@pytest.mark.parametrize("said", [{}, [], None, {"smart_status": {}}, {"smart_status": {"passed": "x"}}])
def test_health_that_nobody_can_tell(said: object) -> None:
    assert health_of(said) is None


HOSTILE = "x\x00\x1b[2J\n\u202e'\"<&>$(id)\\"


def test_hostile_names() -> None:
    """Models, serials, firmware and host names are what anybody wrote into them."""
    files = {"/sys/block/sda/size": "8", "/sys/block/sda/dev": "8:0", "/sys/block/sda/device/model": HOSTILE,
             "/sys/block/sda/device/serial": HOSTILE, "/sys/block/sda/wwid": HOSTILE, "/dev/disk/by-id/" + HOSTILE: "/dev/sda",
             "/proc/sys/kernel/hostname": HOSTILE, "/sys/class/dmi/id/product_name": HOSTILE,
             "/proc/self/mountinfo": "1 1\n \n- -\n1 1 8:0 / / rw - \n" + HOSTILE, "/proc/swaps": HOSTILE,
             "/sys/block/sda/queue/logical_block_size": HOSTILE, "/sys/bus/pci/devices/0000:00:00.0/class": HOSTILE}
    (found,) = disks.disks(files)
    machine, _ = hardware.machine(files, [found])
    assert found.ids == ()
    said = [found.model, found.serial, found.wwid, machine.name, machine.description]
    assert all(text and text.isprintable() for text in said), said
    assert found.sector == 512
    json.dumps(said)
