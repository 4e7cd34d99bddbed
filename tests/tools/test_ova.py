"""OVAs: read where they lie, whoever packed them; refused where they are hostile; written so that tar and sha256sum agree."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import resource
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from fixtures import patterns
from imgtool import qemu, storage
from imgtool.copying.compare import compare
from imgtool.copying.stream import stream
from imgtool.descriptions import ovf
from imgtool.errors import DamagedError, DifferError, ImgtoolError, NoSpaceError
from imgtool.formats.disk import Disk, open_disk
from imgtool.formats.locks import hold, refuse_if_used
from imgtool.formats.vmdk.write import stream_descriptor
from imgtool.model import ImageSpec
from imgtool.model.devices import Bus, Controller, DiskSlot
from imgtool.model.machine import Machine, Memory
from imgtool.model.package import FileReference
from imgtool.ova import disks
from imgtool.ova.disks import open_file
from imgtool.ova.manifest import check_manifest, parse_manifest
from imgtool.ova.read import MAX_HEADERS, Package, read_ova, read_ovf
from imgtool.ova.write import OvaWriter, _header
from imgtool.progress import Control
from imgtool.steps.machine import _reference
from tests.images import READABLE, SMALL, Source
from tests.oracle import same, tool
from tests.program import ROOT

TEXT = (ROOT / "fixtures" / "descriptions" / "ovf" / "virtualbox-7.ovf").read_bytes()
DISKS = ("vmdk-streamOptimized", "vmdk-monolithicSparse", "qcow2-extended", "qcow2-zlib", "qcow2-zstd", "raw")
CONTROL = Control()


def packed(path: Path, members: dict[str, bytes | Path], form: int = tarfile.USTAR_FORMAT) -> Path:
    """An archive by Python's tarfile."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            raw = data.read_bytes() if isinstance(data, Path) else data
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def readable(kind: str, directory: Path) -> Source:
    directory.mkdir()
    return READABLE[kind](directory, SMALL)


@contextmanager
def opened(package: Package, href: str, folder: Path, *, gzip: bool = False, chunked: bool = False) -> Iterator[Disk]:
    with open_file(package, FileReference(href=href, gzip=gzip, chunked=chunked), str(folder), CONTROL.stop) as disk:
        yield disk


def dumped(disk: Disk, path: Path) -> Path:
    """The guest's bytes, as imgtool reads them."""
    with path.open("wb") as file:
        file.truncate(disk.virtual_size)
        for extent in disk.content():
            if extent.kind == 0:
                file.seek(extent.start)
                file.write(disk.read(extent))
    return path


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_is_read_where_it_lies(tmp_path: Path, kind: str) -> None:
    source = readable(kind, tmp_path / "disk")
    name = source.path.name
    ova = packed(tmp_path / "x.ova", {"x.ovf": TEXT, name: source.path, "z.bin": b"\xff" * 100_000})
    expected = patterns.write_raw(tmp_path / "expected.raw", SMALL)
    before = set(tmp_path.rglob("*"))
    with opened(read_ova(str(ova)), name, tmp_path) as disk:
        assert disk.virtual_size == source.size
        assert all(file.base > 0 for file in disk.files)
        refuse_if_used(disk)
        hold(disk)
        with open_disk(str(source.path)) as plain:
            assert compare(disk, plain, CONTROL).identical
        assert set(tmp_path.rglob("*")) == before, "something was unpacked"
        same(dumped(disk, tmp_path / "read.raw"), "raw", expected, "raw")
        qemu.convert(disk.graph(), str(tmp_path / "qemu.raw"), "raw", options=(), compress=False, size=source.size,
                     control=CONTROL)
    same(tmp_path / "qemu.raw", "raw", expected, "raw")


def test_a_last_cluster_that_is_cut_ends_with_its_member(tmp_path: Path) -> None:
    """Behind the end of a member there are other bytes, not zeros: they are never the disk's."""
    plain = patterns.write_raw(tmp_path / "x.raw", "256k:A 512:B 65024:-")
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", plain, tmp_path / "x.qcow2")
    cut = (tmp_path / "x.qcow2").read_bytes().rstrip(b"\0")
    ova = packed(tmp_path / "x.ova", {"x.ovf": TEXT, "x.qcow2": cut, "z.bin": b"\xff" * 200_000})
    with opened(read_ova(str(ova)), "x.qcow2", tmp_path) as disk:
        same(dumped(disk, tmp_path / "read.raw"), "raw", plain, "raw")


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
def test_whoever_packed_it(tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    for name, data in {"x.ovf": TEXT, "d.vmdk": b"d" * 1000, "._x.ovf": b"resource fork"}.items():
        (tmp_path / "in" / name).write_bytes(data)
    tool("tar", f"--format={form}", "-cf", tmp_path / "x.ova", "-C", tmp_path / "in", ".")
    package = read_ova(str(tmp_path / "x.ova"))
    assert package.text == TEXT
    assert {member.name: member.size for member in package.members or ()} == {"x.ovf": len(TEXT), "d.vmdk": 1000}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    name = "ü" * 120 + ".vmdk"
    ova = packed(tmp_path / "x.ova", {"x.ovf": TEXT, name: b"abc"}, form)
    package = read_ova(str(ova))
    member = (package.members or ())[1]
    assert (member.name, ova.read_bytes()[member.offset:][:member.size]) == (name, b"abc")


def test_a_member_of_nine_gib(tmp_path: Path) -> None:
    size = 9 << 30
    with (tmp_path / "x.ova").open("wb") as file:
        file.write(_header("x.ovf", len(TEXT)) + TEXT.ljust(-(-len(TEXT) // 512) * 512, b"\0") + _header("big.vmdk", size))
        begin = file.tell()
        file.truncate(begin + size + 1024)
    package = read_ova(str(tmp_path / "x.ova"))
    assert [(member.name, member.offset, member.size) for member in package.members or ()][1] == ("big.vmdk", begin, size)
    assert str(size) in tool("tar", "tvf", tmp_path / "x.ova").stdout


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
def test_the_manifest_is_checked(tmp_path: Path, algorithm: str) -> None:
    disk = b"disk" * 500_000
    lines = [f"{algorithm}({name})= {hashlib.new(algorithm.lower(), data).hexdigest()}"
             for name, data in {"x.ovf": TEXT, "d.vmdk": disk}.items()]
    manifest = "\r\n".join([*lines, "what is this?", ""]).encode()
    good = read_ova(str(packed(tmp_path / "good.ova", {"x.ovf": TEXT, "x.mf": manifest, "d.vmdk": disk, "x.cert": b"?"})))
    assert [word in warning for word, warning in zip(["what is this?"], check_manifest(good, CONTROL), strict=True)] == [True]
    assert ["signed" in warning for warning in good.warnings] == [True]
    bad = packed(tmp_path / "bad.ova", {"x.ovf": TEXT, "x.mf": manifest, "d.vmdk": disk[:-1] + b"!"})
    with pytest.raises(DifferError, match=r"'d\.vmdk' is not what the manifest says"):
        check_manifest(read_ova(str(bad)), CONTROL)


def test_what_a_manifest_leaves_out_is_said(tmp_path: Path) -> None:
    lines = [f"SHA256(x.ovf)= {hashlib.sha256(TEXT).hexdigest()}", f"SHA256(gone.vmdk)= {'0' * 64}", f"SHA1(x.ovf)= {'0' * 64}"]
    manifest = "\n".join(lines).encode()
    package = read_ova(str(packed(tmp_path / "x.ova", {"x.ovf": TEXT, "x.mf": manifest, "d.vmdk": b"d"})))
    said = check_manifest(package, CONTROL)
    assert [any(word in one for one in said) for word in ("'gone.vmdk', which is not there", "nothing of 'd.vmdk'",
                                                          "no checksum")] == [
        True, True, True]
    assert "no manifest" in check_manifest(read_ova(str(packed(tmp_path / "y.ova", {"x.ovf": TEXT}))), CONTROL)[0]


def special(kind: bytes) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("x.vmdk")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
            described = tarfile.TarInfo("x.ovf")
            described.size = len(TEXT)
            archive.addfile(described, io.BytesIO(TEXT))

    return build


def members(*names: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(TEXT)
                archive.addfile(info, io.BytesIO(TEXT))

    return build


def sized_header(size: bytes, then: bytes = b"") -> Callable[[Path], None]:
    """A header with this size field, and its checksum right."""
    def build(path: Path) -> None:
        header = bytearray(_header("x.ovf", 0))
        header[124:136] = size.ljust(12, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        path.write_bytes(bytes(header) + then)

    return build


def huge_name(path: Path) -> None:
    """A GNU long name of 2 GiB, in a sparse file."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(3 << 30)


def many_long_names(path: Path) -> None:
    """Headers that belong to each other without end: deep recursion in a simple reader."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")) * 5000)


def cut_off(path: Path) -> None:
    packed(path, {"x.ovf": TEXT, "d.vmdk": b"d" * 100_000})
    os.truncate(path, 50_000)


def damaged_header(path: Path) -> None:
    packed(path, {"x.ovf": TEXT, "d.vmdk": b"d" * 1000})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"d.vmdk\0")
    raw[at + 148] ^= 1
    path.write_bytes(raw)


def sparse_description(path: Path) -> None:
    with path.open("wb") as file:
        file.write(_header("x.ovf", 1 << 30))
        file.truncate((1 << 30) + 2048)


def left_out(size: int) -> Callable[[Path], None]:
    """A file that macOS adds, which nobody looks at; but its size leads back to headers that were read before."""
    def build(path: Path) -> None:
        info = tarfile.TarInfo("._x")
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        path.write_bytes(_header("._a", 0) + bytes(header) + bytes(2048))

    return build


HOSTILE: dict[str, tuple[int, str, Callable[[Path], None]]] = {
    "absolute": (4, "leads out", members("x.ovf", "/etc/cron.d/x")), "parent": (4, "leads out", members("x.ovf", "../../x")),
    "hidden parent": (4, "leads out", members("x.ovf", "a/../../x")),
    "symbolic link": (4, "no plain file", special(tarfile.SYMTYPE)),
    "hard link": (4, "no plain file", special(tarfile.LNKTYPE)), "device": (4, "no plain file", special(tarfile.BLKTYPE)),
    "fifo": (4, "no plain file", special(tarfile.FIFOTYPE)), "twice": (4, "twice", members("x.ovf", "d.vmdk", "./d.vmdk")),
    "two descriptions": (5, "2 descriptions", members("a.ovf", "b.ovf")), "no description": (5, "no .ovf", members("a.vmdk")),
    "size beyond the end": (5, "beyond the end|sound tar", sized_header(b"77777777777")),
    "negative size": (5, "negative|beyond the end|sound tar|larger than", sized_header(b"\xff" * 12, b"x" * 2048)),
    "leads back before the beginning": (5, "negative size|sound tar", left_out(-4096)),
    "leads back to itself": (5, "more than 10000 members|sound tar", left_out(-512)),
    "huge size": (5, "beyond the end|sound tar|larger", sized_header(b"\x80" + b"\x7f" * 11, b"x" * 2048)),
    "huge description": (5, "more than", sparse_description),
    "huge name": (5, "tar headers are larger", huge_name), "many long names": (5, "sound tar", many_long_names),
    "cut off": (5, "beyond the end|sound tar", cut_off), "damaged header": (5, "no tar header", damaged_header),
    "gzip": (5, "sound tar", lambda path: path.write_bytes(gzip.compress(TEXT)) and None),
    "text": (5, "sound tar", lambda path: path.write_bytes(TEXT) and None),
    "empty": (5, "", lambda path: path.write_bytes(b"") and None),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile(tmp_path: Path, what: str) -> None:
    code, words, build = HOSTILE[what]
    build(tmp_path / "x.ova")
    with pytest.raises(ImgtoolError) as raised:
        read_ova(str(tmp_path / "x.ova"))
    assert (raised.value.exit_code, bool(re.search(words, raised.value.message))) == (code, True), raised.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["x.ova"]
    assert MAX_HEADERS < 1 << 30


def test_a_disk_in_an_archive_names_no_other_file(tmp_path: Path) -> None:
    source = readable("vmdk-monolithicFlat", tmp_path / "disk")
    ova = packed(tmp_path / "x.ova", {"x.ovf": TEXT, "x.vmdk": source.path})
    package = read_ova(str(ova))
    with pytest.raises(ImgtoolError, match="a disk in an archive must be whole") as raised, opened(package, "x.vmdk", tmp_path):
        pass
    assert raised.value.exit_code == 4


def test_gzip_is_unpacked_into_the_workspace_and_gone_afterwards(tmp_path: Path) -> None:
    source = readable("vmdk-streamOptimized", tmp_path / "disk")
    whole = gzip.compress(source.path.read_bytes())
    package = read_ova(str(packed(tmp_path / "x.ova", {"x.ovf": TEXT, "d.vmdk.gz": whole, "cut.vmdk": whole[:-5000]})))
    folder = tmp_path / "work"
    folder.mkdir()
    with opened(package, "d.vmdk.gz", folder, gzip=True) as disk, open_disk(str(source.path)) as plain:
        assert compare(disk, plain, CONTROL).identical
    for href in ("cut.vmdk", "x.ovf"):
        with pytest.raises(ImgtoolError, match="gzip") as raised, opened(package, href, folder, gzip=True):
            pass
        assert raised.value.exit_code == 5
    assert list(folder.iterdir()) == []


def test_gzip_of_several_members_is_unpacked_whole(tmp_path: Path) -> None:
    half = os.urandom(3 << 20)
    source = gzip.compress(half) + gzip.compress(half[::-1]) + bytes(1 << 20)
    package = read_ova(str(packed(tmp_path / "x.ova", {
        "x.ovf": TEXT, "d.gz": source, "cut.gz": source[:-(1 << 20) - 3], "odd.gz": source + b"x"})))
    folder = tmp_path / "work"
    folder.mkdir()
    with opened(package, "d.gz", folder, gzip=True) as disk:
        assert dumped(disk, tmp_path / "raw").read_bytes() == half + half[::-1]
    for href in ("cut.gz", "odd.gz"):
        with pytest.raises(ImgtoolError, match="gzip") as raised, opened(package, href, folder, gzip=True):
            pass
        assert raised.value.exit_code == 5


def test_gzip_with_a_long_name_and_with_the_same_name(tmp_path: Path) -> None:
    """What it is unpacked into needs a name of its own, which a file system takes."""
    names = ["ü" * 126 + ".gz", "ü" * 150 + ".gz", "a/d.gz", "b/d.gz"]
    data = {name: os.urandom(1 << 20) for name in names}
    members = {"x.ovf": TEXT, **{name: gzip.compress(one) for name, one in data.items()}}
    package = read_ova(str(packed(tmp_path / "x.ova", members, tarfile.PAX_FORMAT)))
    folder = tmp_path / "work"
    folder.mkdir()
    with ExitStack() as stack:
        disks = {name: stack.enter_context(opened(package, name, folder, gzip=True)) for name in names}
        for number, (name, disk) in enumerate(disks.items()):
            assert dumped(disk, tmp_path / f"{number}").read_bytes() == data[name]
    assert list(folder.iterdir()) == []


def test_what_cannot_be_unpacked_leaves_nothing(tmp_path: Path) -> None:
    package = read_ova(str(packed(tmp_path / "x.ova", {"x.ovf": TEXT, "d.gz": gzip.compress(bytes(8 << 20))})))
    folder = tmp_path / "work"
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(ImgtoolError, match="unpacking"), opened(package, "d.gz", folder, gzip=True):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.iterdir()) == []


def test_pieces_that_were_joined_are_one_file(tmp_path: Path) -> None:
    """Whatever the folder is called."""
    folder = tmp_path / "export.20241128093000"
    source = readable("vmdk-streamOptimized", folder)
    (folder / "x.ovf").write_bytes(TEXT)
    with opened(read_ovf(str(folder / "x.ovf")), source.path.name, tmp_path, chunked=True) as disk:
        assert disk.virtual_size == source.size
    source.path.rename(f"{source.path}.000000001")
    with pytest.raises(ImgtoolError, match="cut in pieces"), opened(
            read_ovf(str(folder / "x.ovf")), source.path.name, tmp_path, chunked=True):
        pass


def test_a_missing_href_is_found_by_its_number(tmp_path: Path) -> None:
    source = readable("vmdk-streamOptimized", tmp_path / "disk")
    package = read_ova(str(packed(tmp_path / "x.ova", {
        "x.ovf": TEXT, "d.vmdk.000000000": b"old", "d.vmdk.000000001": source.path, "a b.vmdk": source.path})))
    for href in ("d.vmdk", "a%20b.vmdk"):
        with opened(package, href, tmp_path) as disk:
            assert disk.virtual_size == source.size
    with pytest.raises(ImgtoolError, match="cut in pieces"), opened(package, "d.vmdk", tmp_path, chunked=True):
        pass
    with pytest.raises(ImgtoolError, match=r"has no 'gone\.vmdk'"), opened(package, "gone.vmdk", tmp_path):
        pass


@pytest.mark.parametrize("href", ["../secret.vmdk", "/etc/passwd", "link.vmdk"])
def test_a_folder_is_not_left(tmp_path: Path, href: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.vmdk").write_bytes(b"secret")
    (tmp_path / "in" / "link.vmdk").symlink_to("../secret.vmdk")
    (tmp_path / "in" / "x.ovf").write_bytes(TEXT)
    with pytest.raises(ImgtoolError) as raised, opened(read_ovf(str(tmp_path / "in" / "x.ovf")), href, tmp_path):
        pass
    assert raised.value.exit_code == 4


def machine(sizes: dict[str, int]) -> Machine:
    slots = tuple(DiskSlot(path=name, unit=unit, format="vmdk", capacity=size, populated=0) for unit,
                  (name, size) in enumerate(sizes.items()))
    return Machine(name="x", memory=Memory(size=1 << 30), controllers=(Controller(bus=Bus.SCSI, model="lsilogic"),), disks=slots)


def streamed(source: Source, name: str) -> Iterator[bytes]:
    with open_disk(str(source.path)) as disk:
        descriptor = stream_descriptor(ImageSpec(format="vmdk", subformat="streamOptimized"), name, disk.virtual_size)
        yield from stream(disk, descriptor, CONTROL, level=1, counted=[])


def test_an_ova_is_written(tmp_path: Path) -> None:
    sources = {"x-disk1.vmdk": readable("qcow2-extended", tmp_path / "a"), "x-disk2.vmdk": readable("raw", tmp_path / "b")}
    text = ovf.render(machine({name: source.size for name, source in sources.items()})).text
    with OvaWriter(str(tmp_path), "x.ova", stem="x", room=len(text), disks=list(sources)) as ova:
        disks = [ova.add(name, streamed(source, name)) for name, source in sources.items()]
        packed_files = ova.finish(ovf.sized(text, disks))
    assert tool("tar", "tf", tmp_path / "x.ova").stdout.split() == ["x.ovf", "x.mf", *sources]
    out = tmp_path / "out"
    out.mkdir()
    tool("tar", "xf", tmp_path / "x.ova", "-C", out)
    lines = re.findall(r"^SHA256\((.+)\)= ([0-9a-f]{64})$", (out / "x.mf").read_text(), re.MULTILINE)
    assert [name for name, _ in lines] == ["x.ovf", *sources]
    (out / "sums").write_text("".join(f"{digest}  {name}\n" for name, digest in lines))
    tool("sha256sum", "--strict", "-c", "sums", cwd=out)
    for name, source in sources.items():
        tool("qemu-img", "check", "-f", "vmdk", out / name)
        same(out / name, "vmdk", source.path, source.format)
    sizes = {path.name: path.stat().st_size for path in out.iterdir() if path.name != "sums"}
    assert {one.name: one.size for one in packed_files} == sizes
    assert {one.href: one.size for one in ovf.files((out / "x.ovf").read_bytes())} == {one.name: one.size for one in disks}
    assert (tmp_path / "x.ova").stat().st_size % 10240 == 0
    package = read_ova(str(tmp_path / "x.ova"))
    assert check_manifest(package, CONTROL) == ()
    assert ovf.parse(package.text).machine == machine({name: source.size for name, source in sources.items()})


def test_an_ova_has_room_for_what_it_says_or_fails(tmp_path: Path) -> None:
    with OvaWriter(str(tmp_path), "x.ova", stem="x", room=100, disks=["d.vmdk"]) as ova:
        with pytest.raises(ImgtoolError, match="not the next file"):
            ova.add("e.vmdk", [b"x"])
        ova.add("d.vmdk", [b"x" * 700, b"y"])
        with pytest.raises(ImgtoolError, match="more than the 512"):
            ova.finish(b"x" * 513)
        ova.finish(b"x" * 512)
    assert tool("tar", "tf", tmp_path / "x.ova").stdout.split() == ["x.ovf", "x.mf", "d.vmdk"]
    for name in ("../d.vmdk", "a/b", "n" * 101, "a\nb"):
        with pytest.raises(ImgtoolError, match="cannot be the name"):
            OvaWriter(str(tmp_path), "y.ova", stem="x", room=100, disks=[name])


def test_no_space_for_an_ova_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a disk, or for what comes last: description and manifest."""
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with OvaWriter(str(tmp_path), "x.ova", stem="x", room=100, disks=["d.vmdk"]) as ova:
        for add in (partial(ova.add, "d.vmdk", [b"x" * 700]), partial(ova.finish, b"x")):
            monkeypatch.setattr(storage, "write_all", full)
            with pytest.raises(NoSpaceError, match=r"writing x\.ova"):
                add()
            monkeypatch.undo()
            add()
    assert tool("tar", "tf", tmp_path / "x.ova").stdout.split() == ["x.ovf", "x.mf", "d.vmdk"]


def test_no_space_to_unpack_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.ovf").write_bytes(TEXT)
    (tmp_path / "d.vmdk.gz").write_bytes(gzip.compress(b"x" * 1000))
    monkeypatch.setattr(disks, "_inflated", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(NoSpaceError, match=r"unpacking .*d\.vmdk\.gz"), \
            open_file(read_ovf(str(tmp_path / "x.ovf")), FileReference(href="d.vmdk.gz", gzip=True), str(tmp_path), CONTROL.stop):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.vmdk.gz", "x.ovf"]


def test_the_manifest_of_a_folder(tmp_path: Path) -> None:
    files = {"x.ovf": TEXT.replace(b"lab-disk001.vmdk", b"d.vmdk"), "d.vmdk": b"disk" * 1_000_000}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    lines = [f"SHA256({name})= {hashlib.sha256(data).hexdigest()}\n" for name, data in files.items()]
    (tmp_path / "x.mf").write_text("".join(lines))
    package = read_ovf(str(tmp_path / "x.ovf"))
    assert check_manifest(package, CONTROL) == ()
    (tmp_path / "d.vmdk").write_bytes(b"disk" * 999_999 + b"kisd")
    with pytest.raises(DifferError):
        check_manifest(package, CONTROL)


def test_what_a_manifest_of_a_folder_leaves_out_is_said(tmp_path: Path) -> None:
    text = (b'<Envelope><References><File href="a%20b.vmdk" id="1"/><File href="c.vmdk" id="2"/></References><VirtualSystem>'
            b"<VirtualHardwareSection/></VirtualSystem></Envelope>")
    for name, data in (("x.ovf", text), ("a b.vmdk", b"a"), ("c.vmdk", b"c"), ("unrelated.txt", b"u")):
        (tmp_path / name).write_bytes(data)
    line = f"SHA256(a b.vmdk)= {hashlib.sha256(b'a').hexdigest()}\n"
    (tmp_path / "x.mf").write_text(line * 2)
    said = check_manifest(read_ovf(str(tmp_path / "x.ovf")), CONTROL)
    assert [re.search("nothing of '(.*)'", one)[1] for one in said] == ["x.ovf", "c.vmdk"]  # type: ignore[index]
    assert len(parse_manifest(line.encode() * 2)[0]) == 1


def test_a_disk_that_no_file_was_packed_for() -> None:
    """OVF (DSP0243, 9.2): without fileRef a disk is empty, and made by whoever deploys it."""
    text = (b'<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">'
            b'<References><File ovf:id="f1" ovf:href="a.vmdk" ovf:size="7"/></References></Envelope>')
    machine = SimpleNamespace(text=text, path="m.ova")
    assert _reference(machine, DiskSlot(path="a.vmdk")).href == "a.vmdk"  # type: ignore[arg-type]
    with pytest.raises(DamagedError, match=r"m\.ova has a disk without a file: 'vmdisk2'") as caught:
        _reference(machine, DiskSlot(path="vmdisk2"))  # type: ignore[arg-type]
    assert (caught.value.exit_code, caught.value.hint) == (5, "make an empty disk on the other side")
