"""cpio archives: read what cpio writes, write what cpio reads, refuse what is damaged or never ends."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.errors import DamagedError
from imgtool.guests.linux import cpio
from imgtool.guests.linux.cpio import Entry, Stream
from tests.phony import archive


def entries(data: bytes, piece: int = 1000) -> list[Entry]:
    stream = Stream(data[at:at + piece] for at in range(0, len(data), piece))
    return list(cpio.read(stream, lambda name, size: True))


def test_reads_what_cpio_writes(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/a.ko").write_bytes(b"12345")
    (tmp_path / "lib").symlink_to("usr/lib")
    found = {entry.name: entry for entry in entries(archive(tmp_path))}
    assert found.keys() == {"lib", "usr", "usr/lib", "usr/lib/a.ko"}
    assert found["usr/lib/a.ko"].data == b"12345"
    assert (stat.S_ISLNK(found["lib"].mode), found["lib"].data) == (True, b"usr/lib")


def test_cpio_reads_what_is_written(tmp_path: Path) -> None:
    written = cpio.write([Entry(name="etc", mode=cpio.FOLDER, size=0, data=None),
                          Entry(name="etc/ä b", mode=cpio.FILE, size=3, data=b"abc"),
                          Entry(name="link", mode=cpio.LINK, size=5, data=b"etc/x")])
    subprocess.run(["cpio", "-id", "--quiet"], input=written, cwd=tmp_path, check=True)
    assert (tmp_path / "etc/ä b").read_bytes() == b"abc"
    assert (tmp_path / "link").readlink() == Path("etc/x")
    listed = subprocess.run(["cpio", "-itv", "--quiet"], input=written, capture_output=True, check=True).stdout.decode()
    assert all("root" in line and "Jan  1  1970" in line for line in listed.splitlines())
    assert len(written) % 4 == 0


NAMES = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..", cpio.TRAILER))


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6), st.integers(1, 300))
def test_reads_what_it_writes_in_pieces_of_any_size(files: dict[str, bytes], piece: int) -> None:
    data = cpio.write(Entry(name=name, mode=cpio.FILE, size=len(data), data=data) for name, data in files.items())
    assert {entry.name: entry.data for entry in entries(data, piece)} == files


@given(st.binary(max_size=600), st.integers(0, 400))
def test_damage_is_an_error_and_nothing_else(noise: bytes, at: int) -> None:
    whole = cpio.write([Entry(name="a", mode=cpio.FILE, size=100, data=bytes(100))])
    damaged = whole[:at] + noise
    try:
        entries(damaged)
    except DamagedError:
        return


@pytest.mark.parametrize(("field", "value"), [(11, 1 << 20), (11, 0)])
def test_a_name_of_any_length_is_refused(field: int, value: int) -> None:
    whole = bytearray(cpio.write([Entry(name="a", mode=cpio.FILE, size=0, data=b"")]))
    whole[6 + 8 * field:14 + 8 * field] = b"%08X" % value
    with pytest.raises(DamagedError, match="name"):
        entries(bytes(whole))


def test_a_file_that_is_larger_than_the_archive_is_cut_off() -> None:
    whole = bytearray(cpio.write([Entry(name="a", mode=cpio.FILE, size=4, data=b"1234")]))
    whole[6 + 8 * 6:14 + 8 * 6] = b"FFFFFFFF"
    with pytest.raises(DamagedError, match="cut off"):
        entries(bytes(whole))


def test_files_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpio, "MAX_ENTRIES", 10)
    many = [Entry(name=str(number), mode=cpio.FILE, size=0, data=b"") for number in range(11)]
    with pytest.raises(DamagedError, match="too many"):
        entries(cpio.write(many))
    assert len(entries(cpio.write(many[:9]))) == 9
