"""What the commands make of their options and of results, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from imgtool.cli import guests, images, jobs, metal, migrate, output, run
from imgtool.errors import ImgtoolError, LockedError, MissingToolError, RefusedError, StoppedError, UsageError
from imgtool.model import Allocation
from imgtool.model.job import Job, Overview
from imgtool.model.metal import Pass, PhysicalDisk
from imgtool.model.migration import Migrated, MovedDisk
from imgtool.model.runbook import Outcome, Summary
from imgtool.model.v2p import Planned, V2pPlan
from imgtool.progress import Control, Stop
from imgtool.steps import doctor
from imgtool.steps import migrate as steps


def test_numbers_and_words_that_are_none() -> None:
    with pytest.raises(UsageError, match="--progress loud: one of"):
        images.control_of("loud")
    for text in ("fast", "0", "-1M", "1P", "1.5M", "1" * 16):
        with pytest.raises(UsageError, match="is not a number of bytes"):
            images.control_of("none", text)
    assert [images._bytes(text) for text in ("7", "100M", "2 GiB".replace(" ", ""), "1kB")] == [7, 100 << 20, 2 << 30, 1 << 10]


def test_one_allocation_only() -> None:
    for said in ((True, True, False), (False, True, True), (True, False, True)):
        with pytest.raises(UsageError, match="exclude each other"):
            images.allocation_of(**dict(zip(("thin", "thick", "eager"), said, strict=True)))
    assert images.allocation_of(thin=False, thick=False, eager=True) is Allocation.EAGER


@pytest.mark.parametrize(("found", "code"), [(True, None), (False, MissingToolError.exit_code)])
def test_doctor_ends_with_6_where_a_tool_is_missing(monkeypatch: pytest.MonkeyPatch, found: bool, code: int | None) -> None:
    needed = doctor.Tool(name="qemu-img", found=found, version=None, purpose="p", needed=True, install="apt-get install x")
    other = replace(needed, name="ssh", found=False, needed=False)
    monkeypatch.setattr(doctor, "examine", lambda _stop: doctor.Doctor(tools=(needed, other), kvm=True, kvm_why="w"))
    with pytest.raises(typer.Exit) if code else nullcontext() as ended:
        images.doctor()
    assert code is None or ended.value.exit_code == code  # type: ignore[union-attr]


def test_who_sits_at_no_terminal_is_not_asked_for_a_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_keys: object) -> None:
        raise LockedError("disk 0 is locked")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    monkeypatch.setattr(guests.getpass, "getpass", lambda *_words, **_named: pytest.fail("it asked"))
    with pytest.raises(LockedError, match="disk 0 is locked"):
        guests.with_keys(locked)


def test_a_passphrase_that_was_typed_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def locked(keys: Sequence[str]) -> None:
        tried.append(tuple(keys))
        raise LockedError("disk 0 is locked")

    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(guests, "ends_at_once", nullcontext)
    monkeypatch.setattr(guests.getpass, "getpass", lambda *_words, **_named: "secret")
    with pytest.raises(LockedError):
        guests.with_keys(locked)
    assert tried == [(), ("secret",)]


@pytest.mark.parametrize(("text", "source", "device"), [
    ("vda=/dev/sdb", "vda", "/dev/sdb"), ("/dev/sdb", "", "/dev/sdb"), ("/dev/disk/by-id/a=b", "", "/dev/disk/by-id/a=b")])
def test_which_disk_goes_where(text: str, source: str, device: str) -> None:
    """A device's own name may have a = in it."""
    assert (metal.choice(text).source, metal.choice(text).device) == (source, device)


@pytest.mark.parametrize("text", ["vda=sdb", "sdb", "", "vda=", "a/b=/dev/sdb"])
def test_what_is_no_device(text: str) -> None:
    with pytest.raises(UsageError, match="SOURCE=DEVICE is wanted"):
        metal.choice(text)


def test_only_what_was_not_confirmed_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    disk = PhysicalDisk(name="sdb", size=4096, model="M", serial="S2")
    asked = Planned(source="vdb", image="b.raw", image_size=4096, device="/dev/sdb", disk=disk, confirm="S2")
    plan = V2pPlan(machine="m", host="here", disks=(replace(asked, source="vda", confirm="S1", confirmed=True), asked))
    monkeypatch.setattr(typer, "prompt", lambda *_words, **_named: " S2 ")
    assert metal._asked(plan) == ["S2"]
    assert "S1" not in capsys.readouterr().err
    monkeypatch.setattr(typer, "prompt", lambda *_words, **_named: "S1")
    with pytest.raises(RefusedError, match="that is not S2"):
        metal._asked(plan)


def moved(**said: object) -> Migrated:
    disk = MovedDisk(source="a", destination="/out/a.qcow2", virtual_size=1 << 20, engine="ranges", **said)  # type: ignore[arg-type]
    return Migrated(machine="web01", id="7", source="s", target="t", disks=(disk,))


@pytest.mark.parametrize("lost", [0, 4096])
def test_what_could_not_be_read_is_no_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                              lost: int) -> None:
    """The machine is there and is said; but a script must not take it for whole."""
    monkeypatch.setattr(steps, "migrate", lambda *_given, **_named: moved(bytes_lost=lost))
    how = {"discard_partial": False, "dry_run": False, "as_json": False, "report": None}
    if lost:
        with pytest.raises(ImgtoolError, match="4096 bytes could not be read, and are zeros in web01") as caught:
            migrate._carry_out(None, Control(), **how)  # type: ignore[arg-type]
        assert caught.value.exit_code == 1
    else:
        migrate._carry_out(None, Control(), **how)  # type: ignore[arg-type]
    assert capsys.readouterr().out.startswith("web01: at t as 7, 1 disk")


def test_a_folder_for_maps_is_there_before(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        migrate._folder(tmp_path / "none")
    assert migrate._folder(tmp_path) == str(tmp_path)


def test_what_is_told_of_passes_and_of_a_start() -> None:
    once = Pass(name="first", bytes_read=1 << 20, seconds=2.0)
    said = list(migrate.lines(replace(moved(passes=(once,)), started="an address", verified=False)))
    assert said[2:] == ["    passes: first 1.0 MiB in 2.0 s", "started: an address", "not verified"]


def test_a_disk_that_fails_is_said() -> None:
    health = SimpleNamespace(passed=False, bad_sectors={"reallocated": 16, "pending": 0})
    disk = SimpleNamespace(model="M", serial="S", path="/dev/sdb", sector=512, physical_sector=512, removable=False,
                           read_only=False, table=None, ids=(), partitions=(), signatures=(), used=(), health=health)
    *_, last = output.disk_lines(disk)  # type: ignore[arg-type]
    assert last == "health:     FAILING, 16 sectors reallocated"


SUMMARY = Summary(batch="b", machines=(Outcome(name="m", wave="w", state="done"),), done=1, failed=0, seconds=1.0)


def test_a_report_or_a_notice_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    """The machines have moved."""
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    assert run._report(tmp_path / "none" / "page.html", "b", None) is None
    assert "warning: no report was written: " in capsys.readouterr().err
    run._notify(["/bin/false"], SUMMARY)
    assert capsys.readouterr().err == "warning: /bin/false ended with 1\n"
    run._notify([str(tmp_path / "none")], SUMMARY)
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path}/none: ")
    run._notify([], SUMMARY)
    assert capsys.readouterr().err == ""


def test_watching_goes_on_until_nothing_is_under_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def overview(state: str) -> Overview:
        job = Job(id="migrate-1", verb="migrate", machine="web01", state=state, source=None, target=None, started=None,
                  ended=None)
        return Overview(time="2026-11-21T22:00:00+00:00", paused=False, jobs=(job,))

    monkeypatch.setattr(jobs, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(jobs, "STOP", stop := Stop())
    states = iter(("running", "waiting", "done", "never"))
    jobs._watch(lambda: overview(next(states)))
    assert next(states) == "never"
    assert [word for word in capsys.readouterr().out.split() if word in ("running", "waiting", "done")][-1] == "done"
    stop.set()
    with pytest.raises(StoppedError):
        jobs._watch(lambda: overview("running"))
