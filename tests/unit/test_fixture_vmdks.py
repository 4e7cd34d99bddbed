"""The builders of test inputs, proved against tools that others wrote.

qemu-img is the oracle of what a guest reads; 7z and vmdkinfo where it is none: a `ZERO` extent is a line that
qemu-img passes over in silence, so that it shows a shorter disk.
"""

import json
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixtures import notes_machine, patterns, vmdk_deltas, vmdk_kinds, vmdk_sparse
from fixtures.disks import disk
from fixtures.patterns import Piece
from fixtures.vmdk_kinds import Image

MIB = 1 << 20
SMALL = "32k:A 64k:- 32k:0 512:B"
ODD = "1536:a 512:- 512:0 40k:- 3k:C 512:-"
HOLES = "130k:-"
# More than one grain table of every kind (the largest covers 32 MiB), an end inside a grain.
LARGE = "3M:a 512:C 31M:- 70k:B 1M:0 3M:D 1536:- 512:a"
DELTA = "1M:. 32k:A 100k:- 32k:0 512:B 3584:. 2M:- 1M:0 25M:. 128k:C 64k:0 64k:- 9M:. 5k:b"
SECOND = "5M:. 50k:E 24k:- 24k:0 34M:. 512:- 512:e"

WHOLE = [
    ("vmfs", {}),
    ("vmfs", {"thin": False}),
    ("vmfsSparse", {}),
    ("vmfsSparse", {"grain": 8, "seed": 1}),
    ("seSparse", {}),
    ("seSparse", {"seed": 1}),
    ("seSparse", {"first_grain": (5 << 12) + 7}),
    ("monolithicSparse", {}),
    ("monolithicSparse", {"zeroed_grains": True, "seed": 1}),
    ("monolithicSparse", {"grain": 8, "redundant": False, "unclean": True}),
    ("monolithicFlat", {}),
    ("monolithicFlat", {"offset": 64 * 1024}),
    ("streamOptimized", {}),
    ("streamOptimized", {"clip_last": True}),
    ("twoGbMaxExtentSparse", {}),
    ("twoGbMaxExtentSparse", {"split": MIB, "grain": 16, "seed": 1}),
    ("twoGbMaxExtentFlat", {}),
]
CHILDREN = [(kind, options) for kind, options in WHOLE if kind in vmdk_kinds.WITH_PARENT]


def run(*argv: str | Path) -> str:
    """What a tool prints; a missing tool is an error of the machine, not a reason to skip."""
    if shutil.which(str(argv[0])) is None:
        pytest.fail(f"{argv[0]} is missing: run `make setup`")
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def virtual_size(image: Image) -> int:
    return json.loads(run("qemu-img", "info", "--output=json", "-f", "vmdk", image.path))["virtual-size"]


def assert_reads(image: Image, raw: Path) -> None:
    """qemu-img finds the image sound, as large as the raw file, and the same for a guest."""
    run("qemu-img", "check", "-f", "vmdk", image.path)
    assert virtual_size(image) == raw.stat().st_size
    run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", image.path, raw)


def identity(value: object) -> str:
    return "-".join(f"{key}={word}" for key, word in value.items()) if isinstance(value, dict) else str(value)


class TestPatterns:
    def test_words(self) -> None:
        assert patterns.parse("1k:A 512:- 1M:0") == (
            Piece(0, 1024, "A"),
            Piece(1024, 512, "-"),
            Piece(1536, MIB, "0"),
        )
        assert patterns.render(patterns.parse(LARGE)) == LARGE
        assert patterns.size("1G:- 2M:a 3k:b 4:c") == (1 << 30) + (2 << 20) + 3072 + 4

    @pytest.mark.parametrize("word", ["12", "k:A", "1T:A", "1k:AB", "1k:1", "-1k:A", "1.5k:A"])
    def test_nonsense_is_refused(self, word: str) -> None:
        with pytest.raises(ValueError, match="not a piece"):
            patterns.parse(f"1k:A {word}")

    def test_content_depends_on_letter_and_position_only(self) -> None:
        (whole,) = patterns.parse("1M:A")
        assert patterns.content(Piece(70_000, 999, "A"), 70_000) == patterns.content(whole, 70_000, 999)
        assert patterns.content(whole, 0, 512) != patterns.content(whole, 512, 512)
        assert patterns.content(whole, 0, 512) != patterns.content(Piece(0, 512, "B"), 0)

    def test_large_letters_do_not_compress_and_small_ones_do(self) -> None:
        large, small = (patterns.content(Piece(0, MIB, letter), 0) for letter in "Aa")
        assert len(zlib.compress(large)) > MIB
        assert len(zlib.compress(small)) < MIB // 10
        assert f"{512 * 77:015d}".encode() in small[512 * 77 : 512 * 78]

    def test_holes_are_holes_and_zeros_are_written(self, tmp_path: Path) -> None:
        raw = patterns.write_raw(tmp_path / "raw", "1M:- 1M:0 1M:A 1M:-")
        assert raw.stat().st_blocks * 512 == 2 * MIB
        assert raw.stat().st_size == 4 * MIB
        assert patterns.render(patterns.pieces_of_raw(raw)) == "1M:- 2M:R 1M:-"

    def test_sum(self, tmp_path: Path) -> None:
        raw = patterns.write_raw(tmp_path / "raw", LARGE)
        assert run("sha256sum", raw).split()[0] == patterns.expected_sha256(LARGE)

    def test_overlay(self) -> None:
        seen = patterns.overlay("4k:A 4k:B", "2k:. 1k:C 4k:. 1k:- 4k:.")
        assert patterns.render(seen) == "2k:A 1k:C 1k:A 3k:B 1k:- 4k:-"

    def test_random_patterns_have_their_size_and_alignment(self) -> None:
        for seed in range(50):
            text = patterns.random_pattern(random.Random(seed), 10 * MIB + 512, 1024)
            assert text == patterns.random_pattern(random.Random(seed), 10 * MIB + 512, 1024)
            assert patterns.size(text) == 10 * MIB + 512
            assert all(piece.start % 1024 == 0 for piece in patterns.parse(text))


class TestWholeDisks:
    @pytest.mark.parametrize("pattern", [SMALL, ODD, HOLES, LARGE])
    @pytest.mark.parametrize(("kind", "options"), WHOLE, ids=identity)
    def test_guest_reads_the_pattern(self, tmp_path: Path, kind: str, options: dict, pattern: str) -> None:
        image = vmdk_kinds.write(kind, tmp_path, "x", pattern, **options)
        raw = patterns.write_raw(tmp_path / "raw", pattern)
        assert all(path.exists() for path in image.files)
        assert image.disk.sha256() == patterns.expected_sha256(pattern)
        assert_reads(image, raw)

    @pytest.mark.parametrize("kind", sorted({kind for kind, _ in WHOLE}))
    def test_guest_reads_random_patterns(self, tmp_path: Path, kind: str) -> None:
        for seed in range(3):
            rng = random.Random(seed)
            pattern = patterns.random_pattern(rng, rng.randrange(1, 8 * 2048) * 512)
            image = vmdk_kinds.write(kind, tmp_path, f"x{seed}", pattern)
            assert_reads(image, patterns.write_raw(tmp_path / "raw", pattern))

    @pytest.mark.parametrize("kind", sorted({kind for kind, _ in WHOLE}))
    def test_guest_reads_a_raw_file(self, tmp_path: Path, kind: str) -> None:
        raw = patterns.write_raw(tmp_path / "raw", "64k:A 1M:- 2M:b 512:0")
        assert_reads(vmdk_kinds.write(kind, tmp_path, "x", raw), raw)

    def test_a_hole_is_not_written(self, tmp_path: Path) -> None:
        for kind, options in WHOLE:
            image = vmdk_kinds.write(kind, tmp_path, "x", "64k:A 200M:- 64k:B", **options)
            space = sum(path.stat().st_blocks for path in image.files) * 512
            assert (space < 4 * MIB) == options.get("thin", True), kind

    def test_an_older_file_of_the_name_leaves_nothing(self, tmp_path: Path) -> None:
        for kind, options in WHOLE:
            vmdk_kinds.write(kind, tmp_path, "x", "4M:A", **options)
            image = vmdk_kinds.write(kind, tmp_path, "x", "64k:A 2M:- 64k:B", **options)
            assert_reads(image, patterns.write_raw(tmp_path / "raw", "64k:A 2M:- 64k:B"))


class TestSnapshots:
    @pytest.mark.parametrize("base", ["vmfs", "monolithicSparse"])
    @pytest.mark.parametrize(("kind", "options"), CHILDREN, ids=identity)
    def test_guest_reads_the_overlay(self, tmp_path: Path, kind: str, options: dict, base: str) -> None:
        parent = vmdk_kinds.write(base, tmp_path, "x", LARGE)
        child = vmdk_kinds.write(kind, tmp_path, "x-000001", DELTA, parent=parent, **options)
        expected = patterns.overlay(LARGE, DELTA)
        assert child.disk.sha256() == patterns.expected_sha256(expected)
        assert_reads(child, patterns.write_raw(tmp_path / "raw", expected))

    @pytest.mark.parametrize(
        "kinds",
        [
            ("vmfs", "vmfsSparse", "vmfsSparse"),
            ("vmfs", "seSparse", "seSparse"),
            ("vmfs", "vmfsSparse", "seSparse"),
            ("monolithicSparse", "monolithicSparse", "monolithicSparse"),
            ("twoGbMaxExtentSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentSparse"),
            ("streamOptimized", "seSparse", "monolithicSparse"),
        ],
        ids="-".join,
    )
    def test_chain_of_three(self, tmp_path: Path, kinds: Sequence[str]) -> None:
        layers = list(zip(kinds, (LARGE, DELTA, SECOND), strict=True))
        images = vmdk_kinds.chain(tmp_path, "x", layers)
        assert [image.path.name for image in images] == ["x.vmdk", "x-000001.vmdk", "x-000002.vmdk"]
        assert len({image.cid for image in images}) == 3
        expected = patterns.overlay(patterns.overlay(LARGE, DELTA), SECOND)
        raw = patterns.write_raw(tmp_path / "raw", expected)
        assert_reads(images[-1], raw)
        told = json.loads(run("qemu-img", "info", "--output=json", "--backing-chain", images[-1].path))
        assert [Path(one["filename"]).name for one in told] == [image.path.name for image in images[::-1]]
        flat = images[-1].disk.write_raw(tmp_path / "flat")
        assert run("sha256sum", flat).split()[0] == patterns.expected_sha256(expected)
        # As sparse as the other; the file system's own tree of extents may take a block or two more.
        assert abs(flat.stat().st_blocks - raw.stat().st_blocks) * 512 <= 64 << 10

    def test_a_part_that_is_not_there_needs_a_parent(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="parent"):
            vmdk_kinds.write("seSparse", tmp_path, "x", DELTA)
        base = vmdk_kinds.write("vmfs", tmp_path, "x", SMALL)
        with pytest.raises(ValueError, match="parent"):
            vmdk_kinds.write("vmfs", tmp_path, "y", DELTA, parent=base)


def words(path: Path, sector: int, form: str) -> tuple[int, ...]:
    """Numbers as they stand in a file."""
    with path.open("rb") as file:
        file.seek(sector * 512)
        return struct.unpack(form, file.read(struct.calcsize(form)))


class TestBytes:
    """What the tools take without looking, or do not tell."""

    def test_cowd(self, tmp_path: Path) -> None:
        image = vmdk_kinds.write("vmfsSparse", tmp_path, "x", SMALL)
        delta = tmp_path / "x-delta.vmdk"
        sectors = image.disk.sectors
        assert delta.read_bytes()[:4] == b"COWD"
        assert words(delta, 0, "<8I")[1:] == (1, 3, sectors, 1, 4, 1, delta.stat().st_size // 512)
        assert words(delta, 4, "<I") == (5,)
        entries = words(delta, 5, "<4096I")
        assert entries[:64] == tuple(range(37, 101))
        assert entries[64:192] == (0,) * 128
        assert entries[192] == 101

    def test_sesparse_has_each_type_of_entry(self, tmp_path: Path) -> None:
        base = vmdk_kinds.write("vmfs", tmp_path, "x", "20M:A")
        first = (5 << 12) + 0xFFE
        pattern = "4k:. 4k:- 4k:0 12k:B 16M:. 4k:C"
        vmdk_kinds.write("seSparse", tmp_path, "x-000001", pattern, parent=base, first_grain=first)
        path = tmp_path / "x-000001-sesparse.vmdk"
        assert words(path, 0, "<5Q") == (0xCAFEBABE, 0x0000000200000001, 16 * 2048 + 56, 8, 64)
        assert words(path, 1, "<4Q") == (0xCAFECAFE, 2, 0, 0)
        directory, _, tables = words(path, 0, "<19Q")[16:]
        assert words(path, directory, "<2Q") == (0x1000000000000000, 0x1000000000000001)
        entries = words(path, tables, "<7Q")
        assert entries[:3] == (0, 1 << 60, 2 << 60)
        assert entries[3:6] == (0x3FFE000000000005, 0x3FFF000000000005, 0x3000000000000006)
        assert entries[3] == vmdk_deltas.allocated(first)

    def test_zero_entries(self, tmp_path: Path) -> None:
        vmdk_kinds.write("monolithicSparse", tmp_path, "x", "64k:A 64k:0 64k:-", zeroed_grains=True)
        path = tmp_path / "x.vmdk"
        assert words(path, 0, "<III")[1:] == (2, 7)
        # Header, descriptor, redundant directory and table, directory.
        assert words(path, 1 + 20 + 1 + 4 + 1, "<3I") == (128, 1, 0)
        assert words(path, 1 + 20 + 1, "<3I") == (128, 1, 0)

    def test_stream_from_front_to_end(self, tmp_path: Path) -> None:
        image = vmdk_kinds.write("streamOptimized", tmp_path, "x", LARGE)
        magic, version, flags = words(image.path, 0, "<III")
        assert (magic, version, flags) == (0x564D444B, 3, 0x30001)
        assert words(image.path, 0, "<12xQQQQIQQQ")[6] == vmdk_sparse.GD_AT_END
        data, markers = self._walk(image.path)
        assert markers == ["grains", 1, "grains", 1, 2, 3, 0]
        seen = b"".join(data.get(start, bytes(65536)) for start in range(0, image.disk.size, 65536))
        assert seen[: image.disk.size] == image.disk.read(0, image.disk.size)
        assert all(grain.strip(b"\0") for grain in data.values())

    def _walk(self, path: Path) -> tuple[dict[int, bytes], list[object]]:
        """Follow the markers as one who reads but once: grains by offset, and the types of the markers."""
        content, position = path.read_bytes(), 128 * 512
        data: dict[int, bytes] = {}
        markers: list[object] = []
        while position < len(content):
            value, size, kind = struct.unpack_from("<QII", content, position)
            if size:
                data[value * 512] = zlib.decompress(content[position + 12 : position + 12 + size])
                position += -(-(12 + size) // 512) * 512
                markers += [] if markers[-1:] == ["grains"] else ["grains"]
            else:
                markers.append(kind)
                position += 512 + value * 512
        return data, markers

    def test_zero_extents(self, tmp_path: Path) -> None:
        image = vmdk_kinds.write("vmfsExtents", tmp_path, "x", "1M:- 64k:A 64k:0 512:b 3M:- 512:C 40k:- 1M:-")
        parts = []
        for line in image.path.read_text().splitlines():
            if line.startswith("RW "):
                _, sectors, kind, *name = line.split()
                part = (tmp_path / name[0].strip('"')).read_bytes() if name else bytes(int(sectors) * 512)
                assert (len(part), kind) == (int(sectors) * 512, "VMFS" if name else "ZERO")
                parts.append(part)
        assert len(parts) == 6 - 1
        assert b"".join(parts) == image.disk.read(0, image.disk.size)
        assert f"({image.disk.size} bytes)" in run("vmdkinfo", image.path)
        # Why qemu-img is no oracle here.
        assert virtual_size(image) < image.disk.size

    def test_extents_of_a_split_disk(self, tmp_path: Path) -> None:
        image = vmdk_kinds.write("twoGbMaxExtentSparse", tmp_path, "x", "5M:A", split=2 * MIB)
        names = ["x.vmdk", "x-s001.vmdk", "x-s002.vmdk", "x-s003.vmdk"]
        assert [path.name for path in image.files] == names
        assert [words(path, 0, "<12xQQQ") for path in image.files[1:]] == [(4096, 128, 0)] * 2 + [
            (2048, 128, 0)
        ]
        flat = vmdk_kinds.write("twoGbMaxExtentFlat", tmp_path, "y", "5M:A", split=2 * MIB)
        assert [path.stat().st_size for path in flat.files[1:]] == [2 * MIB, 2 * MIB, MIB]

    def test_a_seed_moves_grains_in_the_file(self, tmp_path: Path) -> None:
        for kind in vmdk_kinds.WITH_PARENT:
            plain = vmdk_kinds.write(kind, tmp_path, "x", "4M:A").files[-1].read_bytes()
            mixed = vmdk_kinds.write(kind, tmp_path, "x", "4M:A", seed=1).files[-1].read_bytes()
            assert len(plain) == len(mixed)
            assert plain != mixed


class TestOtherReaders:
    @pytest.mark.parametrize(
        "kind", ["vmfs", "monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
    )
    def test_7z_extracts_the_same(self, tmp_path: Path, kind: str) -> None:
        image = vmdk_kinds.write(kind, tmp_path, "x", LARGE)
        run("7z", "e", f"-o{tmp_path}/out", image.path)
        (extracted,) = (tmp_path / "out").iterdir()
        assert run("sha256sum", extracted).split()[0] == patterns.expected_sha256(LARGE)

    @pytest.mark.parametrize("kind", sorted({kind for kind, _ in WHOLE} - {"seSparse"}))
    def test_libvmdk_reads_the_size(self, tmp_path: Path, kind: str) -> None:
        image = vmdk_kinds.write(kind, tmp_path, "x", LARGE)
        assert f"({image.disk.size} bytes)" in run("vmdkinfo", image.path)

    def test_whole_sectors_only(self) -> None:
        with pytest.raises(ValueError, match="whole sectors"):
            disk("1000:A")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> notes_machine.NotesMachine:
    return notes_machine.build(tmp_path_factory.mktemp("notes") / notes_machine.NAME)


class TestNotesMachine:
    def test_files(self, machine: notes_machine.NotesMachine) -> None:
        name = notes_machine.NAME
        sizes = {path.name: path.stat().st_size for path in machine.directory.iterdir()}
        assert sizes.keys() == {
            *(name + suffix for suffix in (".vmx", ".vmx~", ".vmxf", ".vmsd", ".nvram", ".vmx.lck")),
            *(name + suffix for suffix in (".vmdk", "-flat.vmdk", "_1.vmdk", "_1-flat.vmdk")),
            *(notes_machine.SWAP, notes_machine.WORLD_SWAP, "vmware.log"),
        }
        assert sizes[f"{name}-flat.vmdk"] == 32 << 30
        assert sizes[f"{name}_1-flat.vmdk"] == 384 << 30
        assert sizes[notes_machine.SWAP] == 8 << 30
        assert sizes[f"{name}.vmsd"] == sizes[f"{name}.vmx.lck"] == 0
        assert sum(path.stat().st_blocks for path in machine.directory.iterdir()) * 512 < 200 * MIB

    def test_disks(self, machine: notes_machine.NotesMachine) -> None:
        for one in machine.disks:
            told = json.loads(run("qemu-img", "info", "--output=json", one.descriptor))
            assert (told["format"], told["virtual-size"]) == ("vmdk", one.size)
            assert told["format-specific"]["data"]["create-type"] == "vmfs"
            run("sfdisk", "--verify", one.flat)
            for partition in one.partitions:
                found = run("blkid", "-p", "-O", str(partition.start), "-S", str(partition.length), one.flat)
                assert f'TYPE="{partition.filesystem}"' in found
                assert partition.uuid in found

    def test_file_systems(self, machine: notes_machine.NotesMachine, tmp_path: Path) -> None:
        system, data = machine.disks
        run("e2fsck", "-fn", f"{system.flat}?offset={system.partitions[0].start}")
        run("e2fsck", "-fn", f"{data.flat}?offset={data.partitions[0].start}")
        root = system.partitions[1]
        copy = tmp_path / "root.img"
        with system.flat.open("rb") as reader, copy.open("wb") as writer:
            for piece in patterns.pieces_of_raw(system.flat):
                if piece.is_data and piece.end > root.start:
                    start = max(piece.start, root.start)
                    reader.seek(start)
                    writer.seek(start - root.start)
                    writer.write(reader.read(piece.end - start))
            writer.truncate(root.length)
        run("xfs_repair", "-n", "-f", copy)

    def test_description(self, machine: notes_machine.NotesMachine) -> None:
        lines = machine.vmx.read_text().splitlines()
        keys = [line.partition(" = ")[0] for line in lines]
        assert len(keys) == len(set(keys))
        assert all(line.count('"') == 2 for line in lines)
        assert 'scsi0:1.fileName = "054_c7_workspace_1.vmdk"' in lines
        assert "scsi0:1.fileName" not in (machine.directory / f"{notes_machine.NAME}.vmx~").read_text()
