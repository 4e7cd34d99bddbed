"""The guest's mounted root as a ``Tree``, through libguestfs. Everything happens in the appliance, below its ``/sysroot``."""

from __future__ import annotations

import fnmatch
import os
import stat as modes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from imgtool import files
from imgtool.errors import DamagedError
from imgtool.guests.appliance import LONG, Handle
from imgtool.guests.tree import KEPT, NEW_FILE, READ_LIMIT, Stat

SELINUX = "security.selinux"
MAGIC = "*?["
MAX_LINKS = 40
"""As Linux itself allows."""
SMALL = 1 << 20
"""Bytes that go through in one message: libguestfs takes less than 4 MiB."""


class GuestTree:
    """See ``Tree``. Names that are no UTF-8 are listed, but what they name is not there: libguestfs takes no such names."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._stack = ExitStack()
        self._local = os.path.join(self._stack.enter_context(files.scratch("tree")), "file")
        self._listed: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes:
        status = self._regular(path)
        if status.size > limit:
            raise DamagedError(f"{path} in the guest has {status.size} bytes: at most {limit} are read")
        if status.size <= SMALL:  # a download takes 0.1 s, a call 1 ms
            return bytes(self._handle.call("pread", path, status.size, 0)) if status.size else b""
        self._handle.call("download", path, self._local, seconds=LONG)
        with open(self._local, "rb") as file:
            return file.read(limit)

    def text(self, path: str, *, limit: int = READ_LIMIT) -> str:
        """As text; "" where there is no such file, or it is too large."""
        try:
            return self.read(path, limit=limit).decode("utf-8", "replace")
        except (OSError, DamagedError):
            return ""

    def exists(self, path: str) -> bool:
        return self._mode(path) is not None

    def lexists(self, path: str) -> bool:
        """Something has that name, be it a broken link."""
        with suppress(OSError):
            self._handle.call("lstatns", path)
            return True
        return False

    def is_dir(self, path: str) -> bool:
        return modes.S_ISDIR(self._mode(path) or 0)

    def is_file(self, path: str) -> bool:
        return modes.S_ISREG(self._mode(path) or 0)

    def glob(self, pattern: str) -> list[str]:
        found = ["/"]
        for part in filter(None, pattern.split("/")):
            found = [os.path.join(folder, name) for folder in found for name in self._matching(folder, part)]
        return sorted(path for path in found if path != "/")

    def _matching(self, folder: str, part: str) -> Iterator[str]:
        if not any(char in part for char in MAGIC):
            if self.lexists(os.path.join(folder, part)):
                yield part
            return
        hidden = part.startswith(".")
        yield from (name for name in self.ls(folder) if fnmatch.fnmatchcase(name, part) and (hidden or not name.startswith(".")))

    def folded(self, path: str) -> str | None:
        """The path in the letters that an NTFS volume has it in; None if it is not there."""
        found = "/"
        for part in filter(None, path.split("/")):
            name = next((name for name in self.ls(found) if name.lower() == part.lower()), None)
            if name is None:
                return None
            found = os.path.join(found, name)
        return found

    def ls(self, path: str) -> list[str]:
        if path not in self._listed:
            try:
                self._handle.call("ls0", path, self._local)
            except OSError:
                return []
            with open(self._local, "rb") as file:
                self._listed[path] = sorted(os.fsdecode(name) for name in file.read().split(b"\0") if name)
        return list(self._listed[path])

    def readlink(self, path: str) -> str | None:
        try:
            return str(self._handle.call("readlink", path))
        except OSError:
            return None

    def realpath(self, path: str) -> str:
        try:
            return str(self._handle.call("realpath", path))
        except OSError:
            return self._followed(path)

    def _followed(self, path: str) -> str:
        """Of a path that leads to nothing: where that would be. As it is written if its links go in a circle."""
        found, waiting, links = "/", path.split("/")[::-1], 0
        while waiting:
            here = os.path.normpath(os.path.join(found, waiting.pop()))
            target = self.readlink(here)
            if target is None:
                found = here
            elif (links := links + 1) > MAX_LINKS:
                return path
            else:
                waiting += target.split("/")[::-1]
                found = "/" if target.startswith("/") else found
        return found

    def stat(self, path: str) -> Stat:
        found = self._handle.call("statns", path)
        return Stat(mode=found["st_mode"], uid=found["st_uid"], gid=found["st_gid"], mtime=found["st_mtime_sec"],
                    size=found["st_size"])

    def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        if len(data) <= SMALL:
            self._place(path, mode, lambda real: self._handle.call("write", real, data))
            return
        with open(self._local, "wb") as file:
            file.write(data)
        self.upload(self._local, path, mode=mode)

    def symlink(self, target: str, path: str) -> None:
        self.mkdir(os.path.dirname(path))
        self._listed.clear()
        self._handle.call("ln_sf", target, path)
        self._label(path)

    def remove(self, path: str) -> None:
        self._listed.clear()
        with suppress(FileNotFoundError):
            self._handle.call("rm", path)

    def rename(self, old: str, new: str) -> None:
        self._listed.clear()
        self._handle.call("rename", old, new)

    def keep(self, path: str) -> None:
        """Copies a file to ``PATH.imgtool-orig``, if there is none yet."""
        if not self.lexists(path + KEPT):
            self._listed.clear()
            self._handle.call("cp", path, path + KEPT, seconds=LONG)

    def mkdir(self, path: str) -> None:
        if not self.is_dir(path):
            self.mkdir(os.path.dirname(path))
            self._listed.clear()
            self._handle.call("mkdir_p", path)
            self._label(path)

    def free(self, path: str) -> int:
        found = self._handle.call("statvfs", path)
        return int(found["bavail"]) * int(found["frsize"] or found["bsize"])

    def download(self, path: str, local: str) -> None:
        self._regular(path)
        self._handle.call("download", path, local, seconds=LONG)

    def upload(self, local: str, path: str, *, mode: int | None = None) -> None:
        self._place(path, mode, lambda real: self._handle.call("upload", local, real, seconds=LONG))

    def _place(self, path: str, mode: int | None, put: Callable[[str], object]) -> None:
        """Into the old file, so that its owner, mode and attributes stay; the overlay below makes it all or nothing."""
        real = self.realpath(path)
        old = self._mode(real)
        if old is not None and not modes.S_ISREG(old):
            raise DamagedError(f"{path} in the guest is no regular file")
        if old is None:
            self.mkdir(os.path.dirname(real))
            self._listed.clear()
        put(real)
        if old is None:
            with suppress(OSError):  # vfat has neither
                self._handle.call("chmod", NEW_FILE if mode is None else mode, real)
            self._label(real)

    def _label(self, path: str) -> None:
        """What is new gets the SELinux context of its folder, as the kernel would do; where there is none, none."""
        with suppress(OSError):
            label = self._handle.call("getxattr", os.path.dirname(path), SELINUX).rstrip(b"\0").decode()
            self._handle.call("lsetxattr", SELINUX, label, len(label), path)

    def _mode(self, path: str) -> int | None:
        try:
            return int(self._handle.call("statns", path)["st_mode"])
        except OSError:
            return None

    def _regular(self, path: str) -> Stat:
        status = self.stat(path)
        if not modes.S_ISREG(status.mode):
            raise DamagedError(f"{path} in the guest is no regular file")
        return status
