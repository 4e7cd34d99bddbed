"""adapt: the guest boots and has its network on other hardware. In place, whole or not at all (``guests/overlay.py``)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from imgtool.formats.disk import Disk
from imgtool.guests import checks, overlay
from imgtool.guests.appliance import Handle, appliance, require_guestfs
from imgtool.guests.inside import Inside, entered, find
from imgtool.guests.keys import read_keys
from imgtool.guests.knowledge import change, stranger
from imgtool.guests.linux.edit import kept_name
from imgtool.model.guest import AdaptRequest, AdaptResult
from imgtool.progress import Control, Progress


def adapt(request: AdaptRequest, control: Control, *, keys: Sequence[str] = ()) -> AdaptResult:
    """One start of the appliance; the images are written at the very end. ``keys``: passphrases beside those of the key files.

    Raises LockedError, RefusedError, DamagedError, NoSpaceError, MissingToolError; then the images are as they were.
    """
    begin = time.monotonic()
    require_guestfs()
    keys = (*read_keys(request.key_files), *keys)
    if not request.dry_run:
        overlay.finish(request.images[0], stop=control.stop)
    with (overlay.opened(request.images, request.reading, writing=True, stop=control.stop) as disks,
          overlay.redo_folder(request.images) as folder):
        result = adapt_overlays(disks, folder, request, control, keys=keys)
        if result.changes and not request.dry_run:
            overlay.commit(folder, disks, request.reading, stop=control.stop)
        warnings = dict.fromkeys(warning for disk in disks for warning in disk.warnings)
    return replace(result, seconds=round(time.monotonic() - begin, 3), warnings=(*warnings, *result.warnings))


def adapt_overlays(disks: Sequence[Disk], folder: str, request: AdaptRequest, control: Control, *,
                   keys: Sequence[str] = ()) -> AdaptResult:
    """Changes the guest in overlays that are made in ``folder`` (``0.qcow2``, …); the disks, which are open, are only read.

    The request's images are not looked at.
    """
    with overlay.overlays(disks, folder, stop=control.stop) as made, appliance(made, stop=control.stop) as handle:
        result = change_guest(handle, request, keys, control.progress)
    control.stop.check()
    return result


def change_guest(handle: Handle, request: AdaptRequest, keys: Sequence[str], progress: Progress) -> AdaptResult:
    """``adapt`` in an appliance that has the machine's disks. Raises LockedError, RefusedError, DamagedError, ImgtoolError."""
    found = find(handle, keys)
    if found.root is None:
        info = stranger(handle, found.volumes)
        return AdaptResult(os=info.os, warnings=(*found.warnings, *info.warnings))
    with entered(handle, found, write=True) as inside:
        since = checks.now(handle)
        result = change(inside, request, progress)
        result = replace(result, unlisted=tuple(sorted(_unlisted(inside, since, result))))
    return replace(result, warnings=(*inside.warnings, *result.warnings))


def _unlisted(inside: Inside, since: str, result: AdaptResult) -> Iterator[str]:
    """What was written, but is neither in the list of changes, as itself or by a link to it, nor a backup of what is."""
    paths = {path for change in result.changes for path in (change.where, inside.tree.realpath(change.where))}
    listed = paths | set(map(kept_name, paths))
    yield from (path for path in checks.touched(inside.handle, since) if path not in listed)
