"""From an appliance with all disks to the guest on them: unlocked, found, mounted. What ``inspect`` and ``adapt`` share."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from imgtool.errors import DamagedError, ImgtoolError, LockedError, NoSpaceError, RefusedError
from imgtool.guests import checks, mounts, volumes
from imgtool.guests.appliance import Handle
from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.mounts import Mounted, Root
from imgtool.guests.volumes import Volumes
from imgtool.model.guest import FileSystem

WRONG = (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG,
         errno.ENXIO)
"""What a call says of a file that is damaged, or is something else than its name promises."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is on the disks, before anything is mounted."""

    volumes: Volumes
    root: Root | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inside:
    """The guest's files, all its file systems mounted."""

    handle: Handle
    tree: GuestTree
    root: Root
    filesystems: tuple[FileSystem, ...]
    warnings: tuple[str, ...] = ()


def find(handle: Handle, keys: Sequence[str], *, write: bool = True) -> Found:
    """Raises LockedError if the system may be on what stays locked; for writing RefusedError, where it is BitLocker's."""
    known = volumes.examine(handle, keys)
    roots = mounts.roots(handle, known)
    bitlocker = [one.device for one in known.filesystems if one.type == "BitLocker"]
    if not roots and bitlocker and write:
        raise RefusedError(f"{bitlocker[0]} is encrypted with BitLocker",
                           "start Windows, run: manage-bde -off C:, and wait until it is done")
    if not roots and known.locked:
        raise LockedError(f"{', '.join(known.locked)} is encrypted" + (", and none of the keys opens it" if keys else ""),
                          "--key-file FILE with its passphrase")
    warnings = [f"{device} is encrypted, and stays closed" for device in (*known.locked, *bitlocker)]
    root = mounts.choose(handle, roots, known) if roots else None
    others = [one.device for one in roots if one != root]
    if others:
        warnings.append(f"there are other systems on {', '.join(dict.fromkeys(others))}: they are left alone")
    return Found(volumes=known, root=root, warnings=tuple(warnings))


@contextmanager
def entered(handle: Handle, found: Found, *, write: bool) -> Iterator[Inside]:
    """The guest mounted, for as long as the block lasts. Raises DamagedError, also where a changed file system is not sound.

    For writing: file systems are checked before and after; their journals are replayed first.
    """
    assert found.root is not None  # noqa: S101 - the caller asked
    if write:
        _refuse_unsafe(handle, found.root)
        ready = mounts.mount_all(handle, found.root, found.volumes, write=True)
        handle.call("umount_all")
        checks.refuse_damaged(handle, ready.mounts)
    mounted = mounts.mount_all(handle, found.root, found.volumes, write=write)
    with GuestTree(handle) as tree, _explained():
        yield Inside(handle=handle, tree=tree, root=found.root, warnings=(*found.warnings, *mounted.warnings),
                     filesystems=tuple(_measured(tree, one, mounted) for one in found.volumes.filesystems))
    handle.call("umount_all")
    if write:
        checks.require_sound(handle, mounted.mounts)


@contextmanager
def _explained() -> Iterator[None]:
    """What a file system of the guest says no to, as an error of ours. Files of this host, which have names, are not meant.

    Read-only is a flag in the file system itself, which mounting does not complain of; a snapshot of btrfs; or a sudden fault.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno == errno.EROFS:
            raise RefusedError(f"a file system of the guest is read-only: {error.strerror}",
                               "tune2fs -O ^read-only, or btrfs property set PATH ro false, if it may be written") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"a file system of the guest is full: {error.strerror}", "make room in the guest") from error
        kind = DamagedError if error.errno in WRONG else ImgtoolError
        raise kind(f"a file of the guest is not what it should be: {error.strerror}",
                   "see what it is in the guest: a link that leads nowhere, a folder, or a damaged file") from error


def _measured(tree: GuestTree, one: FileSystem, mounted: Mounted) -> FileSystem:
    point = mounted.points.get(one.device)
    if point is not None:
        own = [word for mount in mounted.mounts if mount.device == one.device for word in mount.options.split(",")]
        names = tuple(dict.fromkeys(word.removeprefix("subvol=") for word in own if word.startswith("subvol=")))
        with suppress(OSError):
            return replace(one, mounted_at=point, free=tree.free(point), subvolumes=names)
    return one


def _refuse_unsafe(handle: Handle, root: Root) -> None:
    why = checks.ntfs_state(handle, root.device) if root.family == "windows" else None
    if why:
        raise RefusedError(f"the Windows volume on {root.device} must not be written: {why}",
                           "start Windows, run: powercfg /h off, then shut it down with: shutdown /s /t 0")
