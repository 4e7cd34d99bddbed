"""Machines of a real libvirtd, listed, looked at and read in place."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.libvirtd import Libvirtd
from fixtures.run import run
from imgtool import endpoints
from imgtool.endpoints import Source, uri
from imgtool.errors import ImgtoolError, RefusedError, UnreachableError, UsageError
from imgtool.model.endpoint import Credentials, Power
from imgtool.progress import Control
from tests.libvirt_endpoint.domains import CHANNEL, NIC, disk, domain
from tests.libvirt_endpoint.sinks import MIB, Bytes, expected, qcow2


@pytest.fixture
def source(daemon: Libvirtd, pool: Path) -> Iterator[Source]:
    found = endpoints.source(uri.parse(daemon.address), Credentials())
    yield found
    found.close()


HOSTILE = ["it's \"quoted\"", " blanks  inside ", "-rf", "ünï cødé 🚀", "<a>&amp;", "$(touch x);`id`", "a#b%c+d?e"]


def test_lists_and_finds(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    for name in HOSTILE:
        daemon.define(domain(name), tmp_path)
    found = source.machines()
    assert {one.name for one in found} == set(HOSTILE)
    assert {one.power for one in found} == {Power.OFF}
    for one in found:
        assert source.find(one.name) == source.find(one.id) == one
    with pytest.raises(UsageError, match="no machine 'other'") as error:
        source.find("other")
    assert "-rf" in (error.value.hint or "")


def test_looks(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    image = qcow2(pool / "a b'\"&.qcow2")
    (pool / "raw.img").write_bytes(bytes(3 * MIB))
    daemon.virsh("pool-refresh", "default")
    volume = ("<disk type='volume'><driver name='qemu' type='raw'/><source pool='default' volume='raw.img'/>"
              "<target dev='vdb' bus='virtio'/><shareable/></disk>")
    cdrom = "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
    daemon.define(domain("web", cdrom, disk(image), volume, NIC, CHANNEL), tmp_path)
    seen = source.look(source.find("web"), Control())
    assert seen.suffix == ".xml"
    assert seen.parsed.machine.name == "web"
    assert seen.parsed.machine.nics[0].mac == "52:54:00:12:34:56"
    assert [(one.name, one.capacity, one.kind, one.shared, one.datastore) for one in seen.state.disks] == [
        (str(image), 16 * MIB, "qcow2", False, None), ("default/raw.img", 3 * MIB, "raw", True, "default")]
    assert seen.state.disks[0].data is not None
    assert 2 * MIB <= seen.state.disks[0].data < 4 * MIB
    assert [one.path for one in seen.disks] == [str(image), str(pool / "raw.img")]
    assert (seen.state.running, seen.state.suspended, seen.state.snapshots, seen.state.tools) == (False, False, (), None)


def test_secrets_stay_there(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    daemon.define(domain("web", "<graphics type='vnc' port='-1' passwd='secret78'/>"), tmp_path)
    assert b"secret78" not in source.look(source.find("web"), Control()).text


def test_running_and_suspended(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    daemon.define(domain("web", disk(qcow2(pool / "x.qcow2")), CHANNEL), tmp_path)
    daemon.virsh("start", "web")
    found = source.find("web")
    seen = source.look(found, Control())
    assert (found.power, seen.state.running, seen.state.tools) == (Power.RUNNING, True, "stopped")
    assert seen.state.disks[0].capacity == 16 * MIB
    daemon.virsh("managedsave", "web")
    seen = source.look(source.find("web"), Control())
    assert (seen.found.power, seen.state.running, seen.state.suspended) == (Power.SUSPENDED, False, True)


def test_snapshots(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    daemon.define(domain("web", disk(qcow2(pool / "x.qcow2"))), tmp_path)
    daemon.virsh("snapshot-create-as", "web", "before 'it'")
    assert source.look(source.find("web"), Control()).state.snapshots == ("before 'it'",)


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_reads_in_place(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path, form: str) -> None:
    """A raw disk in which a guest has written a qcow2 header is raw."""
    image = qcow2(pool / "x.img")
    want = expected(image, form, tmp_path)
    daemon.define(domain("web", disk(image, form=form)), tmp_path)
    before = image.stat()
    with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
        assert reader.disk is not None
        assert (reader.size, reader.resumes, reader.disk.top.format) == (len(want), True, form)
        sink = Bytes(reader.size)
        half = reader.size // 2 + 3
        reader.read([(0, half), (half, reader.size)], sink, Control())
        assert hashlib.sha256(sink.data).digest() == hashlib.sha256(want).digest()
        assert sink.seen == reader.size
        for start, end in reader.holes():
            assert not any(want[start:end])
        state = dict(reader.state)
    assert (image.stat().st_mtime_ns, image.stat().st_atime_ns) == (before.st_mtime_ns, before.st_atime_ns)
    run(["qemu-io", "-f", "raw", "-c", "write -P 9 1M 4k", image])
    with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
        assert reader.state != state


def test_chain_in_a_pool_is_followed(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    templates = daemon.pool("templates", tmp_path / "templates")
    base = qcow2(templates / "base.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", pool / "top.qcow2"])
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 8 2M 64k", pool / "top.qcow2"])
    daemon.define(domain("web", disk(pool / "top.qcow2")), tmp_path)
    want = expected(pool / "top.qcow2", "qcow2", tmp_path)
    with source.reader(source.look(source.find("web"), Control()), 0, Control()) as reader:
        sink = Bytes(reader.size)
        reader.read([(0, reader.size)], sink, Control())
    assert bytes(sink.data) == want


def test_chain_out_of_the_pools_is_refused(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    secret = qcow2(tmp_path / "secret.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "qcow2", pool / "top.qcow2"])
    daemon.define(domain("web", disk(pool / "top.qcow2")), tmp_path)
    seen = source.look(source.find("web"), Control())
    with pytest.raises(RefusedError, match="in no storage pool"), source.reader(seen, 0, Control()):
        pass


def test_chain_of_the_description(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    """libvirt goes by what the domain says: where the image says something else, nobody knows which is meant."""
    base = qcow2(pool / "base.qcow2")
    qcow2(pool / "other.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", pool / "top.qcow2"])
    for name, right in (("base", True), ("other", False)):
        inner = (f"<backingStore type='file'><format type='qcow2'/><source file='{pool}/{name}.qcow2'/><backingStore/>"
                 "</backingStore>")
        daemon.define(domain(name, disk(pool / "top.qcow2", inner=inner)), tmp_path)
        seen = source.look(source.find(name), Control())
        if right:
            with source.reader(seen, 0, Control()) as reader:
                assert reader.size == 16 * MIB
        else:
            with pytest.raises(RefusedError, match="the domain says"), source.reader(seen, 0, Control()):
                pass


def test_network_disk_is_refused(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    network = ("<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='rbd' name='pool/image'>"
               "<host name='ceph1' port='6789'/></source><target dev='vda' bus='virtio'/></disk>")
    daemon.define(domain("web", network, disk(qcow2(pool / "x.qcow2"), device="vdb")), tmp_path)
    seen = source.look(source.find("web"), Control())
    assert [one.kind for one in seen.state.disks] == ["network", "qcow2"]
    with pytest.raises(RefusedError, match="no file and no device"), source.reader(seen, 0, Control()):
        pass


def test_missing_disk(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    daemon.define(domain("web", disk(pool / "gone.qcow2")), tmp_path)
    seen = source.look(source.find("web"), Control())
    assert seen.state.disks[0].capacity == 0
    with pytest.raises(ImgtoolError, match="does not exist"), source.reader(seen, 0, Control()):
        pass


def test_shut_down_waits_and_stops(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    """No guest is there to hear it: somebody else powers it off meanwhile."""
    daemon.define(domain("web"), tmp_path)
    daemon.virsh("start", "web")
    timer = threading.Timer(2, lambda: daemon.virsh("destroy", "web"))
    timer.start()
    began = time.monotonic()
    source.shut_down(source.find("web"), Control())
    timer.join()
    assert time.monotonic() - began > 1
    assert source.find("web").power is Power.OFF
    source.shut_down(source.find("web"), Control())  # off already


def test_transient_machine_is_not_shut_down(daemon: Libvirtd, source: Source, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "t.xml").write_text(domain("fleeting"))
    daemon.virsh("create", tmp_path / "t.xml")
    with pytest.raises(RefusedError, match="transient"):
        source.shut_down(source.find("fleeting"), Control())
    daemon.virsh("destroy", "fleeting")


@pytest.mark.parametrize(("address", "error"), [
    ("qemu:///system?socket=/nonexistent", UnreachableError), ("qemu:///nowhere", UsageError),
    ("qemu:///system?command=/bin/sh", UsageError), ("qemu+ssh://root@localhost/system?netcat=/bin/sh", UsageError)])
def test_wrong_addresses(address: str, error: type[ImgtoolError]) -> None:
    with pytest.raises(error):
        endpoints.source(uri.parse(address), Credentials())
