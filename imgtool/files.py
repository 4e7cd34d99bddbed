"""The only place for temporary files: a result is built in a hidden folder beside its final name and then moved.

``workspace`` makes the folder ``.imgtool-XXXX`` in the directory of the destination, holds a lock in it, and takes away what
killed runs of this host left. ``publish`` moves the finished files out, the one that makes the others valid (the
descriptor) last: that rename is the commit. A journal in the folder lets the next run undo or finish a publish that was
killed between two renames.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from imgtool.errors import RefusedError
from imgtool.storage import raise_os

PREFIX = ".imgtool-"
GOES_ON = f"{PREFIX}migrate-"
"""What a stopped migration has left in its ``--staging``: not for others to take away, however old it is."""
SCRATCH = "imgtool-tmp-"
YOUNG = 60
"""Seconds for which a folder may be without its lock: it was made just now."""
OWNER = ".owner"
JOURNAL = ".publish.json"
ABANDONED = 3600
"""Seconds after which a folder with something in it, but without an owner's file, counts as left behind."""

RENAME_NOREPLACE = 1
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

HOSTILE = re.compile(r'[\x00-\x1f\x7f/\\"]')
MAX_STEM = 180
"""Bytes: leaves room for ``-flat.vmdk``, ``_1`` and the like in a name of 255."""


def host_id() -> str:
    """What tells this host from others that see the same storage."""
    with suppress(OSError):
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or os.uname().nodename
    return os.uname().nodename


@contextmanager
def workspace(directory: str) -> Iterator[str]:
    """A folder on the same file system as ``directory``; gone at the end. Raises NoSpaceError and the like."""
    clean(directory)
    try:
        folder, owner = _own_folder(directory)
    except OSError as error:
        raise_os(error, f"making a folder for the result in {directory}")
    try:
        with owner:
            yield folder
    finally:
        with suppress(OSError):
            _discard(folder)


@contextmanager
def scratch(purpose: str) -> Iterator[str]:
    """A folder of our own among the temporary files (TMPDIR), for sockets and copies that nobody else needs; gone at the end.

    Its path is short: that of a socket has 107 bytes at most.
    """
    _sweep(tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix=f"{SCRATCH}{purpose}-")
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


@cache
def _sweep(directory: str) -> None:
    """Takes away what killed runs of this user have left there: older than a minute, and nobody holds it."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(SCRATCH) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _sweep_one(entry.path)


def _sweep_one(folder: str) -> None:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(held)
        if found.st_uid == os.geteuid() and time.time() - found.st_mtime > YOUNG:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def _own_folder(directory: str) -> tuple[str, IO[str]]:
    """A new folder and its owner's file, open and locked. Begins again if another's ``clean`` was quicker than the lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=directory)
        try:
            return folder, _locked_owner(os.path.join(folder, OWNER))
        except FileNotFoundError:
            continue
        except BaseException:
            with suppress(OSError):
                _discard(folder)
            raise


def _locked_owner(path: str) -> IO[str]:
    """Raises FileNotFoundError if the file is taken away before the lock is ours."""
    owner = open(path, "x", encoding="utf-8", buffering=1)  # noqa: SIM115
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        owner.write(json.dumps({"host": host_id(), "pid": os.getpid()}) + "\n")
        os.stat(path)
    except BaseException:
        with suppress(OSError):
            owner.close()
        raise
    return owner


def _discard(folder: str) -> None:
    """Takes a folder away. Killed at any point, the rest says the same as before.

    The journal goes first: without the files, it would speak of a publish that was committed. The owner's file goes last.
    It may be a stranger's: nothing outside goes, whatever he puts in its place meanwhile.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in sorted(os.listdir(fd), key=lambda name: (name != JOURNAL, name == OWNER)):
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(folder)


def clean(directory: str) -> None:
    """Takes away what killed runs left in ``directory``. What another host or a live process has stays."""
    try:
        left = [entry for entry in os.scandir(directory) if entry.name.startswith(PREFIX) and not entry.name.startswith(GOES_ON)]
    except OSError as error:
        raise_os(error, f"reading {directory}")
    for entry in left:
        with suppress(OSError, ValueError, LookupError, TypeError):
            if entry.is_dir(follow_symlinks=False) and not _of_another(entry, directory):
                _clean_one(entry.path)


def _of_another(entry: os.DirEntry[str], directory: str) -> bool:
    """In a directory like /var/tmp others may make folders, but not remove files: nor may they have us do it, by a journal."""
    return bool(os.stat(directory).st_mode & stat.S_ISVTX) and entry.stat(follow_symlinks=False).st_uid != os.geteuid()


def _clean_one(folder: str) -> None:
    """The folder may be a stranger's (of an archive that was unpacked): only a journal that bears this host's id is believed."""
    try:
        fd = os.open(os.path.join(folder, OWNER), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if not os.listdir(folder) or time.time() - os.stat(folder).st_mtime > ABANDONED:
            _discard(folder)
        return
    with open(fd, encoding="utf-8") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        host = _read_json(owner).get("host")
        if host not in (None, host_id()):
            return
        if host:  # none: killed before it wrote anything else
            _recover(folder)
        _discard(folder)


def _read_json(file: IO[str]) -> dict[str, Any]:
    """What a file of ours says; nothing if its writer was killed while writing."""
    try:
        found = json.load(file)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _recover(folder: str) -> None:
    """Undoes a publish that was not committed, finishes one that was. Without a whole journal nothing was moved yet."""
    try:
        with open(os.path.join(folder, JOURNAL), encoding="utf-8") as file:
            journal = _read_json(file)
    except FileNotFoundError:
        return
    directory = os.path.dirname(folder)
    *others, last = journal.get("members", [""])
    committed = not os.path.lexists(os.path.join(folder, last))
    gone = journal["obsolete"] if committed else [
        name for name in others if not os.path.lexists(os.path.join(folder, name))]
    for name in gone:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, os.path.basename(name)))


def publish(folder: str, members: Sequence[str], *, replace: bool, obsolete: Sequence[str] = ()) -> None:
    """Flushes the files ``members`` of a workspace and moves them beside it; the last one is the commit.

    ``replace`` lets the last one take the place of an existing file; the others must have names that are free.
    ``obsolete`` are files beside, that only the replaced image needed. Raises RefusedError if a name is taken.
    """
    directory = os.path.dirname(folder)
    try:
        for name in members:
            sync(os.path.join(folder, name))
        journal = Path(folder, JOURNAL)
        journal.write_text(json.dumps({"members": list(members), "obsolete": list(obsolete)}), encoding="utf-8")
        sync(str(journal))
        sync(folder)
        _move(folder, directory, members, replace=replace)
        for name in obsolete:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
        sync(directory)
    except OSError as error:
        raise_os(error, f"publishing {members[-1]} in {directory}")


def _move(folder: str, directory: str, members: Sequence[str], *, replace: bool) -> None:
    moved: list[str] = []
    try:
        for name in members:
            last = name == members[-1]
            if last:
                sync(directory)
            rename(os.path.join(folder, name), os.path.join(directory, name), replace=replace and last)
            moved.append(name)
        sync(directory)
    except BaseException as error:
        if len(moved) < len(members):
            for name in moved:
                os.unlink(os.path.join(directory, name))
        if isinstance(error, RefusedError) and len(moved) < len(members) - 1:  # the name was free
            raise RefusedError(error.message, "it was made meanwhile, by another run perhaps: begin again") from error
        raise


def rename(old: str, new: str, *, replace: bool) -> None:
    """rename(2); without ``replace`` an existing ``new`` is never overwritten, a folder with files in it never: RefusedError."""
    if replace:
        try:
            os.rename(old, new)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise RefusedError(f"{new} is not empty any more", "name a new directory") from error
        return
    if not _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), RENAME_NOREPLACE):
        return
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS) and not os.path.lexists(new):  # a file system without RENAME_NOREPLACE
        os.rename(old, new)
        return
    if code in (errno.EEXIST, errno.EINVAL, errno.ENOSYS):
        raise RefusedError(f"{new} exists", "use --force to replace it")
    raise OSError(code, os.strerror(code), new)


def sync(path: str) -> None:
    """fsync(2) of a file or directory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def put(path: str, content: bytes, *, replace: bool) -> None:
    """A small new file, whole or not at all. Raises RefusedError if it exists and may not be replaced, NoSpaceError."""
    directory, name = os.path.split(os.path.abspath(path))
    with workspace(directory) as folder:
        try:
            Path(folder, name).write_bytes(content)
        except OSError as error:
            raise_os(error, f"writing {path}")
        publish(folder, [name], replace=replace)


@contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """A new content for one small file: written aside with the same mode and owner, flushed, renamed. Raises NoSpaceError."""
    directory, name = os.path.split(path)
    with workspace(directory) as folder:
        try:
            old = os.stat(path)
            with open(os.path.join(folder, name), "xb") as file:
                yield file
                os.fchmod(file.fileno(), old.st_mode & 0o7777)
                with suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
        except OSError as error:
            raise_os(error, f"writing {path}")
        publish(folder, [name], replace=True)


def file_name(text: str) -> str:
    """A name from a description as the name of a file, without a suffix."""
    name = HOSTILE.sub("_", text).strip().lstrip(".") or "machine"
    return name.encode("utf-8", "replace")[:MAX_STEM].decode("utf-8", "ignore")
