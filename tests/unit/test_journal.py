"""Block maps survive a kill at any byte; journals say what happened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool import journal
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, RefusedError, UnreachableError
from imgtool.runs.audit import Audit
from tests.mounts import tmpfs

SOURCE = {"path": "[ds] x/x-flat.vmdk", "modified": "2026-01-01"}
SIZE, CHUNK = 10 * 100 + 7, 100


def opened(path: Path, **other: object):
    return journal.block_map(str(path), **{"size": SIZE, "chunk": CHUNK, "source": SOURCE, **other})


def fill(path: Path, numbers: list[int]) -> None:
    with opened(path) as blocks:
        for number in numbers:
            blocks.mark(number, journal.digest(b"%d" % number), zero=number % 2 == 0)
        blocks.save(lambda: None)


def test_remembers_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    fill(path, [0, 3, 10])
    with opened(path) as blocks:
        assert [number for number in range(blocks.chunks) if number in blocks] == [0, 3, 10]
        assert blocks.digest_of(3) == journal.digest(b"3")
        assert (blocks.is_zero(0), blocks.is_zero(3)) == (True, False)
        assert blocks.done == 100 + 100 + 7
        assert list(blocks.missing())[:3] == [(1, 100, 100), (2, 200, 100), (4, 400, 100)]


def test_what_was_marked_but_not_saved_is_to_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    with opened(path) as blocks:
        blocks.mark(5, journal.digest(b"5"))
    with opened(path) as blocks:
        assert 5 not in blocks


def test_the_data_is_flushed_before_the_map(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    before = []
    with opened(path) as blocks:
        blocks.mark(1, journal.digest(b"1"))
        size = path.stat().st_size
        blocks.save(lambda: before.append(path.stat().st_size))
        assert before == [size]
        assert path.stat().st_size == size + journal.RECORD.size


@given(cut=st.integers(0, 3 * 32 - 1), garbage=st.binary(max_size=40))
def test_a_torn_end_does_not_count(tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes) -> None:
    path = tmp_path_factory.mktemp("map") / "x.map"
    fill(path, [1, 2, 3])
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) - cut] + garbage)
    left = 3 - -(-cut // journal.RECORD.size)
    with opened(path) as blocks:
        found = [number for number in range(blocks.chunks) if number in blocks]
        assert found == [1, 2, 3][:left]
        blocks.mark(7, journal.digest(b"7"))
        blocks.save(lambda: None)
    with opened(path) as blocks:
        assert [number for number in range(blocks.chunks) if number in blocks] == [*found, 7]


@pytest.mark.parametrize("other", [{"size": SIZE + 1}, {"chunk": 50}, {"source": {"path": "another"}}])
def test_another_source_is_refused(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "x.map"
    fill(path, [1])
    with pytest.raises(RefusedError, match="another source, or the source has changed") as raised, opened(path, **other):
        pass
    assert "--discard-partial" in str(raised.value.hint)


@pytest.mark.parametrize("text", [b"nonsense\n", b"[]\n", b'{"format": "imgtool block map", "version": 2}\n'])
def test_what_is_no_map_is_damaged(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.map"
    path.write_bytes(text)
    with pytest.raises(DamagedError), opened(path):
        pass
    assert path.read_bytes() == text


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    with opened(path), pytest.raises(RefusedError, match="another imgtool"), opened(path):
        pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.map").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match=r"x\.map"), opened(tmp_path / "x.map"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_journal_says_who_what_and_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path))
    with journal.journal("a1b2", "migrate", machine="web01") as book:
        book.event("copied", bytes=7)
    with pytest.raises(RefusedError), journal.journal("a1b2", "migrate"):
        raise RefusedError("it runs", "stop it")
    path = tmp_path / "jobs" / "a1b2.jsonl"
    with path.open("ab") as file:
        file.write(b'{"event": "torn')
    found = list(journal.events(path))
    assert [one["event"] for one in found] == ["start", "copied", "done", "start", "failed"]
    assert found[0] | {"machine": "web01", "verb": "migrate"} == found[0]
    assert (found[4]["error"], found[4]["hint"], found[4]["exit_code"]) == ("it runs", "stop it", 4)
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(json.dumps(one) for one in found)


def test_what_follows_a_torn_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path))
    path = tmp_path / "jobs" / "a1b2.jsonl"
    for torn in (b'{"event": "torn', b"\0" * 40, b""):
        with journal.journal("a1b2", "migrate"):
            pass
        with path.open("ab") as file:
            file.write(torn)
    assert [one["event"] for one in journal.events(path)] == ["start", "done"] * 3


def test_no_space_for_what_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is our error; but what went wrong in the work is told before that."""
    for small in tmpfs(tmp_path / "small", 1 << 16):
        monkeypatch.setenv("IMGTOOL_STATE", str(small))
        with pytest.raises(UnreachableError), journal.journal("a1b2", "migrate"):  # noqa: PT012
            with pytest.raises(OSError, match="space"), (small / "fill").open("wb", buffering=0) as file:  # noqa: PT012
                while file.write(bytes(4096)):
                    pass
            with (small / "jobs" / "a1b2.jsonl").open("ab") as file:
                file.write(bytes(4096 - file.tell()))
            raise UnreachableError("the host is gone")
        with pytest.raises(NoSpaceError, match=r"jobs/c3d4\.jsonl"), journal.journal("c3d4", "migrate"):
            pass
        with pytest.raises(NoSpaceError, match=r"x\.map"), opened(small / "x.map"):
            pass


def test_no_space_for_the_marks_of_what_was_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is our error; and what was not remembered is to be done again."""
    path = tmp_path / "x.map"
    with opened(path) as blocks:
        blocks.mark(1, journal.digest(b"1"))
        blocks.save(lambda: None)
        blocks.mark(2, journal.digest(b"2"))
        with monkeypatch.context() as patched, open("/dev/full", "wb", buffering=0) as full:
            patched.setattr(blocks, "_file", full)
            with pytest.raises(NoSpaceError, match="/dev/full"):
                blocks.save(lambda: None)
    with opened(path) as blocks:
        assert (1 in blocks, 2 in blocks) == (True, False)


def test_a_state_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGTOOL_STATE", str(tmp_path / "file"))
    for begun in (lambda: journal.journal("a1b2", "migrate").__enter__(), lambda: Audit("run")):
        with pytest.raises(ImgtoolError, match=f"opening {tmp_path}/file/") as caught:
            begun()
        assert caught.value.exit_code == 1


def test_where_the_state_of_others_than_root_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG base directories have it."""
    monkeypatch.delenv("IMGTOOL_STATE", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert journal.state_folder() == Path("/x/imgtool")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", "/home/a")
    assert journal.state_folder() == Path("/home/a/.local/state/imgtool")
