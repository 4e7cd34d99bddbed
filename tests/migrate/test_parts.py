"""migrate's parts, one by one: what fails is taken back, what was done is not done again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool.copying import receive
from imgtool.errors import DifferError, ImgtoolError, RefusedError, StoppedError, UnreachableError, UsageError
from imgtool.journal import PARTIAL, Journal, journal
from imgtool.model import ImageSpec
from imgtool.model.endpoint import Found, Power
from imgtool.model.guest import AdaptResult, OsInfo
from imgtool.model.migration import GuestOptions
from imgtool.progress import Control, Stop
from imgtool.steps.migrate import far, host, look, plan
from imgtool.steps.migrate.describe import Identity
from imgtool.steps.migrate.work import Work
from tests.libvirt_endpoint.domains import disk, domain
from tests.loops import mounted
from tests.migrate.machines import MIB, raw_disk, same
from tests.program import result

DONE = AdaptResult(os=OsInfo(), warnings=("once",))


def copy(path: Path, data: bytes = b"copy") -> str:
    """A settled one, without its name yet."""
    Path(f"{path}{PARTIAL}").write_bytes(data)
    receive.settle_foreign(str(path), size=512, spec=ImageSpec(format="raw"), source={"id": 1})
    return str(path)


def test_disks_lose_their_names_again_where_the_machine_cannot_be_made(tmp_path: Path) -> None:
    paths = [copy(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(UnreachableError), host._published(paths):  # noqa: PT012
        assert all(os.path.exists(path) for path in paths)
        raise UnreachableError("libvirtd is gone")
    assert not any(os.path.exists(path) for path in paths)
    with host._published(paths):
        pass
    assert [Path(path).read_bytes() for path in paths] == [b"copy"] * 2


def test_what_has_come_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    paths = [copy(tmp_path / name) for name in ("a", "b")]
    (tmp_path / "b").write_bytes(b"another's")
    with pytest.raises(RefusedError, match=f"{tmp_path}/b exists"):
        host.refuse_taken(paths)
    with pytest.raises(RefusedError), host._published(paths):
        pytest.fail("it went on")
    assert (tmp_path / "b").read_bytes() == b"another's"
    assert not (tmp_path / "a").exists()
    assert Path(f"{paths[0]}{PARTIAL}").read_bytes() == b"copy"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "state"))
    with journal("migrate-1", "migrate") as opened:
        yield opened


class Asked:
    """Stands in for a change of the guest, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_given: object, **_named: object) -> AdaptResult:
        self.count += 1
        return DONE


def moving() -> Any:
    guest = GuestOptions(adapt=True, key_files=(), drivers=None, packages=None, rebuild_initramfs=False)
    request = SimpleNamespace(guest=guest)
    return SimpleNamespace(adapts=True, request=request)


def test_a_guest_is_not_changed_twice(tmp_path: Path, book: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """But again where it is another copy, or its network cards get other addresses."""
    monkeypatch.setattr(host, "adapt", adapt := Asked())
    monkeypatch.setattr(host, "adapt_request", lambda *_given: SimpleNamespace())
    monkeypatch.setattr(host, "replace", lambda one, **_how: one)
    monkeypatch.setattr(host, "spec_of", lambda _move: ImageSpec(format="raw"))
    (tmp_path / "work").mkdir()
    paths, work, first = [copy(tmp_path / "a")], Work(tmp_path / "work"), Identity(uuid="u", macs=("00:00:00:00:00:01",))

    def changed(identity: Identity) -> int:
        assert host._adapt(moving(), paths, identity, work, book, Control(), ()) == DONE
        return adapt.count

    assert [changed(first), changed(first)] == [1, 1]
    receive.publish(paths[0])
    assert changed(first) == 1, "under its own name it is the same file"
    assert changed(Identity(uuid="u", macs=("00:00:00:00:00:02",))) == 2
    Path(paths[0]).rename(tmp_path / "old")
    Path(paths[0]).write_bytes(b"copy")
    assert changed(Identity(uuid="u", macs=("00:00:00:00:00:02",))) == 3


def test_overlays_of_a_run_that_was_stopped(tmp_path: Path, book: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half made, they go; whole, they stay, for their bytes have been sent."""
    (tmp_path / "work").mkdir()
    work, identity = Work(tmp_path / "work"), Identity(uuid="u")
    overlay = tmp_path / "work" / "0.qcow2"
    overlay.write_bytes(b"half")

    def adapt(*_given: object, **_named: object) -> AdaptResult:
        assert not overlay.exists()
        overlay.write_bytes(b"whole")
        return DONE

    monkeypatch.setattr(far, "adapt_overlays", adapt)
    monkeypatch.setattr(far, "adapt_request", lambda *_given: None)
    for _ in range(2):
        assert far._adapt(moving(), [None], ["state"], identity, work, book, Control(), ()) == DONE  # type: ignore[list-item]
        assert overlay.read_bytes() == b"whole"


class Target:
    """A far one, that says what is asked of it."""

    def __init__(self, error: ImgtoolError) -> None:
        self.error, self.asked = error, list[object]()

    def compare(self, *_given: object) -> None:
        raise self.error

    def remove(self, machine: str) -> None:
        self.asked.append(machine)

    def discard(self, new: list[object], folder: str) -> None:
        self.asked += [new, folder]


@pytest.mark.parametrize(("error", "removed"), [(DifferError("other bytes"), True), (UnreachableError("gone"), False)])
def test_only_what_differs_is_removed_at_the_target(tmp_path: Path, error: ImgtoolError, removed: bool) -> None:
    """What could not be compared may be whole."""
    target = Target(error)
    with pytest.raises(type(error)):
        far._compare(target, "vm-1", [("new", "disk")], Work(tmp_path), Control())  # type: ignore[arg-type, list-item]
    assert target.asked == (["vm-1", ["new"], str(tmp_path)] if removed else [])


@pytest.mark.parametrize(("names", "words", "hint"), [
    ((), "there is no machine at the source", "there are: none"), (("a", "b"), "which machine.", "there are: a, b")])
def test_which_machine(names: tuple[str, ...], words: str, hint: str) -> None:
    def source(*names: str) -> Any:
        return SimpleNamespace(machines=lambda: [Found(name=name, id=name, power=Power.OFF) for name in names])

    with pytest.raises(UsageError, match=words) as caught:
        look._chosen(source(*names), None)
    assert caught.value.hint == hint
    assert look._chosen(source("only"), None).name == "only"


def reading(*, error: Exception | None = None, resumes: bool = True, size: int = MIB) -> Any:
    @contextmanager
    def reader(*_given: object) -> Iterator[Any]:
        if error:
            raise error
        yield SimpleNamespace(size=size, resumes=resumes, read=lambda *_given: None)

    return SimpleNamespace(source=SimpleNamespace(reader=reader), seen=None)


def test_a_plan_goes_without_a_measurement() -> None:
    """Only a stop ends it."""
    assert plan._rate(reading(), Control()) > 0  # type: ignore[operator]
    for other in (reading(error=RefusedError("in use")), reading(resumes=False), reading(size=0)):
        assert plan._rate(other, Control()) is None
    stop = Stop()
    stop.set()
    with pytest.raises(StoppedError):
        plan._rate(reading(error=StoppedError(15)), Control(stop=stop))


def test_blocks_are_shared_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that copied has left goes: its map is of other bytes than a clone's."""
    with mounted(tmp_path, "xfs", 400 * MIB) as point:
        raw = raw_disk(point / "a.raw", 16 * MIB)
        (point / "m.xml").write_text(domain("m", disk(raw, form="raw")))
        (point / "out").mkdir()
        for name in (PARTIAL, f"{PARTIAL}.map"):
            (point / "out" / f"m.raw{name}").write_bytes(b"old")
        said = result("migrate", "--from", point / "m.xml", "--to", point / "out", "--format", "raw", "--no-adapt")
        (moved,) = said["disks"]
        assert (moved["bytes_cloned"] > MIB, said["verified"]) == (True, True)
        same(raw, point / "out/m.raw", "raw")
        assert sorted(os.listdir(point / "out")) == ["m.raw", "m.xml"]
