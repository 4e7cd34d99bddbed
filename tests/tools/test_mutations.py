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
from unittest.mock import Mock

import pytest

from fixtures import vmdk_kinds
from fixtures.vmdk_sparse import Header
from imgtool.errors import DamagedError, MissingToolError, RefusedError, UsageError
from imgtool.formats import disk
from imgtool.formats.disk import open_disk
from imgtool.formats.foreign import VHDX_FILE_PARAMETERS, Served, load_nbd
from imgtool.formats.vmdk.read import descriptor_of
from imgtool.model import Extent, ImageFile, Kind
from imgtool.model.package import Member
from tests import oracle
from tests.program import ENVIRONMENT, ROOT, result
from tests.tools.hostile_images import qcow2, vmdk
from tests.tools.mutants import FOREIGN, KINDS, PATTERN, mutate

ONE_EXTENT = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{kind}"\nRW {sectors} SPARSE "x.vmdk"\n'
SHORT, LONG, SLOW = 50, 500, 10
LIMITED = (
    "import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))\n"
    "sys.argv[0] = 'imgtool'\nrunpy.run_module('imgtool', run_name='__main__')\n"
)


# One field that is wrong ----------

CLUSTER = 1 << 16
L1, L2 = 4 * CLUSTER, 5 * CLUSTER
QCOW2_FIELDS: dict[str, tuple[str, list[tuple[int, bytes]]]] = {
    "has no qcow2 header": ("", []),  # cut off below
    "subclusters need clusters of at least 16 KiB": ("small", [(72, struct.pack(">Q", 1 << 4))]),
    "unknown compression type 7": ("", [(72, struct.pack(">Q", 1 << 3)), (104, b"\7")]),
    "the backing file name is too long": ("", [(8, struct.pack(">QI", 512, 1024))]),
    "whose name is missing": ("", [(72, struct.pack(">Q", 1 << 2))]),
    "an L2 table is not aligned": ("", [(L1, struct.pack(">Q", L2 + 512))]),
    "a cluster is not aligned": ("", [(L1, struct.pack(">Q", L2)), (L2, struct.pack(">Q", 6 * CLUSTER + 512))]),
    "a zero cluster in an image of version 2": ("", [(4, struct.pack(">I", 2)), (L1, struct.pack(">Q", L2)),
                                                     (L2, struct.pack(">Q", 1))]),
    "more data than its files hold": ("", [(L1, struct.pack(">Q", L2)), (L2, struct.pack(">Q", 6 * CLUSTER) * 16)]),
}


def spoil(path: Path, changes: list[tuple[int, bytes]], size: int = 0) -> Path:
    with path.open("r+b") as file:
        for at, data in changes:
            file.seek(at)
            file.write(data)
        file.truncate(max(size, path.stat().st_size))
    return path


@pytest.mark.parametrize("words", QCOW2_FIELDS)
def test_fields_of_qcow2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(disk, "SLACK", 0)
    clusters, changes = QCOW2_FIELDS[words]
    path = spoil(qcow2(tmp_path / "x.qcow2", cluster_bits=9 if clusters else 16), changes, size=0 if clusters else 7 * CLUSTER)
    if not changes:
        path.write_bytes(path.read_bytes()[:71])
    with pytest.raises(DamagedError, match=words), open_disk(str(path)) as opened:
        list(opened.extents())


@pytest.mark.parametrize(("bit", "words"), [(1, "marked as corrupt"), (0, "not closed cleanly")])
def test_what_a_qcow2_says_of_its_state_is_passed_on(tmp_path: Path, bit: int, words: str) -> None:
    path = spoil(qcow2(tmp_path / "x.qcow2"), [(72, struct.pack(">Q", 1 << bit))])
    with open_disk(str(path)) as opened:
        (warning,) = opened.warnings
    assert words in warning


def test_a_vmdk_that_is_packed_in_a_way_that_nobody_knows(tmp_path: Path) -> None:
    image = vmdk_kinds.write("streamOptimized", tmp_path, "x", PATTERN)
    raw = image.path.read_bytes()
    for at in (0, len(raw) - 1024):  # header, footer
        spoil(image.path, [(at + 77, struct.pack("<H", 2))])
    with pytest.raises(DamagedError, match="unknown compression 2"), open_disk(str(image.path)):
        pass


def foreign(tmp_path: Path, driver: str, suffix: str, *options: str) -> Path:
    path = tmp_path / f"x.{suffix}"
    oracle.tool("qemu-img", "create", "-q", "-f", driver, *options, path, "1M")
    return path


@pytest.mark.parametrize(("kind", "error", "words"), [(4, RefusedError, "differencing VHD"), (9, DamagedError, "type 9")])
def test_a_vhd_that_needs_its_parent(tmp_path: Path, kind: int, error: type[Exception], words: str) -> None:
    path = foreign(tmp_path, "vpc", "vhd")
    for at in (0, path.stat().st_size - 512):  # both of its footers
        spoil(path, [(at + 60, struct.pack(">I", kind))])
    with pytest.raises(error, match=words), open_disk(str(path)):
        pass


def test_a_vdi_that_needs_its_parent(tmp_path: Path) -> None:
    path = spoil(foreign(tmp_path, "vdi", "vdi"), [(76, struct.pack("<I", 4))])
    with pytest.raises(RefusedError, match="VDI of type 4") as caught, open_disk(str(path)):
        pass
    assert "clone it" in str(caught.value.hint)


def test_a_vhdx_that_needs_its_parent(tmp_path: Path) -> None:
    path = foreign(tmp_path, "vhdx", "vhdx")
    raw = path.read_bytes()
    region, entry = raw.index(b"metadata"), raw.index(VHDX_FILE_PARAMETERS.bytes_le)
    flags = region + struct.unpack_from("<I", raw, entry + 16)[0] + 4
    spoil(path, [(flags, struct.pack("<I", struct.unpack_from("<I", raw, flags)[0] | 2))])
    with pytest.raises(RefusedError, match="differencing VHDX") as caught, open_disk(str(path)):
        pass
    assert "merge it" in str(caught.value.hint)


def test_images_in_an_archive_that_only_qemu_reads(tmp_path: Path) -> None:
    path = foreign(tmp_path, "vdi", "vdi")
    path.write_bytes(bytes(512) + path.read_bytes())
    member = Member("x.vdi", 512, path.stat().st_size - 512)
    with pytest.raises(RefusedError, match="in an archive") as caught, open_disk(str(path), member=member):
        pass
    assert caught.value.hint == "unpack the archive"


def test_a_server_of_images_that_fails_names_the_image() -> None:
    """Its end, or a bad block below it."""
    handle = Mock()
    handle.pread.side_effect = handle.block_status.side_effect = load_nbd().Error("Input/output error", 5)
    served = Served(ImageFile("/images/x.vhdx", -1, 0), "vhdx", 1 << 20, Mock())
    served._handle = handle
    with pytest.raises(DamagedError, match=r"/images/x\.vhdx: .*Input/output error"):
        served.read(Extent(0, 512, Kind.DATA))
    with pytest.raises(DamagedError, match=r"/images/x\.vhdx: .*Input/output error"):
        list(served.extents(0, 1 << 20))


def test_without_libnbd_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(MissingToolError, match="libnbd") as caught:
        load_nbd()
    assert caught.value.hint == "apt-get install python3-libnbd"


@pytest.mark.parametrize(("name", "head", "error", "words"), [
    ("x.ova", b"", UsageError, "describes a machine"), ("x.VMX", b"", UsageError, "describes a machine"),
    ("x.img", b"\x1f\x8b", DamagedError, "begins like gzip"), ("x", b"WithoutFreeSpace", DamagedError, "begins like Parallels")])
def test_what_is_no_disk_image_is_not_read_as_raw(tmp_path: Path, name: str, head: bytes, error: type[Exception],
                                                  words: str) -> None:
    (tmp_path / name).write_bytes(head.ljust(4096, b"x"))
    with pytest.raises(error, match=words), open_disk(str(tmp_path / name)):
        pass


def test_a_descriptor_that_is_named_like_a_part_is_read(tmp_path: Path) -> None:
    (tmp_path / "x-flat.vmdk").write_bytes(bytes(64 << 10))
    path = vmdk(tmp_path / "x-s001.vmdk", 'RW 128 FLAT "x-flat.vmdk"')
    with open_disk(str(path)) as opened:
        assert opened.virtual_size == 64 << 10


def test_the_data_of_a_vmdk_and_a_damaged_descriptor_beside_it(tmp_path: Path) -> None:
    (tmp_path / "x-flat.vmdk").write_bytes(bytes(64 << 10))
    vmdk(tmp_path / "a.vmdk", "RW nothing")
    with open_disk(str(tmp_path / "x-flat.vmdk")) as opened:
        assert opened.warnings == ("x-flat.vmdk is the data of a VMDK, read as raw: no descriptor beside it names it",)
    path = vmdk(tmp_path / "b.vmdk", 'RW 128 FLAT "x-flat.vmdk"')
    with open_disk(str(tmp_path / "x-flat.vmdk")) as opened:
        assert opened.warnings[0].endswith(f"its descriptor is {path}")
    assert descriptor_of(f"{tmp_path}/x.ova/x-flat.vmdk") is None, "nothing lies beside what lies in an archive"


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
