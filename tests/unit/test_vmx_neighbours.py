"""The files beside a ``.vmx``."""

from __future__ import annotations

import pytest

from imgtool.descriptions.vmx import belongs_to, snapshots
from imgtool.errors import DamagedError
from imgtool.model.machine import MachineSnapshot

VMSD = """\
.encoding = "windows-1252"
snapshot.lastUID = "12"
snapshot.current = "12"
snapshot0.uid = "1"
snapshot0.filename = "x-Snapshot1.vmsn"
snapshot0.displayName = "vor dem Übergang"
snapshot0.description = "|22quoted|22"
snapshot0.type = "1"
snapshot0.createTimeHigh = "336295"
snapshot0.createTimeLow = "1080846290"
snapshot0.numDisks = "2"
snapshot0.disk0.fileName = "x.vmdk"
snapshot0.disk0.node = "scsi0:0"
snapshot0.disk1.fileName = "/vmfs/volumes/other/x_1.vmdk"
snapshot0.disk1.node = "scsi0:1"
snapshot10.uid = "12"
snapshot10.parent = "1"
snapshot10.displayName = "a%2fb"
snapshot10.createTimeHigh = "336295"
snapshot10.createTimeLow = "-2"
snapshot10.numDisks = "99999999999"
snapshot10.disk0.fileName = "x-000001.vmdk"
snapshot2.uid = "2"
snapshot2.createTimeHigh = "9999999999"
snapshot2.createTimeLow = "0"
snapshot2.numDisks = "1"
snapshot2.disk0.fileName = ""
snapshot.numSnapshots = "3"
"""


def test_snapshots() -> None:
    assert snapshots(VMSD.encode("cp1252")) == (
        MachineSnapshot(name="vor dem Übergang", id="1", created="2015-10-09T07:51:47Z",
                        disks=("x.vmdk", "/vmfs/volumes/other/x_1.vmdk")),
        MachineSnapshot(name="2", id="2"),
        MachineSnapshot(name="a%2fb", id="12", parent="1", created="2015-10-09T08:45:21Z", disks=("x-000001.vmdk",)))


def test_an_empty_vmsd_lists_nothing() -> None:
    assert snapshots(b"") == snapshots(b"\n") == snapshots(b'.encoding = "UTF-8"\nsnapshot.numSnapshots = "0"\n') == ()


def test_what_is_no_vmsd() -> None:
    with pytest.raises(DamagedError, match=r"VMDK.*\.vmsd"):
        snapshots(b"KDMV")


@pytest.mark.parametrize(("text", "name"), [
    (b'<?xml version="1.0"?>\n<Foundry>\n<VM>\n<VMId type="string">52 1f</VMId>\n<ClientMetaData>\n<clientMetaDataAttributes/>\n'
     b'</ClientMetaData>\n<vmxPathName type="string">a &amp; b.vmx</vmxPathName></VM></Foundry>\n', "a & b.vmx"),
    (b"<Foundry/>", None), (b"", None), (b"<vmxPathName>" * 10_000, None), (b"<vmxPathName" + b"x" * 1_000_000, None),
])
def test_vmxf(text: bytes, name: str | None) -> None:
    assert belongs_to(text) == name
