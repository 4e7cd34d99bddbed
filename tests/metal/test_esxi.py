"""v2p of a machine of a (simulated) ESXi, and p2v to one."""

from __future__ import annotations

from pathlib import Path

from fixtures.esxi import Datastore, Server, esxi
from imgtool.descriptions import description
from tests.metal.physical import MIB, SIZE, has, image, physical, result, serial, written
from tests.migrate.machines import same
from tests.migrate.test_from_esxi import SIZES, flats, host
from tests.program import imgtool


def test_a_machine_of_esxi_on_physical_disks(tmp_path: Path) -> None:
    with (host(tmp_path / "store") as server, physical(tmp_path, 100 * MIB) as first,
          physical(tmp_path, 40 * MIB, name="second") as second):
        words = ("v2p", "web01", "--from", server.uri(), "--password-file", server.password_file, "--disk", f"sda={first}",
                 "--disk", f"sdb={second}", "--no-adapt", "--json")
        plan = result(imgtool(*words, "--dry-run"))
        assert [(one["image"], one["image_size"]) for one in plan["disks"]] == [
            ("[datastore1] web01/web01.vmdk", SIZES[0]), ("[datastore1] web01/web01_1.vmdk", SIZES[1])]
        assert sum(server.counters()["bytes"].values()) < 8 * MIB, "only what a plan is made of"
        before = written(first), written(second)
        unsaid = imgtool(*words, "--yes-write-to", serial(first))
        assert (unsaid.returncode, written(first), written(second)) == (4, *before), unsaid.stderr
        done = result(imgtool(*words, "--yes-write-to", serial(first), "--yes-write-to", serial(second)))
        assert [one["verified"] for one in done["disks"]] == [True, True]
        for device, flat in zip((first, second), flats(tmp_path / "store"), strict=True):
            has(device, flat, but_tables=False)
        assert server.counters()["sessions"] == 0


def test_one_that_runs_is_refused(tmp_path: Path) -> None:
    with host(tmp_path / "store", running=True) as server, physical(tmp_path, 100 * MIB) as device:
        before = written(device)
        done = imgtool("v2p", "web01", "--from", server.uri(), "--password-file", server.password_file, "--disk", f"sda={device}",
                       "--no-adapt", "--yes-write-to", serial(device))
        assert (done.returncode, "web01 is running" in done.stderr) == (4, True), done.stderr
        assert written(device) == before


def test_a_physical_disk_becomes_a_machine_of_esxi(tmp_path: Path) -> None:
    raw, store = image(tmp_path), tmp_path / "store"
    store.mkdir()
    with (physical(tmp_path, SIZE, name=raw.name) as device,
          esxi([Datastore(name="ds", directory=store)], server=Server(networks=("LAN",))) as server):
        done = result(imgtool("p2v", "web09", "--from", f"metal://{device}", "--to", server.uri(), "--to-password-file",
                              server.password_file, "--map-network", "default=LAN", "--no-adapt", "--whole", "--json"))
        listed = result(imgtool("migrate", "--from", server.uri(), "--password-file", server.password_file, "--to",
                                tmp_path / "x", "--list", "--json"))
        assert done["verified"]
        assert [one["name"] for one in listed["machines"]] == ["web09"]
        assert server.counters()["leases"] == 0
    (flat,), (vmx,) = store.glob("*/*-flat.vmdk"), store.glob("*/*.vmx")
    same(flat, raw, "raw")
    assert len(description(".vmx").parse(vmx.read_bytes()).machine.disks) == 1
