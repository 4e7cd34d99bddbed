"""inspect: the operating system inside the disks of a machine. Nothing is written: an overlay takes what a mount writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imgtool import files
from imgtool.guests import overlay
from imgtool.guests.appliance import appliance, require_guestfs
from imgtool.guests.checks import ntfs_state
from imgtool.guests.inside import entered, find
from imgtool.guests.keys import read_keys
from imgtool.guests.knowledge import describe, stranger
from imgtool.model.guest import GuestInfo, InspectRequest
from imgtool.progress import Control


def inspect(request: InspectRequest, control: Control, *, keys: Sequence[str] = ()) -> GuestInfo:
    """One start of the appliance. ``keys``: passphrases beside those of the key files.

    Raises LockedError, RefusedError, DamagedError, MissingToolError.
    """
    require_guestfs()
    keys = (*read_keys(request.key_files), *keys)
    with (overlay.opened(request.images, request.reading, writing=False, stop=control.stop) as disks,
          files.scratch("inspect") as folder,
          overlay.overlays(disks, folder, stop=control.stop) as made,
          appliance(made, stop=control.stop) as handle):
        found = find(handle, keys, write=False)
        if found.root is None:
            info = stranger(handle, found.volumes)
            return replace(info, warnings=(*found.warnings, *info.warnings))
        state = ntfs_state(handle, found.root.device) if found.root.family == "windows" else None
        with entered(handle, found, write=False) as inside:
            info = describe(inside)
    if info.os.family == "windows":
        info = replace(info, details=info.details | {"volume_state": state or "at rest"})
    warnings = dict.fromkeys(warning for disk in disks for warning in disk.warnings)
    return replace(info, warnings=(*warnings, *inside.warnings, *info.warnings))
