"""A change becomes part of the images whole, or not at all: killed at any point, the next run finds the old or finishes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imgtool import qemu
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError
from imgtool.files import host_id
from imgtool.guests import overlay
from imgtool.model import SourceOptions
from imgtool.progress import Stop
from tests import oracle
from tests.program import ENVIRONMENT, imgtool

SIZE = 8 << 20
RAW = SourceOptions()
CHANGE = """
import os, sys
from contextlib import suppress
from imgtool import qemu
from imgtool.guests import overlay
from imgtool.model import SourceOptions
from imgtool.progress import Stop
import subprocess

point, *paths = sys.argv[1:]

def die(*args, **options):
    os.kill(os.getpid(), 9)

commits = 0
real_commit = qemu.commit

def second(graph, *, stop):
    global commits
    commits += 1
    if commits == 2:
        die()
    real_commit(graph, stop=stop)

with overlay.opened(paths, SourceOptions(), writing=True, stop=Stop()) as disks, overlay.redo_folder(paths) as folder:
    with overlay.overlays(disks, folder, stop=Stop()) as made:
        for path in made:
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 64k", path], check=True, stdout=subprocess.DEVNULL)
    if point == "before":
        die()
    if point == "rename":
        os.rename = die
    if point == "written":
        overlay._write = die
    if point == "second":
        qemu.commit = second
    if point == "removed":
        overlay.shutil.rmtree = die
    overlay.commit(folder, disks, SourceOptions(), stop=Stop())
"""


def images(place: Path) -> list[Path]:
    """A raw, a qcow2 and a VMDK, full of ones."""
    raw, qcow2, vmdk = place / "a.raw", place / "b.qcow2", place / "c.vmdk"
    raw.write_bytes(b"\1" * SIZE)
    oracle.tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    oracle.tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", raw, vmdk)
    return [raw, qcow2, vmdk]


def change(point: str, paths: list[Path]) -> int:
    argv = [sys.executable, "-c", CHANGE, point, *map(str, paths)]
    return subprocess.run(argv, env=ENVIRONMENT, check=False, timeout=120).returncode


def content(path: Path) -> bytes:
    """What a guest would read."""
    form = {".raw": "raw", ".qcow2": "qcow2", ".vmdk": "vmdk"}[path.suffix]
    raw = path.with_suffix(".read")
    oracle.tool("qemu-img", "convert", "-f", form, "-O", "raw", path, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


def sums(place: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir() if path.is_file()}


NEW = b"\1" * (1 << 20) + b"\2" * (64 << 10) + b"\1" * (SIZE - (1 << 20) - (64 << 10))


def test_all_images_are_changed(tmp_path: Path) -> None:
    paths = images(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert change("nowhere", paths) == 0
    assert [content(path) == NEW for path in paths] == [True] * 3
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("point", ["before", "rename"])
def test_killed_before_the_rename(tmp_path: Path, point: str) -> None:
    paths = images(tmp_path)
    before = sums(tmp_path)
    assert change(point, paths) == -9
    assert sums(tmp_path) == before
    assert not overlay.finish(str(paths[0]), stop=Stop())
    assert change("nowhere", paths) == 0
    assert [content(path) == NEW for path in paths] == [True] * 3
    assert sums(tmp_path).keys() == before.keys()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("point", ["written", "second", "removed"])
def test_killed_after_the_rename(tmp_path: Path, point: str) -> None:
    """The next run finishes; until then nobody takes the image for whole."""
    paths = images(tmp_path)
    assert change(point, paths) == -9
    assert (tmp_path / "a.raw.imgtool-adapt" / "redo.json").exists()
    refused = imgtool("inspect", paths[0])
    assert refused.returncode == 4, refused.stderr
    assert "half written" in refused.stderr
    assert overlay.finish(str(paths[0]), stop=Stop())
    assert [content(path) == NEW for path in paths] == [True] * 3
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert not overlay.finish(str(paths[0]), stop=Stop())


def test_a_folder_of_another_host_is_not_believed(tmp_path: Path) -> None:
    (path,) = images(tmp_path)[:1]
    folder = tmp_path / "a.raw.imgtool-adapt"
    folder.mkdir()
    (folder / "redo.json").write_text(json.dumps({"host": "another", "format": None, "external": False, "images": [str(path)]}))
    with pytest.raises(RefusedError, match="not made by imgtool on this host"):
        overlay.finish(str(path), stop=Stop())
    assert folder.exists()


@pytest.mark.parametrize("record", ["", "[]", "{}", "no json", "[" * 100_000, '{"host": "%s"}', None, "missing", "link"])
def test_a_strangers_folder_is_not_believed(tmp_path: Path, record: str | None) -> None:
    """As an archive brings it, beside an image: said to be another's, not read for ever, and no file elsewhere is written."""
    (path,) = images(tmp_path)[:1]
    folder = tmp_path / "a.raw.imgtool-adapt"
    folder.mkdir()
    if record is None:
        os.mkfifo(folder / "redo.json")
    elif record == "link":
        (tmp_path / "real.json").write_text(json.dumps(
            {"host": host_id(), "format": None, "external": False, "images": [str(path)]}))
        (folder / "redo.json").symlink_to("../real.json")
    elif record != "missing":
        (folder / "redo.json").write_text(record.replace("%s", host_id()))
    with pytest.raises(RefusedError, match="not made by imgtool on this host"):
        overlay.finish(str(path), stop=Stop())
    assert folder.exists()


def changed(raw: Path) -> Callable[[], None]:
    """A change of the image, up to where it becomes part of it."""
    def run() -> None:
        with overlay.opened([str(raw)], RAW, writing=True, stop=Stop()) as disks, overlay.redo_folder([str(raw)]) as folder:
            with overlay.overlays(disks, folder, stop=Stop()) as (made,):
                oracle.tool("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 64k", made)
            overlay.commit(folder, disks, RAW, stop=Stop())
    return run


def test_what_fails_in_the_middle_says_so_and_the_next_run_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = images(tmp_path)[0]
    with monkeypatch.context() as patch:
        patch.setattr(qemu.proc, "run", failing("commit", "qemu-img: Disk quota exceeded"))
        with pytest.raises(NoSpaceError) as caught:
            changed(raw)()
    assert caught.value.message == (f"{raw} is half changed: no space left: Disk quota exceeded; "
                                    f"the rest is in {overlay.redo_path(str(raw))}")
    assert "the same command again finishes it" in str(caught.value.hint)
    assert overlay.finish(str(raw), stop=Stop())
    assert content(raw) == NEW
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def failing(command: str, words: str) -> Callable[..., object]:
    """``proc.run`` where one command of qemu-img fails."""
    real = qemu.proc.run

    def run(argv: list[str], **options: Any) -> object:
        return SimpleNamespace(returncode=1, stderr=words, stdout="") if command in argv else real(argv, **options)

    return run


@pytest.mark.parametrize(("words", "kind", "code"), [
    ("No space left on device", NoSpaceError, 7), ("Input/output error", ImgtoolError, 1)])
def test_why_qemu_img_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, kind: type[ImgtoolError],
                            code: int) -> None:
    raw = images(tmp_path)[0]
    before = raw.read_bytes()
    monkeypatch.setattr(qemu.proc, "run", failing("create", f"qemu-img: {words}"))
    with pytest.raises(ImgtoolError, match=f"^qemu-img create: {words}$"):
        changed(raw)()
    monkeypatch.setattr(qemu.proc, "run", failing("commit", f"qemu-img: {words}"))
    with pytest.raises(kind, match=words) as caught:
        qemu.commit({}, stop=Stop())
    assert caught.value.exit_code == code
    monkeypatch.setattr(qemu.proc, "run", failing("check", f"qemu-img: {words}"))
    assert qemu.check({}, stop=Stop()) == ({"check-errors": 1}, words)
    locked = qemu._failure('qemu-img: Failed to get shared "write" lock', str(tmp_path / "x"))
    assert (locked.exit_code, locked.hint) == (4, "shut down the machine that uses it")
    assert raw.read_bytes() == before


def test_of_two_changes_that_are_ready_one_is_refused(tmp_path: Path) -> None:
    raw = images(tmp_path)[0]
    before = raw.read_bytes()
    other = Path(overlay.redo_path(str(raw)))
    other.mkdir()
    (other / "0.qcow2").touch()
    with overlay.opened([str(raw)], SourceOptions(ignore_lock=True), writing=True, stop=Stop()) as disks, \
            overlay.redo_folder([str(raw)]) as folder:
        with overlay.overlays(disks, folder, stop=Stop()):
            pass
        with pytest.raises(RefusedError, match="another imgtool adapt"):
            overlay.commit(folder, disks, RAW, stop=Stop())
    assert raw.read_bytes() == before
    assert [path.name for path in other.iterdir()] == ["0.qcow2"]


def test_an_image_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = images(tmp_path)[0]
    monkeypatch.setattr(overlay.os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(RefusedError, match=r"a\.raw may not be written"), \
            overlay.opened([str(raw)], RAW, writing=True, stop=Stop()):
        pass


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    raw = images(tmp_path)[0]
    stream = tmp_path / "s.vmdk"
    oracle.tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, stream)
    with pytest.raises(RefusedError, match="cannot be changed in place"), \
            overlay.opened([str(stream)], RAW, writing=True, stop=Stop()):
        pass


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    raw = str(images(tmp_path)[0])
    with overlay.opened([raw], RAW, writing=True, stop=Stop()):
        done = imgtool("adapt", raw, "--for", "kvm")
        assert done.returncode == 4, done.stderr
        assert imgtool("inspect", raw).returncode == 4
    with overlay.opened([raw], RAW, writing=True, stop=Stop()):
        pass


def test_a_running_machine_is_refused(tmp_path: Path) -> None:
    qcow2 = images(tmp_path)[1]
    argv = ["qemu-io", "-f", "qcow2", str(qcow2)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(b"read 0 512\n")
        running.stdin.flush()
        running.stdout.readline()
        assert imgtool("adapt", qcow2, "--for", "kvm").returncode == 4
        assert imgtool("inspect", qcow2).returncode == 4
        running.stdin.close()


def test_no_space_leaves_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = images(tmp_path)[0]
    before = raw.read_bytes()
    monkeypatch.setattr(overlay, "free_space", lambda _: 1 << 20)
    with overlay.opened([str(raw)], RAW, writing=True, stop=Stop()) as disks, overlay.redo_folder([str(raw)]) as folder:
        with overlay.overlays(disks, folder, stop=Stop()):
            pass
        with pytest.raises(NoSpaceError):
            overlay.commit(folder, disks, RAW, stop=Stop())
    assert raw.read_bytes() == before
