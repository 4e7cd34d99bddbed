"""The rule of promise 4: no name that stands in an image leads out of its directory."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.errors import DamagedError, ImgtoolError, RefusedError, UsageError
from imgtool.formats import opener
from imgtool.formats.opener import Opener
from imgtool.model.package import Member

PARTS = [
    "..",
    ".",
    "",
    "in",
    "below",
    "far",
    "up",
    "here",
    "loop",
    "dead",
    "abs",
    "twice",
    "a.raw",
    "b.raw",
    "secret",
    "out",
    "pipe",
    "socket",
    "file:",
    "file:..",
    "json:{}",
    "nbd:x",
    "~",
    "\0",
    "\n",
    "*",
    "\udcff",
    "é",
    "x" * 255,
    "x" * 300,
    " ",
    "-",
    "%2e%2e",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """in/ is the image's directory; links of every sort lead out of it and within it; the user comes by a link, too."""
    base = tmp_path_factory.mktemp("tree")
    inside = base / "in"
    (inside / "below").mkdir(parents=True)
    (base / "in-not").mkdir()
    for path in ("secret", "in-not/secret", "in/a.raw", "in/below/b.raw", "in/x.qcow2"):
        (base / path).write_bytes(b"\0" * 512)
    (inside / "far").symlink_to(base)
    (inside / "up").symlink_to("..")
    (inside / "here").symlink_to("below")
    (inside / "loop").symlink_to("loop")
    (inside / "dead").symlink_to("nowhere")
    (inside / "abs").symlink_to(base / "secret")
    (inside / "twice").symlink_to("below/abs")
    (inside / "below" / "abs").symlink_to("../../secret")
    (inside / "below" / "out").symlink_to("/etc")
    os.mkfifo(inside / "pipe")
    (base / "typed").mkdir()
    (base / "typed" / "x.qcow2").symlink_to(inside / "x.qcow2")
    (base / "typed" / "out").symlink_to("/etc/passwd")
    return base


def _names(tree: Path) -> st.SearchStrategy[str]:
    relative = st.lists(st.sampled_from(PARTS), max_size=8).map("/".join)
    heads = st.sampled_from(
        ["", "/", "//", f"{tree}/", f"{tree}/in/", f"{tree}/in-not/", f"file:{tree}/in/../", "file:/etc/", "/proc/self/"]
    )
    return st.one_of(st.builds(str.__add__, heads, relative), st.text(max_size=20))


@pytest.mark.parametrize("typed", ["in/x.qcow2", "typed/x.qcow2"])
@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_no_name_leads_out(tree: Path, typed: str, data: st.DataObject) -> None:
    name = data.draw(_names(tree))
    roots = [os.path.realpath(tree / "in"), os.path.realpath(tree / os.path.dirname(typed))]
    opener = Opener()
    try:
        opened = opener.named(name, opener.user(str(tree / typed)))
        # What was opened, not what a path says: the kernel knows it by the descriptor.
        real = os.readlink(f"/proc/self/fd/{opened.fd}")
        assert any(real.startswith(root + "/") for root in roots), (name, real)
        assert os.path.isfile(real)
    except ImgtoolError as error:
        assert error.exit_code in (4, 5), (name, error.message)  # noqa: PT017 - both outcomes are right, nothing else is
    finally:
        opener.close()


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "far/secret",
        "up/secret",
        "abs",
        "twice",
        "below/abs",
        "below/out/passwd",
        "/etc/passwd",
        "../in-not/secret",
        "pipe",
        "below",
        "file:../secret",
        "json:{}",
        "here/../../secret",
    ],
)
def test_these_are_refused(tree: Path, name: str) -> None:
    opener = Opener()
    try:
        with pytest.raises(RefusedError):
            opener.named(name, opener.user(str(tree / "in/x.qcow2")))
    finally:
        opener.close()


@pytest.mark.parametrize("name", ["a.raw", "./a.raw", "below/b.raw", "here/b.raw", "up/in/a.raw", "../in/a.raw", "file:a.raw"])
def test_these_stay_inside(tree: Path, name: str) -> None:
    opener = Opener()
    try:
        assert opener.named(name, opener.user(str(tree / "in/x.qcow2"))).size == 512
    finally:
        opener.close()


def test_what_cannot_be_looked_at_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    opener = Opener()
    for name, words, code in (("gone", "does not exist", 2), ("round", "Too many levels", 1), ("x" * 300, "too long", 1)):
        with pytest.raises(ImgtoolError, match=words) as raised:
            opener.user(str(tmp_path / name))
        assert raised.value.exit_code == code


@pytest.mark.parametrize("name", ["T10:00-flat.vmdk", "file:x-flat.vmdk", "json:{}-flat.vmdk"])
def test_a_colon_in_the_name_of_an_extent_is_no_protocol(tree: Path, name: str) -> None:
    (tree / "in" / name).write_bytes(bytes(1024))
    opener = Opener()
    try:
        assert opener.named(name, opener.user(str(tree / "in/x.qcow2")), extent=True).size == 1024
        with pytest.raises(ImgtoolError):
            opener.named(name, opener.user(str(tree / "in/x.qcow2")))
    finally:
        opener.close()


def test_what_is_no_file_is_not_kept_open(tree: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for path in ("/dev/null", str(tree / "in/pipe"), str(tree / "in")):
        with pytest.raises(UsageError, match="no file and no block device"):
            Opener().user(path)
    assert os.listdir("/proc/self/fd") == before


def test_a_disk_of_too_many_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "MAX_FILES", 2)
    with closing(Opener()) as two:
        image = two.user(str(tree / "in/x.qcow2"))
        two.named("a.raw", image)
        with pytest.raises(DamagedError, match="more than 2 files"):
            two.named("a.raw", image)


@pytest.mark.parametrize(("number", "hint"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "ulimit -n"), (errno.EIO, None)])
def test_what_cannot_be_opened(tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str | None) -> None:
    monkeypatch.setattr(opener.os, "open", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(ImgtoolError, match=re.escape(str(tree / "in/x.qcow2"))) as caught:
        Opener().user(str(tree / "in/x.qcow2"))
    assert (caught.value.hint or "").find(hint or "") >= 0
    assert bool(caught.value.hint) == bool(hint)


def test_a_file_of_another_user_is_read_all_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O_NOATIME is for owners only: open(2)."""
    real = os.open

    def refuse(path: str, flags: int) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(path, flags)

    monkeypatch.setattr(opener.os, "open", refuse)
    with closing(Opener()) as one:
        assert one.user(str(tree / "in/x.qcow2")).size == 512


@pytest.mark.parametrize(("offset", "size", "fits"), [(256, 256, True), (256, 257, False), (0, 100, False), (513, 0, False),
                                                      (512, 0, True)])
def test_a_member_must_be_in_its_archive(tree: Path, offset: int, size: int, fits: bool) -> None:
    with closing(Opener()) as one, nullcontext() if fits else pytest.raises(DamagedError, match="cut off: 'd' should be in it"):
        assert one.member(str(tree / "in/a.raw"), Member("d", offset, size)).base == offset


@pytest.mark.parametrize(("limits", "raised"), [
    ((1024, 4096), (4096, 4096)), ((1024, 1 << 20), (65536, 1 << 20)), ((100_000, 1 << 20), None), ((4096, 4096), None)])
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int],
                                                               raised: tuple[int, int] | None) -> None:
    monkeypatch.setattr(opener.resource, "getrlimit", lambda _: limits)
    asked = Mock()
    monkeypatch.setattr(opener.resource, "setrlimit", asked)
    opener.raise_file_limit()
    assert [call.args[1] for call in asked.mock_calls] == ([raised] if raised else [])
