"""A change becomes part of the images whole, or not at all: killed at any point, the next run finds the old or finishes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from imgtool.errors import NoSpaceError, RefusedError
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
