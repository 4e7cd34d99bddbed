"""Machines elsewhere, by an endpoint of our own: read in place, or copied first; running ones are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imgtool import endpoints
from imgtool.descriptions import description
from imgtool.endpoints import Sink
from imgtool.errors import RefusedError, UnreachableError, UsageError
from imgtool.formats.disk import Disk, open_disk
from imgtool.model.description import Parsed, Trace
from imgtool.model.devices import Bus, DiskSlot
from imgtool.model.endpoint import Found, Power, Seen
from imgtool.model.machine import Machine
from imgtool.model.situation import SourceState
from imgtool.model.v2p import DiskChoice, V2pRequest
from imgtool.progress import Control
from imgtool.steps.v2p import prepare, v2p
from imgtool.steps.v2p.sources import disk_names
from tests.metal.physical import MIB, has, image, physical, serial

XML = b"""<domain type='kvm'><name>web</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/far/a.raw'/><target dev='vda' bus='virtio'/></disk>
</devices></domain>"""


class Far:
    """A disk that has to be asked for, piece by piece, and a connection that is cut once."""

    resumes = True
    disk: Disk | None = None

    def __init__(self, path: Path, cuts: int) -> None:
        self.data = path.read_bytes()
        self.size = len(self.data)
        self.state = {"id": "far", "size": self.size}
        self.cuts, self.asked = cuts, 0

    def holes(self) -> Iterable[tuple[int, int]]:
        return [(4 * MIB, 8 * MIB), (26 * MIB, 30 * MIB)]

    def read(self, wanted: Iterable[tuple[int, int]], sink: Sink, control: Control) -> None:
        for start, end in wanted:
            for at in range(start, end, MIB):
                self.asked += 1
                if self.asked == 20 and self.cuts:
                    self.cuts -= 1
                    raise UnreachableError("the cable was cut")
                sink.write(at, memoryview(self.data)[at:min(at + MIB, end)])


class Place:
    """The endpoint."""

    def __init__(self, far: Far, power: Power = Power.OFF) -> None:
        self.far, self.power = far, power

    def find(self, name: str) -> Found:
        return Found(name=name, id="1", power=self.power)

    def look(self, found: Found, control: Control) -> Seen:
        return Seen(found=found, suffix=".xml", text=XML, parsed=description(".xml").parse(XML), state=SourceState())

    @contextmanager
    def reader(self, seen: Seen, number: int, control: Control) -> Iterator[Far]:
        yield self.far

    def close(self) -> None:
        pass


def request(device: Path) -> V2pRequest:
    return V2pRequest(name="web", source="qemu:///system", disks=(DiskChoice(source="vda", device=str(device)),), adapt=False,
                      confirmed=(serial(device),))


def test_a_disk_that_cannot_be_read_in_place_is_copied_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = image(tmp_path)
    far = Far(source, cuts=1)
    monkeypatch.setattr(endpoints, "source", lambda *_: Place(far))
    with physical(tmp_path, 80 * MIB) as device:
        with pytest.raises(UnreachableError, match="cut"):
            v2p(request(device), Control())
        first, far.asked = far.asked, 0
        v2p(request(device), Control())
        has(device, source)
        assert (first, far.asked) == (20, 56 - 16), "what has come is not asked for again, nor are holes"


def test_a_plan_asks_for_what_it_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the plan that the image itself has. Where all or nothing is to be had, there is none."""
    source = image(tmp_path)
    far = Far(source, cuts=0)
    monkeypatch.setattr(endpoints, "source", lambda *_: Place(far))
    with physical(tmp_path, 80 * MIB) as device:
        (there,) = prepare(request(device), Control(), fetch=True).disks
        (here,) = prepare(replace(request(device), name=str(source), source=None, disks=(
            DiskChoice(source="", device=str(device)),)), Control()).disks
        assert (there.image, there.image_size) == ("/far/a.raw", here.image_size)
        assert (there.notes, there.problems) == (here.notes, here.problems)
        assert 0 < far.asked <= 4
        assert not any((tmp_path / "state" / "v2p").iterdir())
        monkeypatch.setattr(far, "resumes", False)
        with pytest.raises(UsageError, match="no plan without copying"):
            prepare(request(device), Control())
        (again,) = prepare(request(device), Control(), fetch=True).disks
        assert (again.notes, far.asked > 40) == (here.notes, True)


def test_a_disk_that_can_be_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = image(tmp_path)
    with physical(tmp_path, 80 * MIB) as device, open_disk(str(source), source_format="raw") as disk:
        far = Far(source, cuts=0)
        far.disk = disk
        monkeypatch.setattr(endpoints, "source", lambda *_: Place(far))
        assert prepare(request(device), Control()).machine == "web"
        v2p(request(device), Control())
        has(device, source)
        assert not far.asked


def test_a_machine_that_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "source", lambda *_: Place(Far(image(tmp_path), cuts=0), Power.RUNNING))
    with physical(tmp_path, 80 * MIB) as device, pytest.raises(RefusedError, match="web is running"):
        v2p(request(device), Control())


def machine(*slots: DiskSlot, trace: tuple[Trace, ...] = ()) -> Parsed:
    return Parsed(machine=Machine(name="web", disks=slots), trace=trace)


def test_disks_are_called_as_a_kernel_would() -> None:
    """Counted by bus, unless the description says names; what would mean two disks means none."""
    slots = (DiskSlot(path="a/x.vmdk"), DiskSlot(path="b/x.vmdk", unit=1), DiskSlot(path="c.vmdk", bus=Bus.VIRTIO),
             DiskSlot(path="d.vmdk", bus=Bus.IDE))
    assert disk_names(machine(*slots), ()) == [
        ("sda", "scsi0:0", "0", "a/x.vmdk"), ("sdb", "scsi0:1", "1", "b/x.vmdk"), ("vda", "virtio0:0", "2", "c.vmdk"),
        ("hda", "ide0:0", "3", "d.vmdk")]
    many = disk_names(machine(*(DiskSlot(path=f"{number}.raw", unit=number) for number in range(28))), ())
    assert [names[0] for names in many[24:]] == ["sdy", "sdz", "sdaa", "sdab"]


def test_names_of_the_description_win() -> None:
    """Another disk's place must not take the name of one that is called so."""
    trace = tuple(Trace(field=f"disks[{number}].path", key=f"disk[{number}]/target/@dev", value=name)
                  for number, name in enumerate(("sdb", "sda")))
    found = disk_names(machine(DiskSlot(path="a"), DiskSlot(path="b", unit=1), trace=trace), ())
    assert [names[0] for names in found] == ["sdb", "sda"]


def test_a_machine_without_a_disk(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_bytes(XML.split(b"<disk")[0] + b"</devices></domain>")
    wanted = V2pRequest(name=str(tmp_path / "m.xml"), disks=(DiskChoice(source="0", device="/dev/null"),), adapt=False)
    with pytest.raises(UsageError, match="describes a machine without a disk"):
        prepare(wanted, Control())
