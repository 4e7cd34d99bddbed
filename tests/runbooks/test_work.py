"""A step that is done again finds what is there; what is another's is refused. Which failures are worth another try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgtool.errors import (
    DamagedError,
    DifferError,
    ImgtoolError,
    MissingToolError,
    NoSpaceError,
    NotAdmittedError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from imgtool.frozen import frozen
from imgtool.journal import now
from imgtool.model import VerifyResult
from imgtool.model.runbook import (
    AdaptFor,
    AdaptStep,
    ConvertStep,
    Count,
    Endpoint,
    Limits,
    MigrateStep,
    P2vStep,
    Secret,
    Settings,
    Step,
    Task,
    TranslateStep,
    V2pStep,
    VerifyStep,
)
from imgtool.progress import Control
from imgtool.runs import work
from imgtool.runs.engine.store import Store, database, machine_id, parsed_id, ways
from imgtool.runs.engine.worker import may_help
from imgtool.runs.plans import plans
from imgtool.runs.requests import request_of
from imgtool.runs.tasks import Group
from imgtool.runs.work import do, parts, work_id
from imgtool.steps import verify
from imgtool.steps.verbs import VERBS
from tests.migrate.machines import MIB, raw_disk, same, vmx

NETWORKS = (("VM Network", "br0"),)


def task(base: Path, *steps: Step, name: str = "web01", **settings: Any) -> Task:
    said = Settings(steps=steps or None, networks=NETWORKS, adapt=False, **settings)
    return Task(batch="b", wave="all", name=name, settings=said, source=Endpoint(uri="in/web01.vmx"), target=Endpoint(uri="out"),
                source_host="localhost", target_host="localhost", base=str(base))


STEPS: dict[str, tuple[Callable[[Path], Task], str]] = {
    "convert": (lambda base: task(base, ConvertStep(source="in/d0.vmdk", destination="a.qcow2", to="qcow2")), "a.qcow2"),
    "machine": (lambda base: task(base, ConvertStep(source="in/web01.vmx", destination="kvm", to="qcow2")), "kvm/d0.qcow2"),
    "package": (lambda base: task(base, ConvertStep(source="in/web01.vmx", destination="a.ova", to="vmdk")), "a.ova"),
    "translate": (lambda base: task(base, TranslateStep(source="in/web01.vmx", destination="a.xml")), "a.xml"),
    "migrate": (lambda base: task(base, clone=False), "out/web01.qcow2"),
}


@pytest.mark.parametrize("which", STEPS)
def test_done_again_it_is_kept(tmp_path: Path, which: str) -> None:
    vmx(tmp_path / "in", "web01", (8 * MIB,))
    made, place = STEPS[which][0](tmp_path), tmp_path / STEPS[which][1]
    (part,), since = parts(made), now()
    first = do(made, part, Control(), since=since)
    stamp = place.stat()
    again = do(made, part, Control(), since=since)
    assert ("kept" in first, again["kept"]) == (False, True)
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    if place.suffix == ".qcow2":
        same(tmp_path / "in/0.raw", place, "qcow2")


def test_a_machine_whose_disks_lie_elsewhere_is_kept(tmp_path: Path) -> None:
    """In an archive; in a folder that the user named, where ESXi's path does not lead."""
    source = vmx(tmp_path / "in", "web01", (8 * MIB,))
    (tmp_path / "far").mkdir()
    (tmp_path / "far/web01.vmx").write_text(source.read_text().replace('"d0.vmdk"', '"/vmfs/volumes/ds1/web01/d0.vmdk"'))
    for made in (task(tmp_path, ConvertStep(source="in/web01.vmx", destination="a.ova", to="vmdk")),
                 task(tmp_path, ConvertStep(source="a.ova", destination="from-ova", to="qcow2")),
                 task(tmp_path, ConvertStep(source="far/web01.vmx", destination="from-far", to="qcow2"), disk_roots=("in",))):
        first, again = (do(made, "0-convert", Control(), since=now()) for _ in range(2))
        assert ("kept" in first, again["kept"]) == (False, True)


def test_a_plan_does_not_need_what_is_made_by_the_steps_before(tmp_path: Path) -> None:
    vmx(tmp_path / "in", "web01", (MIB,))
    made = task(tmp_path, ConvertStep(source="in/web01.vmx", destination="kvm", to="qcow2"),
                AdaptStep(images=("kvm/web01.xml",), platform=AdaptFor.KVM))
    (planned,) = plans([Group(name="all", tasks=(made,))], Control())
    assert (planned.exit_code, [step.verb for step in planned.plan.steps]) == (0, ["machine", "adapt"])
    (alone,) = plans([Group(name="all", tasks=(task(tmp_path, made.settings.steps[1]),))], Control())
    assert alone.exit_code == 2


def test_what_was_made_of_what_is_used_is_compared_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def told(*_disks: object, used: bool) -> VerifyResult:
        asked.append(used)
        return VerifyResult(identical=True, first_difference=None, bytes_compared=0, seconds=0.0)

    raw_disk(tmp_path / "a.raw", MIB)
    do(task(tmp_path, ConvertStep(source="a.raw", destination="a.qcow2", to="qcow2")), "0-convert", Control())
    monkeypatch.setattr(verify, "verify_disks", told)
    made = task(tmp_path, ConvertStep(source="a.raw", destination="a.qcow2", to="qcow2", only_used=True))
    assert do(made, "0-convert", Control())["kept"]
    assert asked == [True]


@pytest.mark.parametrize("which", STEPS)
def test_what_is_anothers_is_refused(tmp_path: Path, which: str) -> None:
    vmx(tmp_path / "in", "web01", (8 * MIB,))
    made = STEPS[which][0](tmp_path)
    (part,) = parts(made)
    do(made, part, Control(), since=now())
    other = vmx(tmp_path / "other", "web01", (8 * MIB,))
    raw_disk(tmp_path / "in/0.raw", 8 * MIB, seed=9)
    (tmp_path / "in/d0.vmdk").write_bytes(_vmdk(tmp_path))
    (tmp_path / "in/web01.vmx").write_text(other.read_text().replace('memSize = "512"', 'memSize = "640"'))
    with pytest.raises(RefusedError, match=r"exists|is not empty"):
        do(made, part, Control(), since=now())


def _vmdk(folder: Path) -> bytes:
    from fixtures.run import run

    run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", folder / "in/0.raw", folder / "new.vmdk"])
    return (folder / "new.vmdk").read_bytes()


def test_images_that_differ(tmp_path: Path) -> None:
    raw_disk(tmp_path / "a.raw", MIB)
    raw_disk(tmp_path / "b.raw", MIB, seed=7)
    alike, other = VerifyStep(left="a.raw", right="a.raw"), VerifyStep(left="a.raw", right="b.raw")
    made = task(tmp_path, alike, other, before=("/bin/true",), after=("/bin/true",))
    assert parts(made) == ["before", "0-verify", "1-verify", "after"]
    assert do(made, "0-verify", Control())["identical"]
    with pytest.raises(DifferError, match="the first byte is 0"):
        do(made, "1-verify", Control())


def test_a_verb_that_this_version_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(VERBS, "v2p", raising=False)
    with pytest.raises(UsageError, match="has no v2p"):
        do(task(tmp_path, V2pStep(disks=(("vda", "/dev/disk/by-id/x"),))), "0-v2p", Control())


def test_physical_machines(tmp_path: Path) -> None:
    """What a runbook says of them reaches the verbs; passwords are named, not known."""
    v2p = V2pStep(disks=(("vda", "/dev/disk/by-id/x"),), confirm=("SERIAL",), grow=True)
    made = Task(batch="b", wave="all", name="web01", settings=Settings(steps=(P2vStep(live=True), v2p), key_files=("k",)),
                source=Endpoint(uri="metal+ssh://root@old/", password=Secret(env="P")), target=Endpoint(uri="qemu:///system"),
                source_host="old", target_host="localhost", base=str(tmp_path))
    verb, request = request_of(made, P2vStep(live=True, freeze_seconds=Count(5)))
    assert (verb, request.name, request.new_name, request.source.host) == ("p2v", None, "web01", "old")
    assert (request.reading.live, request.reading.freeze_seconds, request.reading.whole) == (True, 5.0, False)
    assert request.guest.key_files == (str(tmp_path / "k"),)
    verb, request = request_of(made, v2p)
    assert (verb, request.name, request.source, request.target) == ("v2p", "web01", "metal+ssh://root@old/", "qemu:///system")
    assert [(one.source, one.device) for one in request.disks] == [("vda", "/dev/disk/by-id/x")]
    assert (request.confirmed, request.grow, request.credentials.password_env) == (("SERIAL",), True, "P")
    places = ways(made, Limits(per_target_host=Count(3), source_hosts=(("old", Count(1)),)))
    assert list(places.values()) == [[["sources-1", "old"], ["targets-3", "localhost"], ["work-here", ""]]] * 2


def test_a_guest_is_changed_as_the_command_line_would(tmp_path: Path) -> None:
    """All that a runbook says of it: nothing is left out silently."""
    vmx(tmp_path / "in", "web01", (MIB, MIB))
    made = task(tmp_path, key_files=("k",), virtio_win="win", packages="debs", rebuild_initramfs=True, ignore_lock=True)
    verb, request = request_of(made, AdaptStep(images=("in/web01.vmx",), platform=AdaptFor.KVM))
    assert (verb, request.platform) == ("adapt", "kvm")
    assert request.images == tuple(str(tmp_path / f"in/d{number}.vmdk") for number in range(2))
    assert request.nics == ("00:50:56:01:02:03",)
    assert (request.key_files, request.drivers, request.packages) == (
        (str(tmp_path / "k"),), str(tmp_path / "win"), str(tmp_path / "debs"))
    assert (request.rebuild_initramfs, request.reading.ignore_lock) == (True, True)
    verb, request = request_of(task(tmp_path), AdaptStep(images=("in/d0.vmdk",), platform=AdaptFor.ESXI))
    assert (request.images, request.nics, request.packages) == ((str(tmp_path / "in/d0.vmdk"),), (), None)
    assert (request.rebuild_initramfs, request.reading.ignore_lock) == (False, False)


def test_an_endpoint_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="web01: to is missing"):
        request_of(replace(task(tmp_path), target=None), MigrateStep())


def test_what_could_not_be_read_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"machine": "web01", "disks": [{"bytes_lost": 0}, {"bytes_lost": 4096}]}
    monkeypatch.setattr(work, "_function", lambda *_given: lambda *_request: said)
    with pytest.raises(ImgtoolError, match="web01: 4096 bytes could not be read, and are zeros in web01"):
        do(task(tmp_path), "0-migrate", Control())


@pytest.mark.parametrize(("step", "verb"), [
    (ConvertStep(source="in/d0.vmdk", destination="a.qcow2", to="qcow2"), "convert"),
    (TranslateStep(source="in/web01.vmx", destination="a.xml"), "translate")])
def test_a_plan_of_the_first_step_has_looked_at_it(tmp_path: Path, step: Step, verb: str) -> None:
    """Also what is wrong with it."""
    vmx(tmp_path / "in", "web01", (MIB,))
    (planned,) = plans([Group(name="all", tasks=(task(tmp_path, step),))], Control())
    assert (planned.exit_code, [one.verb for one in planned.plan.steps]) == (0, [verb])
    assert not (tmp_path / "a.qcow2").exists()
    (tmp_path / "in/web01.vmx").unlink()
    (tmp_path / "in/d0.vmdk").unlink()
    (planned,) = plans([Group(name="all", tasks=(task(tmp_path, step),))], Control())
    assert planned.exit_code == 2
    assert planned.plan.problems[0].fatal


def test_ids_are_of_the_work(tmp_path: Path) -> None:
    adapt = AdaptStep(images=("a.qcow2",), platform=AdaptFor.KVM)
    made = task(tmp_path, adapt)
    assert work_id(made, "0-adapt") == work_id(task(tmp_path, adapt, attempts=9, before=("/bin/true",)), "0-adapt")
    others = [task(tmp_path, adapt, name="web02"), task(tmp_path, adapt, virtio_win="/srv/virtio"),
              task(tmp_path, AdaptStep(images=("a.qcow2",), platform=AdaptFor.ESXI))]
    assert len({work_id(one, "0-adapt") for one in [made, *others]}) == 4


@pytest.mark.parametrize("name", ["web01", "a/b:2", "Größe ~2", "50%", "x+"])
def test_ids_of_machines(name: str) -> None:
    assert parsed_id(machine_id("b", name)) == ("b", name, 1)
    assert parsed_id(f"{machine_id('b', name, 3)}/0-migrate+") == ("b", name, 3)


def test_only_what_may_end_otherwise_is_tried_again() -> None:
    every = (ImgtoolError, UsageError, DifferError, RefusedError, DamagedError, MissingToolError, NoSpaceError, UnreachableError,
             NotAdmittedError)
    assert [one for one in every if may_help(one("x"))] == [UnreachableError]


def test_what_was_cancelled_goes_on_where_it_is_tried_again(state: Path) -> None:
    """It is the same attempt; another machine stays as it is."""
    database(None).create()
    store = Store(database(None))
    try:
        for name in ("web01", "web02"):
            store._enqueue("machine", "nobody's", machine_id("b", name))
            store.cancel([machine_id("b", name)])
        assert store.retry("b", ["web01"]) == ["b/web01"]
        assert store.states(["b/web01", "b/web02"]) == {"b/web01": "ENQUEUED", "b/web02": "CANCELLED"}
        assert store.states([]) == {}
    finally:
        store.close()


def test_what_is_submitted_again_with_other_settings_is_named(tmp_path: Path, state: Path) -> None:
    """And stays as it was: it may have begun."""
    database(None).create()
    store = Store(database(None))
    try:
        first, other = task(tmp_path), task(tmp_path, storage="gold")
        said = frozen(first)
        store._enqueue("machine", "nobody's", machine_id("b", "web01"), said)
        assert store.submit("b", [Group(name="all", tasks=(first,))], Limits(), "") == []
        assert store.submit("b", [Group(name="all", tasks=(other,))], Limits(), "") == ["web01"]
        assert store.machines("b", given=True)["web01"].input["args"][0] == said
        assert len(store.batches("b")) == 1
    finally:
        store.close()
