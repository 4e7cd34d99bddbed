"""streamOptimized VMDKs that imgtool writes, field by field; and those of others that lie."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import patterns, vmdk_kinds
from imgtool.errors import DamagedError, UsageError
from imgtool.formats.vmdk import descriptor, stream, unstream, write
from imgtool.model import ConvertResult, ImageSpec
from imgtool.progress import Control
from imgtool.steps.convert import convert
from tests import oracle, stream_reader, targets
from tests.images import LARGE, READABLE, SMALL, Source
from tests.program import imgtool
from tests.stream_reader import AT_END, DIRECTORY, END, ENTRIES, FOOTER, GRAIN, GRAIN_BYTES, SECTOR, TABLE, Metadata, Streamed
from tests.targets import Goal

STREAM = Goal("vmdk", subformat="streamOptimized")
COVERED = GRAIN_BYTES * ENTRIES
DISKS = {
    "small": SMALL,
    "large": LARGE,
    "one-sector": "512:A",
    "empty": "3M:-",
    "empty-odd": "65M:- 512:-",
    "one-grain": "64k:b",
    "one-table": "64k:A 32640k:- 64k:B",
    "a-sector-over-one-table": "64k:A 32704k:- 512:C",
    "every-grain-of-a-table": "32M:a 64k:b",
    "many-tables": "64k:A 70M:- 100k:b 5G:- 1M:0 8M:- 512:C",
    "a-table-without-grains": "1M:a 63M:- 64k:0 100M:- 1M:B",
    "zeros-only": "2M:0 512:0",
    "odd-end": "130k:A 33M:- 70k:b 1536:c",
}
FROM = ("raw", "qcow2-1.1", "qcow2-zlib", "qcow2-zstd", "vmdk-streamOptimized", "vmdk-streamOptimized-clipped",
        "qemu-streamOptimized", "vmdk-monolithicSparse", "chain-on-streamOptimized")


def written(source: Source, folder: Path, level: int | None = None) -> tuple[Path, ConvertResult]:
    """Converted in this process."""
    spec = ImageSpec(format="vmdk", subformat="streamOptimized", compress_level=level)
    request = targets.request(source, STREAM, folder)
    made = convert(replace(request, spec=spec), Control())
    assert (made.engine, made.detected_zeroes) == ("stream", True)
    return Path(made.destination), made


def check_header(streamed: Streamed, size: int) -> None:
    header = streamed.header
    assert header.magic == 0x564D444B
    assert header.version == 3
    assert header.flags == 1 | 1 << 16 | 1 << 17, "line ends, compressed grains, markers; no redundant tables, no zero grains"
    assert header.capacity * SECTOR == size
    assert (header.grain, header.entries, header.compression) == (GRAIN, ENTRIES, 1)
    assert (header.descriptor, header.descriptor_size) == (1, 20)
    assert header.overhead >= header.descriptor + header.descriptor_size
    assert header.overhead % GRAIN == 0
    assert (header.redundant, header.directory, header.unclean) == (0, AT_END, 0)
    assert header.newlines == b"\n \r\n"
    assert not header.pad.strip(b"\0")
    footer = streamed.footer
    assert footer._replace(directory=AT_END) == header
    (directory,) = streamed.metadata(DIRECTORY)
    assert footer.directory == directory.sector + 1
    assert re.search(r'^createType="streamOptimized"$', streamed.descriptor, re.MULTILINE), streamed.descriptor
    (line,) = re.findall(r"^(?:RW|RDONLY) (\d+) SPARSE \"[^\"]+\"$", streamed.descriptor, re.MULTILINE)
    assert int(line) * SECTOR == size


def check_order(streamed: Streamed) -> None:
    """Grains in ascending order, each table behind its grains, then directory, footer, end."""
    *body, directory, footer, end = streamed.records
    assert [one.kind for one in (directory, footer, end) if isinstance(one, Metadata)] == [DIRECTORY, FOOTER, END]
    held: dict[int, int] = {}
    tables: dict[int, int] = {}
    last = -1
    for record in body:
        if isinstance(record, Metadata):
            assert record.kind == TABLE
            assert held, "a grain table without grains"
            (number,) = {index // ENTRIES for index in held}
            assert number not in tables
            assert stream_reader.numbers(record.raw) == [held.get(number * ENTRIES + at, 0) for at in range(ENTRIES)]
            tables[number] = record.sector + 1
            held = {}
        else:
            assert record.lba % GRAIN == 0
            assert last < record.lba < streamed.header.capacity
            last = record.lba
            held[record.lba // GRAIN] = record.sector
            assert len(record.data) == GRAIN_BYTES
            assert record.data.count(0) < GRAIN_BYTES, f"the grain at {record.lba} is zeros"
    assert not held, "grains without a table"
    count = max(1, -(-streamed.header.capacity * SECTOR // COVERED))
    assert isinstance(directory, Metadata)
    entries = stream_reader.numbers(directory.raw)
    assert len(directory.raw) == -(-count * 4 // SECTOR) * SECTOR
    assert entries == [tables.get(number, 0) for number in range(len(entries))]


def check_content(streamed: Streamed, raw: Path) -> None:
    """All grains of the disk that are not zeros, and what is in them; the last one is filled up with zeros."""
    size, inside = raw.stat().st_size, {}
    for grain in streamed.grains:
        inside[grain.lba * SECTOR] = grain.data
    with raw.open("rb") as file:
        for start, data in inside.items():
            file.seek(start)
            assert file.read(GRAIN_BYTES).ljust(GRAIN_BYTES, b"\0") == data
    assert all(start < size for start in inside)


def grains_of(pattern: str) -> set[int]:
    """Offsets of the grains in which a pattern has something else than zeros."""
    return {index * GRAIN_BYTES for piece in patterns.parse(pattern) if piece.is_data
            for index in range(piece.start // GRAIN_BYTES, -(-piece.end // GRAIN_BYTES))}


@pytest.mark.parametrize("name", DISKS)
def test_every_field(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    source = READABLE["raw"](tmp_path / "x", DISKS[name])
    path, made = written(source, tmp_path)
    streamed = stream_reader.read(path.read_bytes())
    check_header(streamed, source.size)
    check_order(streamed)
    check_content(streamed, source.path)
    assert {grain.lba * SECTOR for grain in streamed.grains} == grains_of(DISKS[name])
    assert (made.engine, made.bytes_written, made.bytes_cloned) == ("stream", path.stat().st_size, 0)
    assert oracle.virtual_size(path, "vmdk") == source.size
    oracle.same(path, "vmdk", source.path, "raw")
    oracle.clean(path, "vmdk")
    told = oracle.tool("vmdkinfo", path).stdout
    assert re.search(r"Disk type:\s*Stream optimized", told), told
    assert f"({source.size} bytes)" in told or f": {source.size} bytes" in told, told


@pytest.mark.parametrize("level", range(1, 10))
def test_levels(tmp_path: Path, level: int) -> None:
    (tmp_path / "x").mkdir()
    source = READABLE["raw"](tmp_path / "x", "3M:a 1M:A 1M:- 100k:b 512:c")
    path = tmp_path / "y.vmdk"
    done = imgtool("convert", source.path, path, *STREAM.words, "--compress-level", level)
    assert done.returncode == 0, done.stderr
    streamed = stream_reader.read(path.read_bytes())
    check_header(streamed, source.size)
    check_order(streamed)
    check_content(streamed, source.path)
    text = sum(grain.packed for grain in streamed.grains if grain.lba < (3 << 20) // SECTOR)
    assert text < (3 << 20) // 4, "text became no smaller"
    oracle.same(path, "vmdk", source.path, "raw")


@pytest.mark.parametrize("kind", FROM)
def test_from(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x").mkdir()
    source = READABLE[kind](tmp_path / "x", "64k:A 1M:- 200k:b 300k:0 512:C 33M:- 7k:D 64k:0 300k:a 1536:B")
    raw = targets.seen(source, tmp_path / "raw")
    path, _ = written(source, tmp_path)
    streamed = stream_reader.read(path.read_bytes())
    check_header(streamed, source.size)
    check_order(streamed)
    check_content(streamed, raw)
    oracle.same(path, "vmdk", raw, "raw")


# --- streams of others, that lie ------------------------------------------------------------------------------------------

LIAR = "64k:a 64k:B 1M:- 128k:c 40M:- 64k:d 1536:E"
Edit = Callable[[bytearray, Streamed], "bytes | bytearray"]


def _marker(number: int, *, lba: int = 0, size: int | None = None) -> Edit:
    """The marker of a grain, with a number added to its place, or with another size."""
    def edit(raw: bytearray, streamed: Streamed) -> bytearray:
        grain = streamed.grains[number]
        struct.pack_into("<QI", raw, grain.sector * SECTOR, grain.lba + lba, grain.packed if size is None else size)
        return raw

    return edit


def _payload(number: int, make: Callable[[bytes], bytes]) -> Edit:
    """Another payload in the place of a grain's; what is longer is not for this."""
    def edit(raw: bytearray, streamed: Streamed) -> bytearray:
        grain = streamed.grains[number]
        payload = make(grain.data)
        begin = grain.sector * SECTOR
        room = -(-(12 + grain.packed) // SECTOR) * SECTOR
        assert 12 + len(payload) <= room
        raw[begin:begin + room] = struct.pack("<QI", grain.lba, len(payload)) + payload.ljust(room - 12, b"\0")
        return raw

    return edit


def _cut(sectors: int) -> Edit:
    return lambda raw, _: raw[:-sectors * SECTOR]


def _half(raw: bytearray, _: Streamed) -> bytearray:
    return raw[:len(raw) // 2 // SECTOR * SECTOR]


def _flip(number: int, at: int) -> Edit:
    """One bit of a grain's payload; -1 is in the checksum."""
    def edit(raw: bytearray, streamed: Streamed) -> bytearray:
        grain = streamed.grains[number]
        raw[grain.sector * SECTOR + 12 + at % grain.packed] ^= 0x10
        return raw

    return edit


def _swapped(raw: bytearray, streamed: Streamed) -> bytearray:
    """A table in which two grains have each other's place."""
    table = streamed.metadata(TABLE)[0]
    at = (table.sector + 1) * SECTOR
    raw[at:at + 8] = raw[at + 4:at + 8] + raw[at:at + 4]
    return raw


def _entry(value: Callable[[bytearray], int]) -> Edit:
    def edit(raw: bytearray, streamed: Streamed) -> bytearray:
        struct.pack_into("<I", raw, (streamed.metadata(TABLE)[0].sector + 1) * SECTOR, value(raw))
        return raw

    return edit


def _not_compressed(raw: bytearray, streamed: Streamed) -> bytearray:
    """The footer counts. Its flags say so, its method says that they are."""
    at = len(raw) - 2 * SECTOR
    struct.pack_into("<I", raw, at + 8, struct.unpack_from("<I", raw, at + 8)[0] & ~(1 << 16))
    return raw


LIES: dict[str, Edit] = {
    "compressed-and-not": _not_compressed,
    "lba-next": _marker(0, lba=GRAIN),
    "lba-by-one": _marker(1, lba=1),
    "lba-far": _marker(2, lba=1 << 50),
    "size-0": _marker(1, size=0),
    "size-1": _marker(1, size=1),
    "size-behind-the-file": _marker(-1, size=1 << 28),
    "size-4G": _marker(0, size=0xFFFFFFFF),
    "footer-without-end": _cut(1),
    "footer-cut-off": _cut(2),
    "marker-of-the-footer-last": _cut(3),
    "half": _half,
    "garbage": _payload(1, lambda data: b"\xa5" * 40000),
    "nothing-but-zeros": _payload(1, lambda data: bytes(100)),
    "unpacks-to-less": _payload(0, lambda data: zlib.compress(data[:-1])),
    "unpacks-to-nothing": _payload(0, lambda data: zlib.compress(b"")),
    "unpacks-to-more": _payload(0, lambda data: zlib.compress(bytes(GRAIN_BYTES + 1))),
    "unpacks-to-much-more": _payload(1, lambda data: zlib.compress(bytes(32 << 20))),
    "a-bit-in-the-middle": _flip(1, 30000),
    "a-bit-in-the-checksum": _flip(1, -1),
    "two-grains-swapped": _swapped,
    "an-entry-in-the-header": _entry(lambda raw: 0x7FFFFFFF),
    "an-entry-at-the-end": _entry(lambda raw: len(raw) // SECTOR - 1),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(tmp_path: Path, lie: str) -> None:
    image = vmdk_kinds.write("streamOptimized", tmp_path, "x", LIAR)
    raw = image.path.read_bytes()
    image.path.write_bytes(LIES[lie](bytearray(raw), stream_reader.read(raw)))
    for fmt in ("raw", "qcow2"):
        done = imgtool("convert", image.path, "--to", fmt)
        assert done.returncode == 5, (done.stdout, done.stderr)
        assert done.stderr.startswith("error: "), done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["x.vmdk"]


def test_the_honest_one_is_read(tmp_path: Path) -> None:
    """What the lies are made of."""
    image = vmdk_kinds.write("streamOptimized", tmp_path, "x", LIAR)
    assert imgtool("convert", image.path, "--to", "raw").returncode == 0
    assert (tmp_path / "x.raw").read_bytes() == patterns.write_raw(tmp_path / "wanted", LIAR).read_bytes()


# --- as they come over a network, front to end ------------------------------------------------------------------------------


def _header_field(at: int, form: str, value: int) -> Edit:
    def edit(raw: bytearray, _: Streamed) -> bytearray:
        struct.pack_into(form, raw, at, value)
        return raw

    return edit


def _metadata_of(sectors: int) -> Edit:
    """The marker of the first table speaks of so many sectors."""
    def edit(raw: bytearray, streamed: Streamed) -> bytearray:
        struct.pack_into("<Q", raw, streamed.metadata(TABLE)[0].sector * SECTOR, sectors)
        return raw

    return edit


INCOMING_LIES: dict[str, tuple[Edit, str]] = {
    "no VMDK": (_header_field(0, "<I", 0), "no streamOptimized VMDK"),
    "no markers": (_header_field(8, "<I", 1), "no streamOptimized VMDK"),
    "not packed": (_header_field(77, "<H", 0), "no streamOptimized VMDK"),
    "of another size": (_header_field(12, "<Q", 8), "has 4096 bytes, and the disk"),
    "no grains": (_header_field(20, "<Q", 0), "header is damaged"),
    "odd grains": (_header_field(20, "<Q", 127), "header is damaged"),
    "huge grains": (_header_field(20, "<Q", 1 << 20), "header is damaged"),
    "no room before": (_header_field(64, "<Q", 0), "header is damaged"),
    "metadata without end": (_metadata_of(1 << 40), "sectors of metadata"),
    "a grain again": (_marker(1, lba=-GRAIN), "out of order"),
    "between grains": (_marker(1, lba=1), "out of order"),
    "behind the disk": (_marker(-1, lba=1 << 40), "out of order"),
    "a grain too large": (_marker(0, size=0xFFFFFFFF), "impossible"),
    "unpacks to less": (_payload(0, lambda data: zlib.compress(data[:-1])), "does not unpack"),
    "unpacks to more": (_payload(0, lambda data: zlib.compress(bytes(GRAIN_BYTES + 1))), "does not unpack"),
}


def incoming(raw: bytes, size: int) -> dict[int, bytes]:
    file = io.BytesIO(raw)
    return {start: bytes(piece) for start, piece in unstream.grains(file.read, size, "x")}


@pytest.mark.parametrize("lie", INCOMING_LIES)
def test_a_lie_is_found_as_it_comes(tmp_path: Path, lie: str) -> None:
    image = vmdk_kinds.write("streamOptimized", tmp_path, "x", LIAR)
    raw, size = image.path.read_bytes(), patterns.size(LIAR)
    assert incoming(raw, size)
    edit, words = INCOMING_LIES[lie]
    with pytest.raises(DamagedError, match=words):
        incoming(bytes(edit(bytearray(raw), stream_reader.read(raw))), size)


def test_what_a_grain_has_behind_the_disks_end_is_not_taken(tmp_path: Path) -> None:
    pieces = patterns.parse("1M:A 5k:B")
    raw, size = vmdk_kinds.write("streamOptimized", tmp_path, "x", pieces).path.read_bytes(), patterns.size(pieces)
    for last in (b"B" * 5120, (b"B" * 5120).ljust(GRAIN_BYTES, b"\1")):
        edited = _payload(-1, lambda _, last=last: zlib.compress(last))
        found = incoming(bytes(edited(bytearray(raw), stream_reader.read(raw))), size)
        assert found[1 << 20] == b"B" * 5120
        assert sum(len(piece) for piece in found.values()) == size


# --- what a sparse VMDK has no room for --------------------------------------------------------------------------------------


def test_a_descriptor_that_would_lie_on_the_tables_is_refused(tmp_path: Path) -> None:
    long = b"#" * (20 * SECTOR + 1)
    with pytest.raises(UsageError, match="too long"):
        stream.Stream(1 << 20, long)
    one = write.SparseFile(str(tmp_path), "x.vmdk", 1 << 20, embedded=True, whole=False)
    with pytest.raises(UsageError, match="too long"):
        one.finish(long)
    one.close()
    many = (descriptor.ExtentLine("RW", 8, "FLAT", "n" * 240),) * descriptor.MAX_EXTENTS
    with pytest.raises(UsageError, match="do not fit"):
        descriptor.render("twoGbMaxExtentFlat", many, adapter="ide", hardware="8", tools=None, thin=False)


def test_more_than_32_bits_of_sectors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut to 32 bits, the places of grains would be those of others."""
    monkeypatch.setattr(write, "MAX_SECTOR", 1 << 10)
    one = write.SparseFile(str(tmp_path), "x.vmdk", 1 << 20, embedded=True, whole=False)
    with pytest.raises(UsageError, match="at most 2 TiB") as caught:
        list(one.place(0, 1 << 20))
    one.close()
    assert "monolithicFlat" in str(caught.value.hint)
    monkeypatch.setattr(stream, "MAX_SECTOR", 1 << 7)
    two = stream.Stream(1 << 20, b"#")
    two.begin()
    with pytest.raises(UsageError, match="at most 2 TiB"):
        list(two.grains(stream.joined([(0, b"A" * 600)])))


def test_an_adapter_that_vmware_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="adapter_type=virtio: one of lsilogic"):
        write.check_options(ImageSpec(format="vmdk", options=(("adapter_type", "virtio"),)), "x.vmdk", 1 << 20)
