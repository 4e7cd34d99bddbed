"""A machine in a folder: what is read, which files its names may mean, and which not."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.machine_folder import vmx
from imgtool import endpoints
from imgtool.endpoints import files, local, package
from imgtool.endpoints.local import LocalMachine, disk_file, load, locate, refuse_if_running
from imgtool.endpoints.uri import parse
from imgtool.errors import DamagedError, DifferError, RefusedError, UsageError
from imgtool.formats.disk import open_disk
from imgtool.model.devices import Backing, Bus, Controller, DiskSlot
from imgtool.model.endpoint import Credentials, NewDisk, Placing
from imgtool.model.machine import Cpu, Machine, Memory
from imgtool.progress import Control
from tests.esxi.ovf import OVF
from tests.golden import DESCRIPTIONS, check, meaning


def machine(folder: Path) -> LocalMachine:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vm.vmx").write_text(vmx("vm", ("x.vmdk",)), encoding="utf-8")
    return load(str(folder / "vm.vmx"))


def test_a_template_and_its_snapshots() -> None:
    path = DESCRIPTIONS / "folders" / "golden-image.vmtx"
    check(path.with_name(f"{path.name}.machine"), meaning(load(str(path)).parsed))


def test_a_bundle_of_fusion(tmp_path: Path) -> None:
    machine(tmp_path / "vm.vmwarevm")
    assert load(f"{tmp_path}/vm.vmwarevm/").path.endswith("vm.vmwarevm/vm.vmx")
    (tmp_path / "vm.vmwarevm" / "other.vmx").write_text("")
    with pytest.raises(DamagedError, match="has 2"):
        load(str(tmp_path / "vm.vmwarevm"))


@pytest.mark.parametrize("name", ["absent.vmx", "x.txt", "folder.vmx"])
def test_what_is_no_description(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.vmx").mkdir()
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UsageError):
        load(str(tmp_path / name))


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MAX_TEXT", 100)
    (tmp_path / "x.xml").write_bytes(b"<domain>" + b" " * 100)
    with pytest.raises(DamagedError, match="more than 100"):
        load(str(tmp_path / "x.xml"))


def test_a_vmsd_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('snapshot0.uid = "1"\nsnapshot.numSnapshots = "1"\n')
    folder = tmp_path / "vm"
    folder.mkdir()
    os.symlink(tmp_path / "secret", folder / "vm.vmsd")
    assert machine(folder).parsed.machine.snapshots == ()


def test_a_running_machine(tmp_path: Path) -> None:
    found = machine(tmp_path)
    refuse_if_running(found)
    (tmp_path / "vm.vmx.lck").mkdir()
    with pytest.raises(RefusedError, match="runs"):
        refuse_if_running(found)


@pytest.mark.parametrize(("name", "file"), [
    ("x.vmdk", "vm/x.vmdk"), ("sub/x.vmdk", "vm/sub/x.vmdk"), ("./x.vmdk", "vm/x.vmdk"), ("../x.vmdk", None),
    ("sub/../../x.vmdk", None), ("link.vmdk", None), ("inner.vmdk", "vm/inner.vmdk"), ("absent.vmdk", None), ("sub", None),
    ("", None), ("x.vmdk\0", None)])
def test_names_lead_nowhere_else(tmp_path: Path, name: str, file: str | None) -> None:
    found = machine(tmp_path / "vm")
    (tmp_path / "vm" / "sub").mkdir()
    for place in ("x.vmdk", "vm/x.vmdk", "vm/sub/x.vmdk"):
        (tmp_path / place).write_text("")
    os.symlink("../x.vmdk", tmp_path / "vm" / "link.vmdk")
    os.symlink("x.vmdk", tmp_path / "vm" / "inner.vmdk")
    assert locate(found, name, ()) == (file and str(tmp_path / file))


@pytest.mark.parametrize(("name", "file"), [
    ("{outside}/x.vmdk", "outside/x.vmdk"), ("[ds] x.vmdk", "outside/x.vmdk"), ("/vmfs/volumes/ds/m/y.vmdk", "outside/m/y.vmdk"),
    ("[ds] other/x.vmdk", "outside/x.vmdk"), ("/etc/passwd", None), ("[ds] ../secret", None), ("[ds] link", None),
    ("x[1].vmdk", "outside/x[1].vmdk"), ("x[2].vmdk", None)])
def test_folders_that_the_user_names(tmp_path: Path, name: str, file: str | None) -> None:
    found = machine(tmp_path / "vm")
    outside = tmp_path / "outside"
    (outside / "m").mkdir(parents=True)
    for place in ("outside/x.vmdk", "outside/x[1].vmdk", "outside/m/y.vmdk", "secret"):
        (tmp_path / place).write_text("")
    os.symlink("../secret", outside / "link")
    wanted = name.replace("{outside}", str(outside))
    assert locate(found, wanted, ()) is None
    assert locate(found, wanted, (str(outside),)) == (file and str(tmp_path / file))


@pytest.mark.parametrize(("name", "backing", "error"), [
    ("absent.vmdk", Backing.FILE, DamagedError), ("/etc/passwd", Backing.FILE, RefusedError),
    ("../up.vmdk", Backing.FILE, RefusedError), ("/dev/null", Backing.BLOCK, RefusedError),
    ("rbd:pool/x", Backing.NETWORK, RefusedError), ("pool/x", Backing.VOLUME, RefusedError)])
def test_disks_that_cannot_be_read(tmp_path: Path, name: str, backing: Backing, error: type[Exception]) -> None:
    (tmp_path / "up.vmdk").write_text("")
    with pytest.raises(error):
        disk_file(machine(tmp_path / "vm"), name, backing, ())


def test_a_half_made_machine_is_removed(tmp_path: Path) -> None:
    """The description has a hidden name until it is renamed."""
    folder = tmp_path / "web"
    for renamed in (False, True):
        folder.mkdir()
        made = files.Folder(str(folder))
        machine = made.define("web", b"<domain/>", ())
        if renamed:
            made.rename(machine, "web")
        made.remove(machine)
        assert not folder.exists()


@pytest.mark.parametrize("address", ["{}/new.vmx", "{}/new.ovf", "{}/new.xml"])
def test_a_target_that_is_a_description(tmp_path: Path, address: str) -> None:
    """It would become a folder of that name."""
    with pytest.raises(UsageError, match=r"written into a folder, or an .ova") as caught:
        endpoints.target(parse(address.format(tmp_path)), Credentials())
    assert caught.value.hint == "name a folder"


@pytest.mark.parametrize(("name", "words"), [("out", "is a folder"), ("out.ova", "is an OVA")])
@pytest.mark.parametrize("placing", [Placing(storage="ds"), Placing(pool="x"), Placing(folder="x"), Placing(host="x")])
def test_files_have_no_storage_to_choose(tmp_path: Path, name: str, words: str, placing: Placing) -> None:
    with pytest.raises(UsageError, match=words):
        endpoints.target(parse(str(tmp_path / name)), Credentials()).look(placing, Control())


def test_an_ova_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the directory .* does not exist"):
        package.Package(str(tmp_path / "none" / "web.ova")).look(Placing(), Control())


def test_an_ova_that_differs_from_what_was_packed(tmp_path: Path) -> None:
    """The storage is failing: it gets no name, and nothing of it stays."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * (1 << 20))
    made = Machine(name="web", cpu=Cpu(count=1), memory=Memory(size=1 << 28), controllers=(Controller(bus=Bus.SCSI, number=0),),
                   disks=(DiskSlot(path="a", bus=Bus.SCSI),))
    target, new = package.Package(str(tmp_path / "web.ova")), NewDisk(name="web.vmdk", format="vmdk")
    with open_disk(str(tmp_path / "a"), source_format="raw") as disk, \
            open_disk(str(tmp_path / "b"), source_format="raw") as other:
        machine = target.send("web", made, b"", [(new, disk)], "", Control())
        target.compare(machine, [(new, disk)], Control())
        with pytest.raises(DifferError, match=r"web.vmdk in .* differs from what was packed at byte 0"):
            target.compare(machine, [(new, other)], Control())
    target.remove(machine)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_disk_of_a_package_without_a_file() -> None:
    """An OVF may describe an empty disk; it has no bytes to be read."""
    source: Any = object.__new__(files.MachineFile)
    source.machine = SimpleNamespace(package=object(), text=OVF.encode(), path="web.ova")
    seen: Any = SimpleNamespace(parsed=SimpleNamespace(machine=SimpleNamespace(disks=[SimpleNamespace(path="c.vmdk")])))
    with pytest.raises(DamagedError, match=r"has a disk without a file: 'c.vmdk'"), source.reader(seen, 0, Control()):
        pass
