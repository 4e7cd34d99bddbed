"""Which files an image may make us open.

A path that the user types is followed, links included. A name that stands *in* an image must lead to a regular file in or
below the directory of that image, links resolved, until ``allow_external``. All files are opened read-only (O_NOATIME
where we may), so the source keeps even its access time.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
from collections.abc import Callable

from imgtool import storage
from imgtool.errors import DamagedError, ImgtoolError, RefusedError, UsageError
from imgtool.model import ImageFile
from imgtool.model.package import Member
from imgtool.progress import Stop

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
MAX_FILES = 8192
"""Files of one disk, all layers together."""
MOST_OPEN = 65536


class Opener:
    """Opens the files of one disk and closes them all."""

    def __init__(self, *, allow_external: bool = False, stop: Stop | None = None) -> None:
        self.allow_external = allow_external
        self.stop = stop or Stop()
        self._files: list[ImageFile] = []
        self._typed: dict[str, str] = {}
        self._closers: list[Callable[[], None]] = []

    def user(self, path: str) -> ImageFile:
        """A path that the user typed."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise UsageError(f"{path} does not exist") from error
        except OSError as error:  # it may well be there
            raise ImgtoolError(f"cannot read {path}: {error.strerror}") from error
        real = os.path.realpath(path)
        self._typed[real] = os.path.abspath(path)
        return self._open(real, shown=path)

    def member(self, path: str, member: Member) -> ImageFile:
        """A member of an archive that the user named. Raises UsageError, DamagedError where the archive ends before it."""
        archive = self.user(path)
        if not 0 < member.offset <= archive.size - member.size:
            raise DamagedError(f"{path} is cut off: {member.name!r} should be in it as a whole")
        return ImageFile(f"{archive.path}/{member.name}", archive.fd, member.size, member.offset)

    def named(self, name: str, by: ImageFile, *, extent: bool = False) -> ImageFile:
        """A file that the image ``by`` names. Raises RefusedError, DamagedError if it is missing.

        ``extent``: a colon in the name may be one of the file's, since extents have no protocols.
        """
        if by.base:
            raise RefusedError(f"{by.path} names another file, {name!r}: a disk in an archive must be whole",
                               "unpack the archive")
        roots = self._roots(by.path)
        if not (extent and any(os.path.lexists(os.path.join(root, name)) for root in roots)):
            name = self._without_protocol(name, by)
        if not name or "\0" in name:
            raise DamagedError(f"{by.path} names a file with an empty or impossible name")
        if not self.allow_external and os.path.isabs(name) and not any(_inside(name, root) for root in roots):
            raise self._outside(name, by)
        places = [os.path.join(root, name) for root in roots]
        found = next((place for place in places if os.path.lexists(place)), places[0])
        real = os.path.realpath(found)
        if not self.allow_external and not any(_inside(real, os.path.realpath(root)) for root in roots):
            raise self._outside(name, by)
        if not os.path.exists(real):
            raise DamagedError(f"{by.path} needs {name!r}, which is missing", "bring the file back beside it")
        if not (os.path.isfile(real) or (self.allow_external and stat.S_ISBLK(os.stat(real).st_mode))):
            raise RefusedError(f"{by.path} names {name!r}, which is no file")
        return self._open(real, shown=real, regular=not self.allow_external)

    def _without_protocol(self, name: str, by: ImageFile) -> str:
        if not _PROTOCOL.match(name) or name.startswith("file:"):
            return name.removeprefix("file:")
        if self.allow_external:
            raise UsageError(f"{by.path} names {name!r}: imgtool reads files, not protocols")
        raise RefusedError(f"{by.path} names {name!r}, which is no file", "if you trust the image, rebase it onto a local file")

    def _roots(self, path: str) -> list[str]:
        """The directory of the image, and the one through which the user came to it."""
        directories = [os.path.dirname(self._typed.get(path, path)), os.path.dirname(path)]
        return list(dict.fromkeys(directories))

    def _outside(self, name: str, by: ImageFile) -> RefusedError:
        return RefusedError(f"{by.path} names {name!r}, which leads outside its directory",
                            "if you trust the image, say --allow-external")

    def _open(self, real: str, *, shown: str, regular: bool = False) -> ImageFile:
        if len(self._files) >= MAX_FILES:
            raise DamagedError(f"{shown}: the disk has more than {MAX_FILES} files")
        try:
            fd = _open_read(real)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise ImgtoolError(f"too many open files at {shown}", "raise the limit: ulimit -n 65536") from error
            raise ImgtoolError(f"cannot read {shown}: {error.strerror}") from error
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or (stat.S_ISBLK(mode) and not regular)):
            os.close(fd)
            raise UsageError(f"{shown} is no file and no block device")
        opened = ImageFile(real, fd, storage.size_of(fd))
        self._files.append(opened)
        return opened

    def on_close(self, closer: Callable[[], None]) -> None:
        """Something else that ends with this disk: a server."""
        self._closers.append(closer)

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()
        while self._files:
            os.close(self._files.pop().fd)


def _inside(path: str, directory: str) -> bool:
    return os.path.commonpath([os.path.normpath(path), directory]) == directory


def _open_read(path: str) -> int:
    """O_NONBLOCK, so that a FIFO put there does not hang us; O_NOATIME only where the file is ours."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def raise_file_limit() -> None:
    """A split VMDK of 2 TiB has more files than the usual soft limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # never without a limit: the kernel has one, fs.nr_open
    if soft < min(hard, MOST_OPEN):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MOST_OPEN), hard))
