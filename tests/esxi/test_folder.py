"""Files of datastores: hostile names, a vCenter's rules, what is not given out, uploads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Registered, Server, esxi
from imgtool.endpoints.vsphere import folder, login, machines
from imgtool.endpoints.vsphere.facts import facts
from imgtool.endpoints.vsphere.folder import NoFileError, StorePath
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, RefusedError, UnreachableError
from imgtool.model.endpoint import Extent
from imgtool.progress import Control, Stop
from tests.esxi.machines import MIB, ODD_NAME, machine
from tests.esxi.sessions import files, session, vsphere

NAMES = ("plain", "with blanks", "#1", "50%", "a+b", "[x]", "größe-日本", "a&b=c;d", "q?x", ODD_NAME)
CENTERS = [Server(), Server(vcenter=True, datacenter="DC"), Server(vcenter=True, folder="Büro", datacenter="A+B 100%"),
           Server(vcenter=True, folder="F", datacenter="DC 1", double_encoded=True)]


@pytest.mark.parametrize("server", CENTERS, ids=["esxi", "vcenter", "vcenter with a folder", "vcenter, encoded twice"])
def test_any_name_is_found(tmp_path: Path, server: Server) -> None:
    hosts = [Registered(path=f"[ds #1 +%] {machine(tmp_path, name, [MIB])}") for name in NAMES]
    with esxi([Datastore(name="ds #1 +%", directory=tmp_path)], hosts, server) as made, vsphere(made) as there:
        for name in NAMES:
            one = there.find(name)
            told = facts(there.session, one)
            assert there.look(one, Control()).text == (tmp_path / name / f"{name}.vmx").read_bytes()
            assert folder.extents(there.files(one), told.disks[0].path) == (
                Extent(path=f"[ds #1 +%] {name}/{name}-flat.vmdk", start=0, length=MIB),)


def test_a_vcenter_is_told_the_datacenter(tmp_path: Path) -> None:
    """With the folders above it, without a leading slash; and nothing else is accepted."""
    server = Server(vcenter=True, folder="F", datacenter="DC")
    path = f"[ds] {machine(tmp_path, 'web01', [MIB])}"
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=path)], server) as made, session(made) as logged_in:
        assert files(logged_in, "web01").datacenter == "F/DC"
        for wrong in ("DC", "/F/DC", "ha-datacenter", ""):
            with pytest.raises(NoFileError):
                folder.Folder(logged_in, wrong).read(StorePath.parse(path))


@pytest.mark.parametrize("extent", ["../other/x-flat.vmdk", "/vmfs/volumes/ds/other/x-flat.vmdk", ".."])
def test_a_descriptor_cannot_point_elsewhere(tmp_path: Path, extent: str) -> None:
    machine(tmp_path, "other", [MIB])
    path = machine(tmp_path, "web01", [MIB], extent=extent)
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}")]) as made, vsphere(made) as there:
        one = there.find("web01")
        with pytest.raises(RefusedError, match="outside its folder"):
            folder.extents(there.files(one), facts(there.session, one).disks[0].path)


@pytest.mark.parametrize("extent", ["vsan://52d1-57a0", None])
def test_vsan_gives_out_no_flat_files(tmp_path: Path, extent: str | None) -> None:
    path = machine(tmp_path, "web01", [MIB], extent=extent)
    with esxi([Datastore(name="vs", directory=tmp_path, kind="vsan")], [Registered(path=f"[vs] {path}")]) as made, \
            vsphere(made) as there:
        one = there.find("web01")
        told = facts(there.session, one)
        assert told.disks[0].datastore_kind == "vsan"
        with pytest.raises(NoFileError):
            folder.extents(there.files(one), told.disks[0].path)


def test_a_disk_of_several_extents(tmp_path: Path) -> None:
    path = machine(tmp_path, "web01", [MIB])
    place = tmp_path / "web01"
    (place / "web01.vmdk").write_text("# Disk DescriptorFile\ncreateType=\"vmfs\"\nRW 1024 FLAT \"web01-flat.vmdk\" 512\n"
                                      "RW 8 ZERO\nRW 1024 VMFS \"b-flat.vmdk\"\n")
    (place / "b-flat.vmdk").write_bytes(bytes(1024 * 512))
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}")]) as made, vsphere(made) as there:
        one = there.find("web01")
        assert folder.extents(there.files(one), "[ds] web01/web01.vmdk") == (
            Extent(path="[ds] web01/web01-flat.vmdk", start=0, length=1024 * 512, offset=512 * 512),
            Extent(path="[ds] web01/b-flat.vmdk", start=1032 * 512, length=1024 * 512))


@pytest.mark.parametrize("text", ["", "x", "[] x", "ds] x", "[ds] x\0y"])
def test_a_path_that_is_none(text: str) -> None:
    with pytest.raises(DamagedError):
        StorePath.parse(text)


def test_upload_and_register(tmp_path: Path) -> None:
    """PUT of flat file, descriptor and .vmx, then RegisterVM: the way in without a lease."""
    source, store = tmp_path / "here", tmp_path / "there"
    source.mkdir()
    store.mkdir()
    machine(source, ODD_NAME, [3 * MIB + 512])
    with esxi([Datastore(name="ds", directory=store)]) as made, session(made) as logged_in:
        found = machines.places(logged_in)
        there = folder.Folder(logged_in, "ha-datacenter")
        machines.make_directory(logged_in, f"[ds] {ODD_NAME}", None)
        for file in sorted((source / ODD_NAME).iterdir()):
            data = file.read_bytes()
            pieces = (data[at:at + MIB] for at in range(0, len(data), MIB))
            there.upload(StorePath("ds", f"{ODD_NAME}/{file.name}"), pieces, len(data))
            assert (store / ODD_NAME / file.name).read_bytes() == data
        one = machines.register(logged_in, f"[ds] {ODD_NAME}/{ODD_NAME}.vmx", "web01.imgtool", Stop(), folder=found.folders[0].id,
                                pool=found.pools[0].id)
        machines.rename(logged_in, one, "web01", Stop())
        with vsphere(made) as again:
            told = facts(again.session, again.find("web01"))
        assert [(disk.capacity, disk.controller) for disk in told.disks] == [(3 * MIB + 512, "scsi0:0")]
        machines.remove(logged_in, one, Stop())
        assert not (store / ODD_NAME).exists()


def test_what_was_half_uploaded_is_removed(tmp_path: Path) -> None:
    with esxi([Datastore(name="ds", directory=tmp_path)]) as made, session(made) as logged_in:
        there, path = folder.Folder(logged_in, "ha-datacenter"), StorePath("ds", "x y/a-flat.vmdk")
        machines.make_directory(logged_in, "[ds] x y", None)
        made.order(cuts=[MIB])
        with pytest.raises(UnreachableError, match="broke off"):
            there.upload(path, (bytes(MIB) for _ in range(16)), 16 * MIB)
        there.remove(path)
        there.remove(path)
        machines.remove_directory(logged_in, "[ds] x y", None, Stop())
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("status", "error"), [(507, NoSpaceError), (403, UnreachableError), (500, RefusedError)])
def test_a_refused_upload(tmp_path: Path, status: int, error: type[ImgtoolError]) -> None:
    with esxi([Datastore(name="ds", directory=tmp_path)]) as made, session(made) as logged_in:
        made.order(refuse_put=status)
        with pytest.raises(error):
            folder.Folder(logged_in, "ha-datacenter").upload(StorePath("ds", "a"), (bytes(MIB) for _ in range(64)), 64 * MIB)
    assert [*tmp_path.iterdir()] == []


def test_no_folder_no_upload(tmp_path: Path) -> None:
    with esxi([Datastore(name="ds", directory=tmp_path)]) as made, session(made) as logged_in, pytest.raises(ImgtoolError):
        folder.Folder(logged_in, "ha-datacenter").write(StorePath("ds", "missing/a.vmdk"), b"x")


def test_small_files_over_a_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server is asked again; a file that is too large is not read on, and what is not removed is said."""
    monkeypatch.setattr(login, "FIRST_PAUSE", 0.01)
    path = StorePath.parse(f"[ds] {machine(tmp_path, 'web01', [MIB])}")
    with esxi([Datastore(name="ds", directory=tmp_path)]) as made, session(made) as logged_in:
        there = folder.Folder(logged_in, "ha-datacenter")
        made.order(unavailable=2)
        assert b"web01" in there.read(path)
        made.reset()
        monkeypatch.setattr(folder, "MAX_SMALL", 100)
        with pytest.raises(DamagedError, match="larger than any file of its kind"):
            there.read(path)
        monkeypatch.setattr(there, "_once", lambda _method, _address: (403, None, b""))
        with pytest.raises(UnreachableError, match="HTTP 403"):
            there.remove(path)
        monkeypatch.undo()

        def cut() -> None:
            raise ConnectionResetError("reset")

        monkeypatch.setattr(there, "_connection", cut)
        with pytest.raises(UnreachableError, match="GET broke off: reset"):
            there.read(path)


def test_making_a_folder_that_is_there(tmp_path: Path) -> None:
    """``CreateParentDirectories`` makes that no error."""
    with esxi([Datastore(name="ds", directory=tmp_path)]) as made, session(made) as logged_in:
        for _ in range(2):
            machines.make_directory(logged_in, "[ds] a/b", None)
    assert (tmp_path / "a" / "b").is_dir()
