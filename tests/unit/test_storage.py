"""storage: what a file occupies, next to what filefrag says; on ext4 and on tmpfs, which has no FIEMAP."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from imgtool import storage
from imgtool.errors import ImgtoolError, NoSpaceError
from imgtool.formats.disk import open_disk
from imgtool.formats.measure import describe, mapped
from imgtool.formats.patched import reader
from imgtool.storage import Piece
from tests import mounts
from tests.mounts import call, need

K, M = 1 << 10, 1 << 20
LINE = re.compile(r"^\s*\d+:\s+(\d+)\.\.\s*\d+:\s+(\d+)\.\.\s*\d+:\s+(\d+):(?:\s+\d+:)?\s*(\S*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from mounts.ext4(tmp_path_factory.mktemp("storage") / "ext4", 128 * M)


@pytest.fixture(scope="module")
def tmpfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from mounts.tmpfs(tmp_path_factory.mktemp("storage") / "tmpfs", 16 * M)


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], int]]:
    """Makes new empty files, and closes them."""
    fds: list[int] = []
    number = abs(hash(request.node.name))

    def new(directory: Path) -> int:
        fds.append(os.open(directory / f"{number}-{len(fds)}", os.O_RDWR | os.O_CREAT | os.O_EXCL))
        return fds[-1]

    yield new
    for fd in fds:
        os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
        os.close(fd)


def filefrag(fd: int) -> list[tuple[int, int, int, bool]]:
    """(offset, physical, length, unwritten) by filefrag, in bytes."""
    said = call(need("filefrag"), "-s", "-v", "-b1024", os.readlink(f"/proc/self/fd/{fd}"))
    return [(int(at) * K, int(where) * K, int(length) * K, "unwritten" in flags)
            for at, where, length, flags in LINE.findall(said)]


def fill(fd: int) -> None:
    """4 MiB: data at 0 and at 2 MiB, reserved at 1 MiB, holes else; the last 4096 bytes data."""
    os.ftruncate(fd, 4 * M)
    os.pwrite(fd, b"x" * 256 * K, 0)
    os.posix_fallocate(fd, 1 * M, 128 * K)
    os.pwrite(fd, b"y" * 64 * K, 2 * M)
    os.pwrite(fd, b"z" * 4096, 4 * M - 4096)
    os.fsync(fd)


def test_extents_are_those_of_filefrag(ext4: Path, opened: Callable[[Path], int]) -> None:
    fd = opened(ext4)
    fill(fd)
    found = [(one.offset, one.physical, one.length, bool(one.flags & storage.FIEMAP_UNWRITTEN))
             for one in storage.physical_extents(fd, 0, 4 * M)]
    assert found == filefrag(fd)
    assert [(at, length, unwritten) for at, _, length, unwritten in found] == [
        (0, 256 * K, False), (M, 128 * K, True), (2 * M, 64 * K, False), (4 * M - 4096, 4096, False)]


def test_many_extents_need_more_than_one_call(ext4: Path, opened: Callable[[Path], int]) -> None:
    fd = opened(ext4)
    for number in range(40):
        os.pwrite(fd, b"x" * 4096, number * 8192)
    os.fsync(fd)
    found = [(one.offset, one.physical, one.length, False) for one in storage.physical_extents(fd, 0, M, count=7)]
    assert found == filefrag(fd)
    assert len(found) == 40
    assert [one.offset for one in storage.physical_extents(fd, 80 * K, 96 * K)] == [80 * K, 88 * K]


def test_reserved_and_unwritten(ext4: Path, opened: Callable[[Path], int]) -> None:
    fd = opened(ext4)
    fill(fd)
    assert list(storage.reserved(fd, 0, 4 * M)) == [(0, 256 * K), (M, 128 * K), (2 * M, 64 * K), (4 * M - 4096, 4096)]
    assert list(storage.reserved(fd, 128 * K, M + 64 * K)) == [(128 * K, 128 * K), (M, 64 * K)]
    assert list(storage.unwritten(fd, 4 * M)) == [(256 * K, 2 * M - 256 * K), (2 * M + 64 * K, 2 * M - 68 * K)]
    assert list(storage.unwritten(fd, 5 * M))[-1] == (4 * M, M)


def test_without_fiemap_what_is_known_is_data_and_holes(tmpfs: Path, opened: Callable[[Path], int]) -> None:
    fd = opened(tmpfs)
    fill(fd)
    with pytest.raises(OSError, match="not supported"):
        next(storage.physical_extents(fd, 0, 4 * M))
    data = [(piece.offset, piece.length) for piece in storage.pieces(fd, 0, 4 * M) if piece.data]
    assert list(storage.reserved(fd, 0, 4 * M)) == data
    assert (0, 256 * K) in data
    gaps = list(storage.unwritten(fd, 4 * M))
    assert min(gaps + data)[0] == 0
    assert sum(length for _, length in gaps + data) == 4 * M


@pytest.mark.parametrize("where", ["ext4", "tmpfs"])
def test_pieces_are_in_order_and_complete(where: str, request: pytest.FixtureRequest, opened: Callable[[Path], int]) -> None:
    fd = opened(request.getfixturevalue(where))
    fill(fd)
    end = 4 * M
    assert list(storage.pieces(fd, 0, end)) == [
        Piece(0, 256 * K, data=True), Piece(256 * K, 2 * M - 256 * K, data=False), Piece(2 * M, 64 * K, data=True),
        Piece(2 * M + 64 * K, 2 * M - 68 * K, data=False), Piece(end - 4096, 4096, data=True)]
    assert list(storage.pieces(fd, 1000, 2000)) == [Piece(1000, 1000, data=True)]
    assert list(storage.pieces(fd, M + 1, M + 5)) == [Piece(M + 1, 4, data=False)]
    assert list(storage.pieces(fd, end - 512, end + M)) == [Piece(end - 512, 512, data=True), Piece(end, M, data=False)]
    assert list(storage.pieces(fd, 7, 7)) == []


def test_pieces_of_very_many_extents(ext4: Path, opened: Callable[[Path], int]) -> None:
    """Written blocks, and here and there one that is only reserved, but was read: data to lseek(2)."""
    fd, written, at = opened(ext4), [], 0
    for number in range(300):
        if number in (0, 5, 70, 71, 140, 299):
            os.posix_fallocate(fd, at, 4096)
        else:
            os.pwrite(fd, b"x" * 4096, at)
            written += [at]
        at += 4096 if number % 4 else 8192
    os.fsync(fd)
    assert len(os.pread(fd, at, 0)) >= at - 8192
    found = [block for piece in storage.pieces(fd, 0, at) if piece.data
             for block in range(piece.offset, piece.offset + piece.length, 4096)]
    assert len(list(storage.physical_extents(fd, 0, at))) > storage.ASKED
    assert found == written


@pytest.mark.parametrize("where", ["ext4", "tmpfs"])
def test_reserve_takes_space_and_punch_gives_it_back(where: str, request: pytest.FixtureRequest,
                                                     opened: Callable[[Path], int]) -> None:
    fd = opened(request.getfixturevalue(where))
    os.pwrite(fd, b"x" * 64 * K, 0)
    os.fsync(fd)
    assert storage.allocated_bytes(fd) == 64 * K
    assert storage.reserve(fd, 0, M, keep_size=True)
    assert (storage.size_of(fd), storage.allocated_bytes(fd)) == (64 * K, M)
    assert storage.reserve(fd, 0, M)
    assert (storage.size_of(fd), storage.allocated_bytes(fd)) == (M, M)
    assert os.pread(fd, M, 0) == b"x" * 64 * K + bytes(M - 64 * K)
    assert storage.punch(fd, 0, 32 * K)
    assert (storage.size_of(fd), storage.allocated_bytes(fd)) == (M, M - 32 * K)
    assert os.pread(fd, 64 * K, 0) == bytes(32 * K) + b"x" * 32 * K
    assert storage.reserve(fd, 0, 0)


@pytest.mark.parametrize("where", ["ext4", "tmpfs"])
def test_no_space_is_our_error(where: str, request: pytest.FixtureRequest, opened: Callable[[Path], int]) -> None:
    directory: Path = request.getfixturevalue(where)
    fd = opened(directory)
    with pytest.raises(NoSpaceError) as caught:
        storage.reserve(fd, 0, storage.free_space(str(directory)) + 64 * M)
    assert caught.value.exit_code == 7
    os.ftruncate(fd, 0)


def test_which_file_systems_copy(ext4: Path, tmpfs: Path, opened: Callable[[Path], int]) -> None:
    for directory in (ext4, tmpfs):
        assert not storage.may_share(str(directory))
        assert storage.copy_on_write(opened(directory)) is None
    assert storage.free_space(str(tmpfs)) <= 16 * M


def test_other_errors_keep_their_words() -> None:
    with pytest.raises(ImgtoolError, match="writing x: Input/output error") as caught:
        storage.raise_os(OSError(5, "Input/output error"), "writing x")
    assert caught.value.exit_code == 1
    with pytest.raises(ImgtoolError, match="does not allow a file this large"):
        storage.raise_os(OSError(27, "File too large"), "writing x")


def test_a_range_without_data(ext4: Path, opened: Callable[[Path], int]) -> None:
    fd = opened(ext4)
    os.ftruncate(fd, 4 * M)
    os.pwrite(fd, b"x", M)
    assert storage.is_hole(fd, 0, M)
    assert not storage.is_hole(fd, 0, M + 1)
    assert not storage.is_hole(fd, M, 4096)
    assert storage.is_hole(fd, 2 * M, 2 * M)
    assert storage.is_hole(fd, 4 * M, M), "behind the end"


def test_what_could_not_be_done_to_which_file_is_told(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 20)
        with pytest.raises(ImgtoolError, match=rf"^punching a hole of 4096 bytes in {tmp_path}/x: Invalid argument"):
            storage.punch(file.fileno(), -4096, 4096)
        with pytest.raises(ImgtoolError, match=rf"^reserving 4096 bytes in {tmp_path}/x: Invalid argument"):
            storage.reserve(file.fileno(), -4096, 4096)


ASKING: dict[str, Callable[[int], object]] = {
    "reserved": lambda fd: list(storage.reserved(fd, 0, 4 * M)),
    "unwritten": lambda fd: list(storage.unwritten(fd, 4 * M)),
    "shared": lambda fd: list(storage.shared(fd, 4 * M)),
    "same blocks": lambda fd: list(storage.same_blocks(fd, 0, fd, 0, 4 * M)),
    "pieces": lambda fd: list(storage.pieces(fd, 0, 4 * M)),
    "reserve_rest": lambda fd: storage.reserve_rest(fd, 4 * M),
}


@pytest.mark.parametrize("what", ASKING)
def test_a_disk_that_fails_is_no_file_system_that_cannot_tell(what: str, ext4: Path, opened: Callable[[Path], int],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    fd = opened(ext4)
    fill(fd)
    for number in (errno.EOPNOTSUPP, errno.ENOTTY):
        monkeypatch.setattr(storage.fcntl, "ioctl", Mock(side_effect=OSError(number, "FIEMAP")))
        ASKING[what](fd)
    monkeypatch.setattr(storage.fcntl, "ioctl", Mock(side_effect=OSError(errno.EIO, "FIEMAP")))
    with pytest.raises(OSError, match="FIEMAP"):
        ASKING[what](fd)


def test_nothing_is_shared_where_nobody_can_tell(tmpfs: Path, opened: Callable[[Path], int]) -> None:
    fd = opened(tmpfs)
    fill(fd)
    assert list(storage.shared(fd, 4 * M)) == []
    assert list(storage.same_blocks(fd, 0, fd, 0, 4 * M)) == []


def test_an_error_of_the_first_question_for_data_is_raised(opened: Callable[[Path], int], ext4: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for the end of the data, it would be zeros in the copy."""
    fd = opened(ext4)
    fill(fd)
    monkeypatch.setattr(storage.os, "lseek", Mock(side_effect=OSError(errno.EIO, "lseek")))
    with pytest.raises(OSError, match="lseek"):
        list(storage.pieces(fd, 0, 4 * M))
    assert not storage.is_hole(fd, 1 * M, 4096)


def test_what_comes_in_parts_is_read_to_its_end(ext4: Path, opened: Callable[[Path], int],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    fd = opened(ext4)
    data = os.urandom(10_000)
    os.pwrite(fd, data, 0)
    preadv, pread = os.preadv, os.pread
    monkeypatch.setattr(storage.os, "preadv", lambda fd, rooms, at: preadv(fd, [rooms[0][:3000]], at))
    monkeypatch.setattr(storage.os, "pread", lambda fd, length, at: pread(fd, min(length, 3000), at))
    room = bytearray(12_000)
    assert storage.read_into(fd, memoryview(room), 0) == 10_000
    assert room == data + bytes(2_000)
    assert storage.read(fd, 12_000, 0) == data


def test_a_bad_block_behind_good_ones_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call gives what it could read, and no error: taken for the end of a file, the rest would be zeros."""
    bad = OSError(errno.EIO, "bad block")
    monkeypatch.setattr(storage.os, "preadv", Mock(side_effect=[40, bad]))
    with pytest.raises(OSError, match="bad block"):
        storage.read_into(0, memoryview(bytearray(100)), 0)
    monkeypatch.setattr(storage.os, "pread", Mock(side_effect=[bytes(40), bad]))
    with pytest.raises(OSError, match="bad block"):
        storage.read(0, 100, 0)


def test_a_file_system_that_cannot_reserve_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "reserve", lambda *_: False)
    with (tmp_path / "x").open("wb") as file:
        file.truncate(M)
        assert not storage.reserve_rest(file.fileno(), M)


def test_what_cannot_be_looked_into_counts_as_cached(tmp_path: Path) -> None:
    """It is then read as ever, through the page cache."""
    with (tmp_path / "x").open("wb") as file:  # not open for reading: it cannot be mapped
        file.truncate(M)
        assert storage.cached(file.fileno(), 0, M)


def test_reserved_space_in_the_middle_of_a_hole_is_mapped(ext4: Path) -> None:
    path = ext4 / "map.raw"
    with path.open("wb") as file:
        file.truncate(3 * M)
        os.posix_fallocate(file.fileno(), 1 * M, 64 * K)
    with open_disk(str(path)) as disk:
        found = [(one.start, one.length, one.allocated) for one in mapped(disk)]
    path.unlink()
    assert found == [(0, M, False), (M, 64 * K, True), (M + 64 * K, 2 * M - 64 * K, False)]


def test_behind_the_end_of_a_disk_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(b"x" * 1024)
    with open_disk(str(tmp_path / "x.raw")) as disk:
        read = reader(disk)
        assert [len(read(at, 512)) for at in (0, 1000, 1024, 1 << 50)] == [512, 24, 0, 0]


@pytest.mark.parametrize(("data", "reserved", "kind"), [(M, M, "eager"), (64 * K, M, "thick"), (64 * K, 64 * K, "thin")])
def test_the_allocation_of_an_image_without_fiemap(tmpfs: Path, data: int, reserved: int, kind: str) -> None:
    image = tmpfs / "x.raw"
    with image.open("wb") as file:
        file.write(b"x" * data)
        file.truncate(M)
        os.posix_fallocate(file.fileno(), 0, reserved)
    with open_disk(str(image)) as disk:
        assert describe(disk).allocation == kind
    image.unlink()
