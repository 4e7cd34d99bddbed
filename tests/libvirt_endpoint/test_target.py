"""Machines defined on a real libvirtd of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fixtures.libvirtd import Libvirtd
from fixtures.run import run
from imgtool import endpoints
from imgtool.endpoints import HostTarget, uri
from imgtool.endpoints.libvirt import inventory
from imgtool.endpoints.libvirt.target import may_enter
from imgtool.errors import ImgtoolError, RefusedError, UsageError
from imgtool.model.endpoint import Credentials, Placing
from imgtool.progress import Control
from tests.libvirt_endpoint.domains import CHANNEL, NIC, SCREEN, disk, domain

NEW = ".imgtool-new"
UUID = "11111111-2222-4333-8444-555555555555"
NETWORK = "<network><name>lab</name><bridge name='virbr7'/><ip address='192.168.77.1' netmask='255.255.255.0'/></network>"


@pytest.fixture
def target(daemon: Libvirtd, pool: Path) -> Iterator[HostTarget]:
    found = cast("HostTarget", endpoints.target(uri.parse(daemon.address), Credentials()))
    yield found
    found.close()


def image(folder: Path, name: str) -> str:
    run(["qemu-img", "create", "-q", "-f", "qcow2", folder / name, "16M"])
    return str(folder / name)


def test_looks(daemon: Libvirtd, target: HostTarget, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text(NETWORK)
    daemon.virsh("net-define", tmp_path / "net.xml")
    daemon.define(domain("there", NIC, uuid=UUID), tmp_path)
    other = daemon.pool("other", tmp_path / "other")
    state = target.look(Placing(networks=("lab",)), Control())
    daemon.virsh("net-undefine", "lab")
    assert (target.folder, state.storage, state.kind) == (str(pool), "default", "kvm")
    assert {"default", "other"} <= set(state.storages)
    assert {"network:lab", "bridge:virbr7"} <= set(state.networks or ())
    assert [(one.name, one.uuid, one.macs) for one in state.machines] == [("there", UUID, ("52:54:00:12:34:56",))]
    status = os.statvfs(pool)
    assert state.free is not None
    assert abs(state.free - status.f_bfree * status.f_frsize) < 1 << 30
    for word in ("other", str(other)):
        assert target.look(Placing(storage=word), Control()).storage == "other"
        assert target.folder == str(other)


def test_a_folder_is_a_place_too(target: HostTarget, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    state = target.look(Placing(storage=f"{tmp_path}/plain/"), Control())
    assert state.storage == target.folder == str(tmp_path / "plain")
    assert state.storage in state.storages


@pytest.mark.parametrize(("placing", "words"), [
    (Placing(storage="nowhere"), "no storage pool 'nowhere'"), (Placing(storage="/nonexistent/x"), "no folder"),
    (Placing(storage="asleep"), "not active"), (Placing(networks=("moon",)), "no network 'moon'")])
def test_wrong_names_are_answered_with_what_there_is(daemon: Libvirtd, target: HostTarget, tmp_path: Path, placing: Placing,
                                                     words: str) -> None:
    daemon.virsh("pool-define-as", "--name", "asleep", "--type", "dir", "--target", tmp_path)
    with pytest.raises(UsageError, match=words) as error:
        target.look(placing, Control())
    assert "default" in (error.value.hint or "") or placing.networks or "/" in (placing.storage or "")


def test_two_pools_and_no_name(daemon: Libvirtd, target: HostTarget, pool: Path, tmp_path: Path) -> None:
    daemon.virsh("pool-destroy", "default")
    assert target.look(Placing(storage=str(daemon.pool("a", tmp_path / "a"))), Control()).storage == "a"
    daemon.pool("b", tmp_path / "b")
    with pytest.raises(UsageError, match="which storage pool"):
        target.look(Placing(), Control())


@pytest.mark.parametrize("name", ["web", "it's \"quoted\" <&>", " blanks  in it ", "-rf", "ünï 🚀"])
def test_defines_renames_and_removes(daemon: Libvirtd, target: HostTarget, pool: Path, name: str) -> None:
    target.look(Placing(), Control())
    path = image(pool, f"{name}-0.qcow2")
    machine = target.define(name + NEW, domain(name + NEW, disk(path), uuid=UUID).encode(), [path])
    assert machine == UUID
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert "Autostart:      disable" in daemon.virsh("dominfo", UUID)
    assert f"{name}-0.qcow2" in daemon.virsh("vol-list", "default")
    target.rename(machine, name)
    assert daemon.virsh("domname", UUID).rstrip("\n") == name
    target.rename(machine, name)  # again, after a kill
    target.remove(machine)
    assert UUID not in daemon.virsh("list", "--all", "--uuid")
    assert os.listdir(pool) == []


def test_names_and_uuids_that_are_taken(daemon: Libvirtd, target: HostTarget, pool: Path, tmp_path: Path) -> None:
    """libvirt would replace a machine of the same name and uuid without a word."""
    target.look(Placing(), Control())
    daemon.define(domain("web", NIC, uuid=UUID), tmp_path)
    for text in (domain("web", uuid=UUID), domain("web"), domain("other" + NEW, uuid=UUID)):
        with pytest.raises(RefusedError, match="there is a machine web"):
            target.define("web", text.encode(), [])
    assert "52:54:00:12:34:56" in daemon.virsh("dumpxml", "web")
    machine = target.define("new" + NEW, domain("new" + NEW).encode(), [])
    with pytest.raises(RefusedError, match="there is a machine web"):
        target.rename(machine, "web")
    assert "new" + NEW in daemon.virsh("list", "--all", "--name")


def test_goes_on_after_a_kill(daemon: Libvirtd, target: HostTarget, pool: Path) -> None:
    target.look(Placing(), Control())
    path = image(pool, "web-0.qcow2")
    for text in (domain("web" + NEW, disk(path), uuid=UUID), domain("web" + NEW, disk(path), uuid=UUID), ):
        machine = target.define("web" + NEW, text.encode(), [path])
    other = cast("HostTarget", endpoints.target(uri.parse(daemon.address), Credentials()))
    other.look(Placing(), Control())
    other.remove(machine)  # it knows them by the name and by where they are
    other.close()
    assert os.listdir(pool) == []


def test_goes_on_after_a_kill_without_a_uuid(daemon: Libvirtd, target: HostTarget, pool: Path) -> None:
    """libvirt gives each a new one: the half-made machine before is in the way, and goes."""
    target.look(Placing(), Control())
    first, second = (target.define("web" + NEW, domain("web" + NEW).encode(), []) for _ in range(2))
    assert daemon.virsh("list", "--all", "--uuid").split() == [second] != [first]


def test_a_half_made_machine_that_somebody_has_removed(daemon: Libvirtd, target: HostTarget, pool: Path) -> None:
    target.look(Placing(), Control())
    path = image(pool, "web-0.qcow2")
    machine = target.define("web" + NEW, domain("web" + NEW, disk(path), uuid=UUID).encode(), [path])
    daemon.virsh("undefine", UUID)
    target.remove(machine)
    assert os.listdir(pool) == []


def test_the_user_of_qemu(target: HostTarget, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks become his; a folder that he cannot enter is refused before anything is copied."""
    monkeypatch.setattr(inventory, "owner", lambda _connection: (64055, 64056))
    with pytest.raises(UsageError, match="user 64055, who cannot enter") as error:
        target.look(Placing(), Control())
    assert "--storage" in (error.value.hint or "")
    path = image(pool, "web-0.qcow2")
    target.define("web" + NEW, domain("web" + NEW, disk(path), uuid=UUID).encode(), [path])
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (64055, 64056, 0o600)


def test_another_program_keeps_its_machines_disks(daemon: Libvirtd, target: HostTarget, pool: Path, tmp_path: Path) -> None:
    target.look(Placing(), Control())
    path = image(pool, "precious.qcow2")
    daemon.define(domain("web", disk(path), uuid=UUID), tmp_path)
    target.remove(UUID)
    assert os.path.exists(path)


def test_uefi_variables_have_the_final_name(daemon: Libvirtd, target: HostTarget, pool: Path) -> None:
    target.look(Placing(), Control())
    machine = target.define("web" + NEW, domain("web" + NEW, uuid=UUID, uefi=True).encode(), [])
    target.rename(machine, "web")
    target.start(machine)
    text = daemon.virsh("dumpxml", "web")
    target.remove(machine)
    assert "/web_VARS" in text
    assert NEW not in text


def test_a_folder_that_qemu_cannot_enter(tmp_path: Path) -> None:
    """The folders of tests are root's alone."""
    stranger = (64055, 64055)
    (tmp_path / "x").mkdir()
    assert not may_enter(str(tmp_path / "x"), stranger)
    assert may_enter("/var/lib", stranger)
    assert may_enter(str(tmp_path / "x"), (0, 0))


def test_what_libvirt_does_not_take(target: HostTarget, pool: Path) -> None:
    target.look(Placing(), Control())
    path = image(pool, "web-0.qcow2")
    with pytest.raises(ImgtoolError, match=r"schema|XML"):
        target.define("web", domain("web", disk(path), "<nonsense/>").encode(), [path])
    assert os.path.exists(path)  # the caller's to remove


def test_watches(target: HostTarget, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a disk stays in its firmware."""
    from imgtool.endpoints.libvirt import watch

    monkeypatch.setattr(watch, "SCREEN_SECONDS", 3.0)
    monkeypatch.setattr(watch, "CONSOLE_SECONDS", 3.0)
    monkeypatch.setattr(watch, "AGENT_SECONDS", 2.0)
    target.look(Placing(), Control())
    seen = {}
    console = "<serial type='pty'><target port='0'/></serial>"
    for name, devices in (("screen", CHANNEL + SCREEN), ("console", console), ("dark", "")):
        machine = target.define(name, domain(name, devices).encode(), [])
        assert target.watch(machine, Control()) == "it is off again"
        target.start(machine)
        seen[name] = target.watch(machine, Control())
        target.remove(machine)
    agent, _, screen = seen["screen"].partition("; ")
    assert agent == "the guest agent does not answer"
    assert screen in ("its screen does not change: look whether it hangs in the firmware", "its screen changes")
    assert seen["console"].startswith(("its serial console says: ", "it runs; it has no screen"))
    assert seen["dark"] == "it runs; it has no screen that could be looked at"
