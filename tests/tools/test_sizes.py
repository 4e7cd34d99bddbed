"""Disks of 62 TiB and of no bytes, of odd sizes, destinations without a name or with a wrong one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures import patterns
from imgtool.errors import DamagedError
from imgtool.model import ConvertRequest, ImageSpec
from imgtool.progress import Control
from imgtool.steps import convert as steps
from imgtool.steps.spec import SUFFIX_OF
from tests import oracle
from tests.images import SMALL, fill
from tests.loops import loop_device
from tests.program import imgtool, result

TIB = 1 << 40
HUGE = 62 * TIB


DATA = 70 << 10


def spots(size: int) -> list[int]:
    """Where the data of a huge disk is: at its beginning, in its middle, at its end."""
    return [0, size // 2 & ~511, size - DATA]


def huge(path: Path, size: int = HUGE, options: str = "cluster_size=2M") -> Path:
    """A disk with a little data at its beginning, in its middle and at its end."""
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, size)
    pieces = [patterns.Piece(start, DATA, "A") for start in spots(size)]
    fill(path, "qcow2", pieces)
    return path


@pytest.mark.parametrize("words", [
    ["--to", "qcow2", "-o", "cluster_size=2M"], ["--to", "qcow2", "-o", "cluster_size=1M,extended_l2=on"],
    ["--to", "vmdk"], ["--to", "vmdk", "--subformat", "twoGbMaxExtentSparse", "-o", "adapter_type=ide"]],
    ids=["qcow2", "extended", "monolithicSparse", "twoGbMaxExtentSparse"])
def test_62_tib_thin(tmp_path: Path, words: list[str]) -> None:
    """qemu-img needs minutes for all of such a VMDK; imgtool's own comparison is of the whole."""
    split = "twoGbMaxExtentSparse" in words
    size = 20 << 30 if split else HUGE
    source, path = huge(tmp_path / "x.qcow2", size), tmp_path / f"y{SUFFIX_OF[words[1]]}"
    made = result("convert", source, path, *words)
    assert (made["virtual_size"], made["allocation"], made["verified"]) == (size, "thin", True)
    assert oracle.virtual_size(path, words[1]) == size
    for start in spots(size):
        oracle.same_there(source, "qcow2", path, words[1], start, DATA)
    if words[1] == "qcow2" or split:
        oracle.same(source, "qcow2", path, words[1])
        oracle.clean(path, words[1])
    assert sum(one.stat().st_blocks * 512 for one in tmp_path.iterdir() if one != source) < 100 << 20


@pytest.mark.long
def test_62_tib_of_a_vmdk_by_others(tmp_path: Path) -> None:
    source = huge(tmp_path / "x.qcow2")
    result("convert", source, tmp_path / "y.vmdk", "--to", "vmdk")
    oracle.same(source, "qcow2", tmp_path / "y.vmdk", "vmdk")
    assert result("check", tmp_path / "y.vmdk")["sound"]


def test_too_large_for_2_gb_extents(tmp_path: Path) -> None:
    source = huge(tmp_path / "x.qcow2")
    done = imgtool("convert", source, tmp_path / "y.vmdk", "--to", "vmdk", "--subformat", "twoGbMaxExtentSparse")
    assert done.returncode == 2, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.qcow2"]


@pytest.mark.parametrize(("size", "words", "reason"), [
    (2040 * (1 << 30) + 512, ["vpc"], "2040 GiB"),
    (65 * TIB, ["vhdx"], "64 TiB"),
    (HUGE + 512, ["vmdk"], "62 TiB"),
    (HUGE + 512, ["vmdk", "--subformat", "vmfs"], "62 TiB"),
    (0, ["vmdk"], "0 bytes"),
    (0, ["vmdk", "--subformat", "streamOptimized"], "0 bytes"),
    (0, ["vpc"], "0 bytes"), (0, ["vhdx"], "0 bytes"), (0, ["vdi"], "0 bytes"),
    (HUGE, ["qcow2", "-o", "cluster_size=512"], "cluster_size"),
])
def test_what_a_format_cannot_hold(tmp_path: Path, size: int, words: list[str], reason: str) -> None:
    source = tmp_path / "x.qcow2"
    oracle.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", source, size)
    for more in ([], ["--dry-run"]):
        done = imgtool("convert", source, tmp_path / f"y{SUFFIX_OF[words[0]]}", "--to", *words, *more)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        assert reason in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["x.qcow2"]


def test_vpc_at_its_limit(tmp_path: Path) -> None:
    source = huge(tmp_path / "x.qcow2", 2040 << 30)
    result("convert", source, tmp_path / "y.vhd", "--to", "vpc")
    oracle.same(source, "qcow2", tmp_path / "y.vhd", "vpc")


@pytest.mark.parametrize("to", ["raw", "qcow2"])
def test_a_disk_of_no_bytes(tmp_path: Path, to: str) -> None:
    (tmp_path / "x.img").touch()
    made = result("convert", tmp_path / "x.img", tmp_path / f"y{SUFFIX_OF[to]}", "--to", to)
    assert made["virtual_size"] == oracle.virtual_size(Path(made["destination"]), to) == 0
    assert result("verify", tmp_path / "x.img", made["destination"])["identical"]


@pytest.mark.parametrize("tail", [1, 511])
@pytest.mark.parametrize("to", sorted(SUFFIX_OF))
def test_odd_tail(tmp_path: Path, to: str, tail: int) -> None:
    """A raw file that ends within a sector is read as if zeros followed."""
    content = patterns.content(patterns.Piece(0, 100 << 10, "A"), 0, 100 << 10) + b"\xff" * tail
    source = tmp_path / "x.img"
    source.write_bytes(content)
    size = -(-len(content) // 512) * 512
    done = imgtool("convert", source, tmp_path / f"y{SUFFIX_OF[to]}", "--to", to)
    assert done.returncode == 0, done.stderr
    assert "warning: " in done.stderr
    assert "512" in done.stderr
    padded = tmp_path / "padded.raw"
    padded.write_bytes(content.ljust(size, b"\0"))
    oracle.same(tmp_path / f"y{SUFFIX_OF[to]}", to, padded, "raw")
    assert result("verify", source, tmp_path / f"y{SUFFIX_OF[to]}")["identical"]
    assert result("verify", tmp_path / f"y{SUFFIX_OF[to]}", source)["identical"]
    assert source.read_bytes() == content


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return patterns.write_raw(tmp_path / "x.raw", SMALL)


@pytest.mark.parametrize("to", sorted(set(SUFFIX_OF) - {"raw"}))
def test_without_a_destination(raw: Path, to: str) -> None:
    made = result("convert", raw.name, "--to", to, cwd=raw.parent)
    expected = raw.with_suffix(SUFFIX_OF[to])
    assert made["destination"] == str(expected)
    oracle.same(expected, to, raw, "raw")
    assert oracle.virtual_size(raw, "raw") == patterns.size(SMALL)


def test_without_a_destination_from_elsewhere(raw: Path, tmp_path: Path) -> None:
    """Beside the source, not where the command runs."""
    (tmp_path / "elsewhere").mkdir()
    result("convert", raw, "--to", "qcow2", cwd=tmp_path / "elsewhere")
    assert (tmp_path / "x.qcow2").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("words", [["x.raw"], [], ["./x.raw"], ["link.raw"], ["hard.raw"], ["link.raw", "--force"],
                                   ["x.raw", "--force"]])
def test_the_source_as_destination(raw: Path, words: list[str]) -> None:
    (raw.parent / "link.raw").symlink_to("x.raw")
    os.link(raw, raw.parent / "hard.raw")
    before = oracle.state(raw.parent)
    done = imgtool("convert", "x.raw", *words, "--to", "raw", cwd=raw.parent)
    assert done.returncode == 2, done.stderr
    assert oracle.state(raw.parent) == before


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere/x")],
                         ids=["file", "directory", "dangling"])
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--no-verify"]])
def test_a_destination_that_is_there(raw: Path, make, more: list[str]) -> None:  # type: ignore[no-untyped-def]
    path = raw.parent / "y.qcow2"
    make(path)
    before = sorted(os.listdir(raw.parent))
    done = imgtool("convert", raw, path, "--to", "qcow2", *more)
    assert done.returncode == (4 if path.is_file() else 2), done.stderr
    assert sorted(os.listdir(raw.parent)) == before
    assert not path.is_file() or path.stat().st_size == 0


def test_extents_that_are_there_keep_their_names(raw: Path) -> None:
    """Where the plain name of an extent is taken, the new one gets a name of its own."""
    flat = raw.parent / "y-flat.vmdk"
    flat.write_bytes(b"somebody else's")
    made = result("convert", raw, raw.parent / "y.vmdk", "--to", "vmdk", "--subformat", "vmfs")
    assert flat.read_bytes() == b"somebody else's"
    assert str(flat) not in made["files"]
    oracle.same(raw.parent / "y.vmdk", "vmdk", raw, "raw")


@contextmanager
def _device(path: Path, size: int) -> Iterator[Path]:
    with path.open("wb") as file:
        file.truncate(size)
    with loop_device(path) as device:
        yield device


@pytest.mark.parametrize("more", [[], ["--force"]])
def test_a_block_device_is_no_destination(raw: Path, more: list[str]) -> None:
    with _device(raw.parent / "disk.img", 8 << 20) as device:
        done = imgtool("convert", raw, device, "--to", "raw", *more)
        assert done.returncode == 4, done.stderr
    assert not any((raw.parent / "disk.img").read_bytes())


def test_a_block_device_as_source(raw: Path, tmp_path: Path) -> None:
    with loop_device(raw) as device:
        link = tmp_path / "by-id"
        link.symlink_to(device)
        made = result("convert", link, tmp_path / "y.qcow2", "--to", "qcow2")
    assert made["virtual_size"] == patterns.size(SMALL)
    oracle.same(tmp_path / "y.qcow2", "qcow2", raw, "raw")


def test_a_source_that_is_cut_off_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not compared, and yet no copy with zeros for what is gone."""
    source = tmp_path / "a.raw"
    source.write_bytes(b"x" * (2 << 20))
    write = steps._write

    def cut(*given: object) -> object:
        os.truncate(source, 1 << 20)
        return write(*given)

    monkeypatch.setattr(steps, "_write", cut)
    request = ConvertRequest(source=str(source), destination=str(tmp_path / "a.qcow2"), spec=ImageSpec(format="qcow2"),
                             verify=False)
    with pytest.raises(DamagedError, match="became shorter"):
        steps.convert(request, Control())
    assert os.listdir(tmp_path) == ["a.raw"]


@pytest.mark.parametrize(("subformat", "version", "flags"), [("monolithicSparse", 1, 3), ("streamOptimized", 3, 0x30001)])
def test_flags_of_a_vmdk(tmp_path: Path, subformat: str, version: int, flags: int) -> None:
    """What the specification wants in a header: the line ends are there; a redundant directory; or markers and packed grains."""
    source = patterns.write_raw(tmp_path / "x.raw", "1M:A 1M:-")
    result("convert", source, tmp_path / "y.vmdk", "--to", "vmdk", "--subformat", subformat)
    assert struct.unpack_from("<4sII", (tmp_path / "y.vmdk").read_bytes()[:12]) == (b"KDMV", version, flags)
