"""Damaged images of every kind: read, or refused as damaged; never a crash, a hang, gigabytes of memory or something left behind.

Each kind is read in processes of their own (mutant_runner) with 1 GiB of address space and a watchdog. To see one again:
`IMGTOOL_DEBUG=1 python -m tests.tools.mutant_runner 'qcow2 v3' 17 18`.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from fixtures import vmdk_kinds
from fixtures.vmdk_sparse import Header
from tests.program import ENVIRONMENT, ROOT, result
from tests.tools.hostile_images import qcow2, vmdk
from tests.tools.mutants import FOREIGN, KINDS, PATTERN, mutate

ONE_EXTENT = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{kind}"\nRW {sectors} SPARSE "x.vmdk"\n'
SHORT, LONG, SLOW = 50, 500, 10
LIMITED = (
    "import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))\n"
    "sys.argv[0] = 'imgtool'\nrunpy.run_module('imgtool', run_name='__main__')\n"
)


def read_all(kind: str, first: int, last: int) -> None:
    argv = [sys.executable, "-m", "tests.tools.mutant_runner", kind, str(first), str(last)]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, timeout=1800, check=False)
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert not wrong, "\n".join(wrong)
    assert done.returncode == 0, done.stderr[-3000:]
    counted = done.stdout.strip().splitlines()[-1]
    assert counted.startswith("outcomes: "), counted
    assert "'done'" in counted, "no mutant could be read: do they reach the code?"
    assert "'DamagedError'" in counted or kind == "vdi", "no mutant was damaged: are they spoilt?"


@pytest.mark.parametrize("kind", KINDS)
def test_mutants(kind: str) -> None:
    read_all(kind, 0, SHORT)


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_mutants(kind: str) -> None:
    read_all(kind, 0, SLOW)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_more_mutants(kind: str) -> None:
    read_all(kind, SHORT, SHORT + LONG)


@pytest.mark.long
@pytest.mark.parametrize("kind", FOREIGN)
def test_more_foreign_mutants(kind: str) -> None:
    read_all(kind, SLOW, SLOW + 100)


@pytest.mark.parametrize(
    "kind", ["qcow2 v3", "qcow2 zstd", "vmdk sparse", "vmdk descriptor", "vmdk stream", "vmdk sesparse", "vdi"]
)
def test_mutants_through_the_command_line(tmp_path: Path, kind: str) -> None:
    image, spoilt, tables = (KINDS | FOREIGN)[kind](tmp_path)
    whole = spoilt.read_bytes()
    before = {path.name for path in tmp_path.iterdir()}
    for seed in range(SLOW // 2):
        data = bytearray(whole)
        how = "; ".join(mutate(data, tables, random.Random(f"{kind} {seed}")))
        spoilt.write_bytes(data)
        command = ["info", "map", "check"][seed % 3]
        for args in ((command, image), ("convert", image, tmp_path / "out.raw", "--to", "raw")):
            if args[0] == "convert" and seed % 2:
                continue
            done = limited(*args)
            assert done.returncode in (0, 1, 2, 4, 5, 7), (how, done.returncode, done.stderr)
            assert "Traceback" not in done.stderr, how
            assert "a bug of imgtool" not in done.stderr, (how, done.stderr)
            assert "out of memory" not in done.stderr, (how, done.stderr)
            assert bool(done.returncode) == bool(done.stderr.startswith("error: ") or (args[0] == "check" and done.returncode)), (
                how,
                done.stderr,
            )
        (tmp_path / "out.raw").unlink(missing_ok=True)
        assert {path.name for path in tmp_path.iterdir()} == before, how


# Bombs: little on the disk, and it says that it is huge ----------


def limited(*args: object) -> subprocess.CompletedProcess[str]:
    """The program with 1 GiB of address space; a hang fails the test."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, args)],
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def told(path: Path, *, code: int = 0, convert_to: str = "raw", convert_code: int = 1) -> None:
    """info, map and convert end soon, with the memory that there is."""
    for args, expected in (
        (("info", path), code),
        (("map", path), code),
        (("check", path), code),
        (("convert", path, path.with_name("out." + convert_to), "--to", convert_to), convert_code),
    ):
        done = limited(*args)
        assert done.returncode == expected, (args, done.returncode, done.stdout, done.stderr)
        assert "bug of imgtool" not in done.stderr
        assert "memory" not in done.stderr


def test_an_empty_qcow2_of_two_exabytes(tmp_path: Path) -> None:
    """L1 of 32 MiB, in a file of holes."""
    path = qcow2(tmp_path / "x.qcow2", size=1 << 20, cluster_bits=21)
    with path.open("r+b") as file:
        file.seek(24)
        file.write(struct.pack(">Q", 1 << 61))
        file.seek(36)
        file.write(struct.pack(">I", 1 << 22))
        file.truncate((8 << 20) + (32 << 20))
    for command in ("info", "map"):
        assert limited(command, path).returncode == 0
    assert limited("convert", path, tmp_path / "out.raw", "--to", "raw").returncode == 1
    assert limited("convert", path, tmp_path / "out.vmdk", "--to", "vmdk").returncode == 2
    assert limited("convert", path, tmp_path / "out.qcow2", "--to", "qcow2").returncode == 2
    assert {path.name for path in tmp_path.iterdir()} == {"x.qcow2"}


def test_a_grain_directory_of_half_a_gibibyte(tmp_path: Path) -> None:
    """Grain tables of one grain of a sector each: 64 GiB of disk, 512 MiB of directory, all of it a hole."""
    text = ONE_EXTENT.format(kind="monolithicSparse", sectors=1 << 27)
    head = bytearray(
        Header(capacity=1 << 27, grain=1, flags=1, descriptor=1, descriptor_size=20, directory=32, overhead=64).pack()
    )
    struct.pack_into("<I", head, 44, 1)
    path = tmp_path / "x.vmdk"
    path.write_bytes(bytes(head) + text.encode())
    with path.open("r+b") as file:
        file.truncate((32 << 9) + (512 << 20))
    assert result("map", path)["extents"] == [{"start": 0, "length": 1 << 36, "zero": True, "allocated": False}]
    for args in (("info", path), ("convert", path, tmp_path / "out.qcow2", "--to", "qcow2")):
        done = limited(*args)
        assert done.returncode == 0, done.stderr


def test_a_sesparse_of_eight_exabytes(tmp_path: Path) -> None:
    image = vmdk_kinds.write("seSparse", tmp_path, "x", PATTERN)
    delta = image.files[-1]
    for sectors in (1 << 54, (1 << 54) - 1, 1 << 40):
        with delta.open("r+b") as file:
            file.seek(16)
            file.write(struct.pack("<Q", sectors))
        told(image.path, code=5, convert_code=5)


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 512, (1 << 63) - 1, 1 << 62])
def test_offsets_that_no_file_has(tmp_path: Path, offset: int) -> None:
    for at, form in ((8, ">Q"), (40, ">Q"), (48, ">Q")):  # backing file name, L1 table, refcount table
        path = qcow2(tmp_path / "x.qcow2", backing="base.raw", backing_format="raw")
        (tmp_path / "base.raw").write_bytes(bytes(4096))
        with path.open("r+b") as file:
            file.seek(at)
            file.write(struct.pack(form, offset))
        expected = 0 if at == 48 else 5
        assert limited("info", path).returncode == expected
    path = qcow2(tmp_path / "y.qcow2")
    with path.open("r+b") as file:
        file.seek(60)
        file.write(struct.pack(">IQ", 3, offset))
    assert limited("info", path).returncode == 5
    for at in (28, 56):  # descriptor, grain directory
        image = vmdk_kinds.write("monolithicSparse", tmp_path, "z", PATTERN)
        with image.path.open("r+b") as file:
            file.seek(at)
            file.write(struct.pack("<Q", offset))
        assert limited("info", image.path).returncode == 5


def test_tables_in_the_header_are_data_and_no_crash(tmp_path: Path) -> None:
    """Grain table entries that point at the header: the guest reads it, as QEMU does."""
    image = vmdk_kinds.write("monolithicSparse", tmp_path, "x", "64k:A 960k:-", redundant=False)
    data = bytearray(image.path.read_bytes())
    (table,) = struct.unpack_from("<I", data, struct.unpack_from("<Q", data, 56)[0] * 512)
    struct.pack_into("<I", data, table * 512 + 4, 1)
    image.path.write_bytes(data)
    done = limited("convert", image.path, tmp_path / "out.raw", "--to", "raw")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.raw").read_bytes()[65536:131072] == bytes(data[512 : 512 + 65536])


@pytest.mark.parametrize("payload", ["zlib bomb", "short", "nothing", "noise", "zstd bomb", "zstd short"])
def test_compressed_clusters_that_unpack_to_something_else(tmp_path: Path, payload: str) -> None:
    """A bomb gives a cluster and no more; what gives less is damaged."""
    import zstandard

    packed = {
        "zlib bomb": lambda: zlib.compress(b"x" * (64 << 20), 9)[2:-4],
        "short": lambda: zlib.compress(b"x" * 512)[2:-4],
        "nothing": lambda: b"",
        "noise": lambda: random.Random(1).randbytes(4096),
        "zstd short": lambda: zstandard.compress(b"x" * 512),
        "zstd bomb": lambda: zstandard.compress(b"x" * (256 << 20)),
    }[payload]()
    path = qcow2(tmp_path / "x.qcow2")
    data = bytearray(path.read_bytes())
    l2, at = 5 << 16, 6 << 16
    struct.pack_into(">Q", data, 4 << 16, l2)
    sectors = -(-len(packed) // 512)
    data += bytes(7 * 65536 - len(data))
    struct.pack_into(">Q", data, l2, 1 << 62 | (min(sectors, 255) << 54) | at)
    data[at:at] = packed.ljust(sectors * 512, b"\0")
    if payload.startswith("zstd"):
        struct.pack_into(">Q", data, 72, 8)
        data[104] = 1
    path.write_bytes(data)
    expected = 0 if "bomb" in payload else 5
    done = limited("convert", path, tmp_path / "out.raw", "--to", "raw", "--no-verify")
    assert done.returncode == expected, done.stderr
    if not expected:
        assert (tmp_path / "out.raw").read_bytes()[:65536] == b"x" * 65536


@pytest.mark.parametrize(("grain", "code"), [(1 << 18, 5), (1 << 13, 0)])
def test_large_grains_that_are_compressed(tmp_path: Path, grain: int, code: int) -> None:
    """Each worker holds some: the sum must stay small."""
    count = 8
    text = ONE_EXTENT.format(kind="streamOptimized", sectors=grain * count)
    packed = zlib.compress(bytes(grain * 512 - 1) + b"x", 1)
    header = Header(
        capacity=grain * count,
        grain=grain,
        flags=1 | 1 << 16 | 1 << 17,
        version=3,
        descriptor=1,
        descriptor_size=20,
        directory=32,
        overhead=128,
        compression=1,
    )
    data = bytearray(128 * 512)
    data[:512] = header.pack()
    data[512 : 512 + len(text)] = text.encode()
    struct.pack_into("<I", data, 32 * 512, 33)
    for number in range(count):
        struct.pack_into("<I", data, 33 * 512 + number * 4, len(data) // 512)
        part = struct.pack("<QI", number * grain, len(packed)) + packed
        data += part.ljust(-(-len(part) // 512) * 512, b"\0")
    (tmp_path / "x.vmdk").write_bytes(data)
    done = limited("convert", tmp_path / "x.vmdk", tmp_path / "out.raw", "--to", "raw")
    assert done.returncode == code, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"x.vmdk"} | ({"out.raw"} if not code else set())


def test_eight_thousand_extents_of_nothing(tmp_path: Path) -> None:
    path = vmdk(tmp_path / "x.vmdk", *["RW 2199023255552 ZERO"] * 8000)
    told(path, convert_to="qcow2", convert_code=2)
    vmdk(path, *["RW 128 ZERO"] * 8000)
    told(path, convert_to="qcow2", convert_code=0)
