"""files: folders for what is being made, and how the finished files come out of them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from imgtool import files
from imgtool.errors import ImgtoolError, NoSpaceError, RefusedError
from tests.mounts import tmpfs
from tests.program import ENVIRONMENT

HOLDER = """
import sys
from imgtool import files
with files.workspace(sys.argv[1]) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def abandoned(directory: Path, *, name: str = "dead", host: str | None = None, **content: str) -> Path:
    """A workspace as a killed run leaves it."""
    folder = directory / f"{files.PREFIX}{name}"
    folder.mkdir()
    (folder / files.OWNER).write_text(json.dumps({"host": host or files.host_id(), "pid": 1}))
    for file, text in content.items():
        (folder / file.replace("_", ".")).write_text(text)
    return folder


def journal(folder: Path, members: list[str], obsolete: list[str]) -> None:
    (folder / files.JOURNAL).write_text(json.dumps({"members": members, "obsolete": obsolete}))


def test_a_workspace_is_gone_at_the_end(tmp_path: Path) -> None:
    with files.workspace(str(tmp_path)) as folder:
        assert Path(folder).parent == tmp_path
        Path(folder, "half").write_text("half")
    assert left(tmp_path) == []
    with pytest.raises(ZeroDivisionError), files.workspace(str(tmp_path)) as folder:
        raise ZeroDivisionError
    assert left(tmp_path) == []


def test_the_folder_of_a_live_process_stays_and_goes_when_it_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        folder = holder.stdout.readline().strip()
        files.clean(str(tmp_path))
        assert left(tmp_path) == [os.path.basename(folder)]
        with files.workspace(str(tmp_path)):
            assert os.path.isdir(folder)
        holder.kill()
    assert os.path.isdir(folder)
    files.clean(str(tmp_path))
    assert left(tmp_path) == []


def test_the_folder_of_another_host_stays(tmp_path: Path) -> None:
    there = abandoned(tmp_path, host="another")
    dead = abandoned(tmp_path, name="ours")
    files.clean(str(tmp_path))
    assert there.is_dir()
    assert not dead.exists()


def test_a_folder_without_an_owner_goes_when_it_is_old(tmp_path: Path) -> None:
    young, old = tmp_path / ".imgtool-young", tmp_path / ".imgtool-old"
    for folder in (young, old):
        folder.mkdir()
        (folder / "something").write_text("")
    time = os.stat(old).st_mtime - files.ABANDONED - 1
    os.utime(old, (time, time))
    files.clean(str(tmp_path))
    assert left(tmp_path) == [young.name]


def test_an_empty_folder_goes_at_once(tmp_path: Path) -> None:
    """Its maker was killed before it had an owner, or its remover before the last step."""
    (tmp_path / ".imgtool-empty").mkdir()
    files.clean(str(tmp_path))
    assert left(tmp_path) == []


@pytest.mark.parametrize("when", ["open", "flock"])
def test_a_folder_that_another_took_away_before_it_was_locked_is_made_again(tmp_path: Path, when: str,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = {"open": files.tempfile.mkdtemp, "flock": files.fcntl.flock}[when], []

    def racing(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        made = real(*arguments, **named)
        if len(calls) == 1:
            files.shutil.rmtree(made if isinstance(made, str) else next(tmp_path.iterdir()))
        return made

    monkeypatch.setattr(*{"open": (files.tempfile, "mkdtemp"), "flock": (files.fcntl, "flock")}[when], racing)
    with files.workspace(str(tmp_path)) as folder:
        assert left(Path(folder)) == [files.OWNER]
    assert (len(calls), left(tmp_path)) == (2, [])


def test_what_is_no_folder_of_ours_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / files.OWNER).write_text("")
    (tmp_path / ".imgtool-link").symlink_to(elsewhere)
    (tmp_path / ".imgtool-file").write_text("")
    files.clean(str(tmp_path))
    assert left(tmp_path) == [".imgtool-file", ".imgtool-link", "elsewhere"]
    assert left(elsewhere) == [files.OWNER]


@pytest.mark.parametrize("text", ["", "{", '{"members": ["x'])
def test_a_journal_that_was_not_written_to_its_end_says_that_nothing_was_moved(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.vmdk").write_text("old")
    abandoned(tmp_path, _publish_json=text, x_vmdk="new")
    files.clean(str(tmp_path))
    assert left(tmp_path) == ["x.vmdk"]


@pytest.mark.parametrize("text", ["", '{"host"', "{}", "[]"])
def test_an_owner_that_was_not_written_to_its_end_is_dead(tmp_path: Path, text: str) -> None:
    (abandoned(tmp_path) / files.OWNER).write_text(text)
    files.clean(str(tmp_path))
    assert left(tmp_path) == []


def test_a_publish_that_was_not_committed_is_undone(tmp_path: Path) -> None:
    """a.vmdk was moved, b.vmdk and the descriptor were not: the old image stays as it was."""
    for name in ("x.vmdk", "old.vmdk", "a.vmdk", "b.vmdk"):
        (tmp_path / name).write_text("beside")
    folder = abandoned(tmp_path, b_vmdk="new", x_vmdk="new")
    journal(folder, ["a.vmdk", "b.vmdk", "x.vmdk"], ["old.vmdk"])
    files.clean(str(tmp_path))
    assert left(tmp_path) == ["b.vmdk", "old.vmdk", "x.vmdk"]
    assert (tmp_path / "x.vmdk").read_text() == "beside"


def test_a_publish_that_was_committed_is_finished(tmp_path: Path) -> None:
    for name in ("x.vmdk", "a.vmdk", "old.vmdk", "other.vmdk"):
        (tmp_path / name).write_text("beside")
    folder = abandoned(tmp_path)
    journal(folder, ["a.vmdk", "x.vmdk"], ["old.vmdk", "gone.vmdk"])
    files.clean(str(tmp_path))
    assert left(tmp_path) == ["a.vmdk", "other.vmdk", "x.vmdk"]


class Killed(BaseException):
    """In the place of a kill -9."""


class Killer:
    """Ends the process, as it were, at the n-th change of a directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.steps, self.at = 0, at
        for name in ("unlink", "rmdir"):
            monkeypatch.setattr(os, name, self._dying(getattr(os, name)))

    def _dying(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **named: object) -> None:
            if self.steps == self.at:
                raise Killed
            self.steps += 1
            real(*arguments, **named)

        return call


def killed_clean(tmp_path: Path, at: int, *, committed: bool) -> bool:
    """A clean that is killed at its n-th step, then another that is not. True if the first one was killed."""
    beside = ["x.vmdk", "a.vmdk", "old.vmdk"]
    for name in beside:
        (tmp_path / name).write_text("beside")
    folder = abandoned(tmp_path, **({} if committed else {"b_vmdk": "new", "x_vmdk": "new", "zz": "more", "aa": "more"}))
    journal(folder, ["a.vmdk", "b.vmdk", "x.vmdk"], ["old.vmdk"])
    with pytest.MonkeyPatch.context() as patch:
        Killer(patch, at)
        try:
            files.clean(str(tmp_path))
            was_killed = False
        except Killed:
            was_killed = True
    files.clean(str(tmp_path))
    assert left(tmp_path) == (["a.vmdk", "x.vmdk"] if committed else ["old.vmdk", "x.vmdk"])
    return was_killed


@pytest.mark.parametrize("committed", [False, True])
def test_a_clean_that_is_killed_is_finished_by_the_next(tmp_path: Path, committed: bool) -> None:
    """The old image's extents above all: an undo that was half done must not look like a commit."""
    steps = 0
    while killed_clean(tmp_path, steps, committed=committed):
        steps += 1
    assert steps >= (4 if committed else 8)


def test_a_failed_publish_that_is_killed_while_it_clears_up_keeps_the_old_image(tmp_path: Path) -> None:
    """An extent's name was taken in a race; the folder is being taken away."""
    was_killed, at = True, 0
    while was_killed:
        for name in ("x.vmdk", "old.vmdk", "b.vmdk"):
            (tmp_path / name).write_text("beside")
        with pytest.MonkeyPatch.context() as patch:
            try:
                with files.workspace(str(tmp_path)) as folder:
                    for name in ("a.vmdk", "b.vmdk", "x.vmdk"):
                        Path(folder, name).write_text("new")
                    Killer(patch, at)
                    files.publish(folder, ["a.vmdk", "b.vmdk", "x.vmdk"], replace=True, obsolete=["old.vmdk"])
            except RefusedError:
                was_killed = False
            except Killed:
                at += 1
        files.clean(str(tmp_path))
        assert left(tmp_path) == ["b.vmdk", "old.vmdk", "x.vmdk"]
    assert at >= 5


def test_a_journal_reaches_nothing_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "precious").write_text("precious")
    folder = abandoned(inside)
    journal(folder, ["../precious", "x.vmdk"], ["../precious", str(tmp_path / "precious")])
    files.clean(str(inside))
    assert left(tmp_path) == ["inside", "precious"]


def test_where_all_may_write_the_journal_of_another_user_is_not_believed(tmp_path: Path) -> None:
    """He must not have root remove what he himself may not: /var/tmp."""
    folder = abandoned(tmp_path)
    journal(folder, ["x.vmdk"], ["precious"])
    (tmp_path / "precious").write_text("precious")
    os.chown(folder, 65534, 65534)
    tmp_path.chmod(0o1777)
    files.clean(str(tmp_path))
    assert left(tmp_path) == [folder.name, "precious"]
    os.chown(folder, os.geteuid(), os.getegid())
    files.clean(str(tmp_path))
    assert left(tmp_path) == []


def test_what_takes_the_place_of_a_folder_meanwhile_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, precious = tmp_path / "inside", tmp_path / "precious"
    inside.mkdir()
    precious.mkdir()
    (precious / "mine").write_text("mine")
    folder, real = abandoned(inside, half="half"), os.listdir

    def swapped(where: str | int) -> list[str]:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(precious)
        return real(where)

    monkeypatch.setattr(os, "listdir", swapped)
    files.clean(str(inside))
    monkeypatch.undo()
    assert left(precious) == ["mine"]


def test_publish_moves_all_the_last_one_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, order = files.rename, []

    def rename(old: str, new: str, *, replace: bool) -> None:
        order.append((os.path.basename(new), replace))
        real(old, new, replace=replace)

    monkeypatch.setattr(files, "rename", rename)
    (tmp_path / "x.vmdk").write_text("old")
    (tmp_path / "old-flat.vmdk").write_text("old")
    with files.workspace(str(tmp_path)) as folder:
        for name in ("a", "b", "x.vmdk"):
            Path(folder, name).write_text("new")
        files.publish(folder, ["a", "b", "x.vmdk"], replace=True, obsolete=["old-flat.vmdk", "never-there"])
    assert order == [("a", False), ("b", False), ("x.vmdk", True)]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(("a", "b", "x.vmdk"), "new")


def test_everything_is_flushed_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_sync, real_rename, events = files.sync, files.rename, []

    def sync(path: str) -> None:
        events.append(("sync", os.path.relpath(path, tmp_path).replace(os.path.basename(folder), "folder")))
        real_sync(path)

    def rename(old: str, new: str, *, replace: bool) -> None:
        events.append(("rename", os.path.basename(new)))
        real_rename(old, new, replace=replace)

    monkeypatch.setattr(files, "sync", sync)
    monkeypatch.setattr(files, "rename", rename)
    with files.workspace(str(tmp_path)) as folder:
        for name in ("a", "x"):
            Path(folder, name).write_text("new")
        files.publish(folder, ["a", "x"], replace=False)
    first = events.index(("rename", "a"))
    flushed = {name for what, name in events[:first] if what == "sync"}
    assert {"folder/a", "folder/x", f"folder/{files.JOURNAL}", "folder"} <= flushed
    assert events[first:first + 4] == [("rename", "a"), ("sync", "."), ("rename", "x"), ("sync", ".")]


@pytest.mark.parametrize("taken", ["a", "b", "x"])
def test_without_force_nothing_is_replaced_even_in_a_race(tmp_path: Path, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file appears after every check, just before its rename."""
    real = files.rename

    def rename(old: str, new: str, *, replace: bool) -> None:
        if os.path.basename(new) == taken:
            Path(new).write_text("another's")
        real(old, new, replace=replace)

    monkeypatch.setattr(files, "rename", rename)
    with files.workspace(str(tmp_path)) as folder:
        for name in ("a", "b", "x"):
            Path(folder, name).write_text("new")
        with pytest.raises(RefusedError, match=f"{taken} exists") as caught:
            files.publish(folder, ["a", "b", "x"], replace=False)
    assert caught.value.exit_code == 4
    assert (caught.value.hint == "use --force to replace it") == (taken == "x")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {taken: "another's"}


def test_a_folder_that_was_filled_meanwhile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "DIR").mkdir()
    with files.workspace(str(tmp_path)) as folder:
        Path(folder, "DIR").mkdir()
        (tmp_path / "DIR" / "theirs").touch()
        with pytest.raises(RefusedError, match="is not empty any more"):
            files.publish(folder, ["DIR"], replace=True)
    assert os.listdir(tmp_path) == ["DIR"]
    assert os.listdir(tmp_path / "DIR") == ["theirs"]


def test_force_is_no_hint_for_an_extent(tmp_path: Path) -> None:
    with files.workspace(str(tmp_path)) as folder:
        for name in ("d-flat.vmdk", "d.vmdk"):
            Path(folder, name).touch()
        (tmp_path / "d-flat.vmdk").touch()
        with pytest.raises(RefusedError) as caught:
            files.publish(folder, ["d-flat.vmdk", "d.vmdk"], replace=True)
    assert caught.value.hint is not None
    assert "--force" not in caught.value.hint


def test_force_replaces_the_last_one_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("another's")
    with files.workspace(str(tmp_path)) as folder:
        for name in ("a", "x"):
            Path(folder, name).write_text("new")
        with pytest.raises(RefusedError):
            files.publish(folder, ["a", "x"], replace=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "another's"}


class NoRenameat2:
    """A file system, or a kernel, that does not know RENAME_NOREPLACE."""

    @staticmethod
    def renameat2(*_arguments: object) -> int:
        files.ctypes.set_errno(errno.EINVAL)
        return -1


def test_without_the_kernels_help_a_name_that_is_taken_is_still_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_libc", NoRenameat2)
    for name in ("new", "taken"):
        (tmp_path / name).write_text(name)
    with pytest.raises(RefusedError):
        files.rename(str(tmp_path / "new"), str(tmp_path / "taken"), replace=False)
    assert (tmp_path / "taken").read_text() == "taken"
    files.rename(str(tmp_path / "new"), str(tmp_path / "free"), replace=False)
    assert left(tmp_path) == ["free", "taken"]


def test_a_rename_that_fails_otherwise_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.rename(str(tmp_path / "nothing"), str(tmp_path / "x"), replace=False)


def fails_with(code: int) -> Callable[..., object]:
    def fail(*_arguments: object, **_named: object) -> object:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("where", ["mkdtemp", "flush"])
def test_no_space_for_the_folder_is_our_error(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "mkdtemp":
        monkeypatch.setattr(files.tempfile, "mkdtemp", fails_with(errno.ENOSPC))
    else:
        monkeypatch.setattr(files.fcntl, "flock", fails_with(errno.ENOSPC))
    with pytest.raises(NoSpaceError), files.workspace(str(tmp_path)):
        pytest.fail("it has no folder")
    assert left(tmp_path) == []


def test_no_space_for_the_journal_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with files.workspace(str(tmp_path)) as folder:
        Path(folder, "x").write_text("new")
        monkeypatch.setattr(files.Path, "write_text", fails_with(errno.ENOSPC))
        with pytest.raises(NoSpaceError, match="publishing x in"):
            files.publish(folder, ["x"], replace=False)
    assert left(tmp_path) == []


def test_no_space_for_a_small_file_is_our_error(tmp_path: Path) -> None:
    for small in tmpfs(tmp_path / "small", 1 << 16):
        path = small / "x.vmx"
        path.write_text("old")
        with pytest.raises(NoSpaceError, match=r"writing .*x\.vmx"):
            files.put(str(path), bytes(1 << 17), replace=True)
        with pytest.raises(NoSpaceError, match=r"writing .*x\.vmx"), files.replacing(str(path)) as file:
            file.write(bytes(1 << 17))
        assert (left(small), path.read_text()) == (["x.vmx"], "old")


def test_replacing_keeps_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.chown(path, 12345, 23456)
    with files.replacing(str(path)) as out:
        out.write(b"new")
        assert path.read_bytes() == b"old"
    status = path.stat()
    assert (path.read_bytes(), status.st_mode & 0o7777, status.st_uid, status.st_gid) == (b"new", 0o640, 12345, 23456)
    assert left(tmp_path) == ["x.vmdk"]


def test_replacing_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(str(path)) as out:
        out.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert left(tmp_path) == ["x.vmdk"]


KILLED = """
import os, signal, sys
from imgtool import files
with files.scratch("test") as folder:
    print(folder, flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def test_what_killed_runs_left_among_the_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run takes it away; what a live one has stays, and so does what was made just now, or has another name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(how: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", KILLED, how], env={**ENVIRONMENT, "TMPDIR": str(tmp_path)}, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with run("killed") as dead, run("alive") as alive:
        assert dead.stdout
        assert alive.stdout
        assert alive.stdin
        left, lives = Path(dead.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        dead.wait()
        young, other = tmp_path / f"{files.SCRATCH}young", tmp_path / "imgtool-other"
        for folder in (young, other):
            folder.mkdir()
        (left / "socket").write_text("x")
        for folder in (left, lives, other):
            os.utime(folder, (0, 0))
        files._sweep.cache_clear()
        with files.scratch("next") as folder:
            assert sorted(tmp_path.iterdir()) == sorted([lives, young, other, Path(folder)])
        alive.stdin.close()
        alive.wait()
    assert sorted(tmp_path.iterdir()) == sorted([young, other])


@pytest.mark.parametrize(("text", "found"), [
    ("0123abcd\n", "0123abcd"), ("\n", os.uname().nodename), (None, os.uname().nodename)])
def test_a_host_is_known_by_its_machine_id_else_by_its_name(monkeypatch: pytest.MonkeyPatch, text: str | None,
                                                            found: str) -> None:
    monkeypatch.setattr(Path, "read_text", Mock(return_value=text) if text else Mock(side_effect=FileNotFoundError))
    assert files.host_id() == found


def test_a_directory_that_cannot_be_read_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(ImgtoolError, match=f"reading {tmp_path}/none: No such file"), files.workspace(str(tmp_path / "none")):
        pass
