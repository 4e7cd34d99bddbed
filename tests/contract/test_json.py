"""What each command prints with --json: one document, the keys that the contract promises, everything else on stderr."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import patterns
from tests import oracle
from tests.images import LARGE, READABLE, RELATED, SMALL
from tests.program import imgtool

INFO = {"path", "format", "subformat", "virtual_size", "allocated_size", "allocation", "cluster_size", "backing", "extents",
        "snapshots", "encrypted", "compressed", "warnings"}
CONVERT = {"source", "destination", "format", "subformat", "allocation", "virtual_size", "engine", "bytes_read", "bytes_written",
           "bytes_cloned", "seconds", "verified"}
VERIFY = {"identical", "first_difference", "bytes_compared", "seconds"}
SIZE = patterns.size(SMALL)
EACH_KIND = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] if kind in RELATED else []) for kind in READABLE])


def document(*words: object, code: int = 0) -> tuple[Any, str]:
    """The one JSON document on stdout, and stderr."""
    done = imgtool(*words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str], Path]:
    def make(kind: str) -> Path:
        directory = tmp_path / kind
        directory.mkdir()
        return READABLE[kind](directory, SMALL).path

    return make


@EACH_KIND
def test_info(image: Callable[[str], Path], kind: str) -> None:
    path = image(kind)
    told, _ = document("info", path)
    assert told.keys() >= INFO
    assert told["path"] == str(path)
    assert told["virtual_size"] == SIZE
    assert told["allocation"] in ("thin", "thick", "eager")
    assert told["extents"]
    for extent in told["extents"]:
        assert extent.keys() >= {"path", "size"}
        assert Path(extent["path"]).stat().st_size == extent["size"]
    own = [Path(extent["path"]) for extent in told["extents"]]
    assert told["allocated_size"] == sum(one.stat().st_blocks * 512 for one in own)
    chained = "chain" in kind
    assert isinstance(told["backing"], str) == chained
    assert told["compressed"] == any(word in kind for word in ("zlib", "zstd", "vmdk-streamOptimized", "qemu-streamOptimized"))
    assert (len(told["snapshots"]) == 2) == (kind == "qcow2-snapshots")
    assert told["encrypted"] is False
    assert isinstance(told["warnings"], list)


def test_info_of_several(image: Callable[[str], Path]) -> None:
    paths = [image("raw"), image("vmdk-vmfs")]
    told, _ = document("info", *paths)
    assert told.keys() == {"images"}
    assert [one["path"] for one in told["images"]] == [str(path) for path in paths]
    assert all(one.keys() >= INFO for one in told["images"])


def test_info_of_several_of_which_one_cannot_be_read(image: Callable[[str], Path]) -> None:
    """It is said, the others are shown, and the exit code is its own."""
    paths = [image("raw"), Path("/nowhere.raw"), image("vmdk-vmfs")]
    done = imgtool("info", *paths, "--json")
    assert (done.returncode, done.stderr) == (2, "error: /nowhere.raw does not exist\n")
    assert [one["path"] for one in json.loads(done.stdout)["images"]] == [str(paths[0]), str(paths[2])]
    assert f" {paths[0]}\n" in imgtool("info", *paths[:2]).stdout


def test_snapshots(image: Callable[[str], Path]) -> None:
    told, _ = document("info", image("qcow2-snapshots"))
    assert [one["name"] for one in told["snapshots"]] == ["one", "two"]
    assert all(one["date"].endswith(("Z", "+00:00")) for one in told["snapshots"])


@pytest.mark.parametrize(("kind", "pattern"), [*((kind, SMALL) for kind in READABLE if kind not in RELATED),
                                               *((kind, LARGE) for kind in list(READABLE)[::6])])
def test_map(tmp_path: Path, kind: str, pattern: str) -> None:
    source = READABLE[kind](tmp_path, pattern)
    told, _ = document("map", source.path)
    assert told.keys() == {"virtual_size", "extents"}
    assert told["virtual_size"] == source.size
    position = 0
    for extent in told["extents"]:
        assert extent.keys() == {"start", "length", "zero", "allocated"}
        assert extent["start"] == position
        assert extent["length"] > 0
        position += extent["length"]
    assert position == source.size
    for one, other in itertools.pairwise(told["extents"]):
        assert (one["zero"], one["allocated"]) != (other["zero"], other["allocated"])
    assert_zeros_are_zeros(source.pieces, told["extents"])


def assert_zeros_are_zeros(pieces: tuple[patterns.Piece, ...], extents: list[dict[str, Any]]) -> None:
    """Where the map says zero, no data is."""
    zeros = [(extent["start"], extent["start"] + extent["length"]) for extent in extents if extent["zero"]]
    for piece in pieces:
        if piece.is_data:
            assert not [zero for zero in zeros if zero[0] < piece.end and piece.start < zero[1]], piece


@EACH_KIND
def test_check(image: Callable[[str], Path], kind: str) -> None:
    told, _ = document("check", image(kind))
    assert told["sound"] is True
    assert told["errors"] == []
    assert told.keys() >= {"path", "format", "warnings"}


def test_check_of_an_unsound_image(image: Callable[[str], Path]) -> None:
    path = image("vmdk-vmfs")
    path.with_name("x-flat.vmdk").unlink()
    told, _ = document("check", path, code=5)
    assert told["sound"] is False
    assert told["errors"]


@pytest.mark.parametrize("words", [["--to", "qcow2"], ["--to", "vmdk", "--subformat", "vmfs"], ["--to", "vhdx", "--thick"]])
def test_convert_and_verify(image: Callable[[str], Path], words: list[str]) -> None:
    source = image("raw")
    told, said = document("convert", source, *words)
    assert told.keys() >= CONVERT
    assert (told["source"], told["format"], told["virtual_size"]) == (str(source), words[1], SIZE)
    assert told["verified"] is True
    assert all(isinstance(told[key], int) for key in ("bytes_read", "bytes_written", "bytes_cloned"))
    assert isinstance(told["seconds"], float)
    assert said == ""
    compared, _ = document("verify", source, told["destination"])
    assert compared.keys() >= VERIFY
    assert compared["identical"] is True
    assert compared["first_difference"] is None
    assert compared["bytes_compared"] > 0


def test_no_verify_is_said(image: Callable[[str], Path]) -> None:
    told, said = document("convert", image("raw"), "--to", "qcow2", "--no-verify")
    assert told["verified"] is False
    assert "--no-verify" in said


def test_verify_tells_where(image: Callable[[str], Path]) -> None:
    source, other = image("raw"), image("raw-thick")
    where = 1319424 + 70001
    with other.open("r+b") as file:
        file.seek(where)
        file.write(b"\1")
    told, _ = document("verify", source, other, code=3)
    assert told["identical"] is False
    assert told["first_difference"] == where


def test_allocate(image: Callable[[str], Path]) -> None:
    path = image("qcow2-1.1")
    told, _ = document("allocate", path, "--thick")
    assert (told["path"], told["before"], told["allocation"]) == (str(path), "thin", "thick")
    assert told["allocated_size"] == path.stat().st_blocks * 512 > told["allocated_size_before"]


def test_doctor() -> None:
    done = imgtool("doctor", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == (6 if any(tool["needed"] and not tool["found"] for tool in told["tools"]) else 0)
    assert isinstance(told["kvm"], bool)
    assert {tool["name"] for tool in told["tools"]} >= {"qemu-img", "qemu-nbd", "prlimit", "setpriv"}
    assert all(tool.keys() >= {"name", "found", "version", "purpose", "install"} for tool in told["tools"])
    (guestfs,) = [tool for tool in told["tools"] if tool["name"] == "python3-guestfs"]
    assert not guestfs["needed"]
    assert (guestfs["purpose"], guestfs["install"]) == ("inspect, adapt, --only-used", "apt-get install python3-guestfs")
    assert guestfs["found"], "run: make setup"


def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(b"\1" * 700)
    for words in (["info", path], ["map", path], ["convert", path, "--to", "qcow2"]):
        done = imgtool(*words)
        assert done.returncode == 0, done.stderr
        assert "warning: " in done.stderr
        assert "warning: " not in done.stdout
    done = imgtool("info", path, "--json")
    assert json.loads(done.stdout)["warnings"]


@pytest.mark.parametrize("words", [["info", "absent.raw"], ["verify", "absent.raw", "absent.qcow2"], ["convert", "absent.raw"],
                                   ["nonsense"], ["convert", "absent.raw", "--to", "qcow3"]])
def test_an_error_leaves_stdout_empty(words: list[str]) -> None:
    done = imgtool(*words, "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_progress_lines(image: Callable[[str], Path]) -> None:
    source = image("raw")
    done = imgtool("convert", source, "--to", "qcow2", "--progress", "json", "--rate-limit", "2M", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is True
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["what"] for line in lines} == {"convert", "verify"}
    for what in ("convert", "verify"):
        done_bytes = [line["done"] for line in lines if line["what"] == what]
        assert done_bytes == sorted(done_bytes)
        (total,) = {line["total"] for line in lines if line["what"] == what}
        assert (done_bytes[0], done_bytes[-1]) == (0, total)
        assert total < SIZE / 2, "holes take no time"
    assert all(line.keys() >= {"what", "done", "total", "rate", "remaining"} for line in lines)


def test_no_progress_in_a_pipe(image: Callable[[str], Path]) -> None:
    done = imgtool("convert", image("raw"), "--to", "qcow2")
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["convert", "x.raw", "--to", "qcow2"], ["convert", "x.raw", "--to", "vmdk", "--thick"],
                                   ["convert", "x.raw", "--to", "vhdx"], ["allocate", "x.raw", "--thick"]])
def test_dry_run_writes_nothing(image: Callable[[str], Path], words: list[str]) -> None:
    path = image("raw")
    before = oracle.state(path.parent)
    told, _ = document(*(path if word == "x.raw" else word for word in words), "--dry-run")
    assert told["problems"] == []
    assert [step["verb"] for step in told["steps"]] == [words[0]]
    assert all(step.keys() >= {"id", "summary", "bytes", "estimate_seconds"} for step in told["steps"])
    assert oracle.state(path.parent) == before
    assert [one.name for one in path.parent.iterdir()] == ["x.raw"]
