"""Which file systems ``--only-used`` leaves whole: those whose own mount would need what another mount has freed."""

from __future__ import annotations

from typing import Any

import pytest

from imgtool.errors import ImgtoolError
from imgtool.guests import trim

SUPER = bytes(trim.BTRFS_SUPER[1])
LOGGED = bytes(0x60) + b"\1" + SUPER[0x61:]


class Appliance:
    """One file system; ``said`` is what programs and functions say of it, one after another; an error is raised."""

    def __init__(self, kind: str, *, groups: tuple[str, ...] = (), **said: list[Any]) -> None:
        self.kind, self.groups, self.said, self.called = kind, groups, said, list[str]()

    def call(self, name: str, *_: object, **__: object) -> Any:
        self.called.append(name)
        match name:
            case "list_partitions" | "list_md_devices" | "lvs":
                return []
            case "vgs":
                return self.groups
            case "list_devices":
                return ["/dev/sda"]
            case "vfs_type":
                return self.kind
            case "pread_device":
                return self.said["super"].pop(0) if len(self.said["super"]) > 1 else self.said["super"][0]
            case _:
                found = self.said[name].pop(0) if name in self.said else None
                if isinstance(found, Exception):
                    raise found
                return found

    def run(self, command: str) -> tuple[int, str]:
        program = command.split(maxsplit=1)[0]
        self.called.append(program)
        return 0, self.said.get(program, [""])[0]


def ext(*features: str, orphan: str | None = None) -> dict[str, str]:
    return {"Filesystem features": " ".join(("has_journal", *features))} | ({"First orphan inode": orphan} if orphan else {})


@pytest.mark.parametrize(("kind", "said", "why"), [
    ("ext4", {"tune2fs_l": [ext()]}, None),
    ("ext4", {"tune2fs_l": [ext("needs_recovery"), ext()]}, None),
    ("ext4", {"tune2fs_l": [ext(orphan="12")]}, trim.OPEN_FILES),
    ("ext3", {"tune2fs_l": [ext("needs_recovery"), ext(orphan="12")]}, trim.OPEN_FILES),
    ("ext4", {"tune2fs_l": [ext("orphan_present")]}, trim.OPEN_FILES),
    ("ext4", {"tune2fs_l": [ext("needs_recovery"), ext("needs_recovery")]}, trim.TO_REPLAY),
    ("ext4", {"tune2fs_l": [ext("needs_recovery", "fast_commit")]}, trim.TO_REPLAY),
    ("xfs", {"xfs_logprint": ["    log tail: 875 head: 875 state: <CLEAN>"]}, None),
    ("xfs", {"xfs_logprint": ["    log tail: 856 head: 860 state: <DIRTY>"]}, trim.TO_REPLAY),
    ("xfs", {"xfs_logprint": ["sh: xfs_logprint: not found"]}, trim.TO_REPLAY),
    ("ntfs", {"ntfs_3g_probe": [0]}, None),
    ("ntfs", {"ntfs_3g_probe": [15]}, "it was not shut down cleanly"),
    ("btrfs", {"super": [SUPER]}, None),
    ("btrfs", {"super": [LOGGED]}, trim.TO_REPLAY),
    ("vfat", {}, None),
])
def test_what_was_not_left_at_rest_is_copied_whole(kind: str, said: dict[str, list[Any]], why: str | None) -> None:
    appliance = Appliance(kind, **said)
    (found,) = trim.trim(appliance)  # type: ignore[arg-type]
    assert found.why == why
    assert ("fstrim" in appliance.called) == (why is None)
    assert appliance.called.count("mount_options") == (why is None)


def test_what_cannot_be_mounted_or_trimmed_is_copied_whole() -> None:
    for step in ("mount_options", "fstrim"):
        appliance = Appliance("vfat", **{step: [OSError(95, "the operation is not supported")]})
        (found,) = trim.trim(appliance)  # type: ignore[arg-type]
        assert found.why == "the operation is not supported"
        assert ("umount_all" in appliance.called) == (step == "fstrim")


@pytest.mark.parametrize(("magic", "why"), [(b"SWAPSPACE2", None), (b"S1SUSPEND\0", "a system sleeps in it")])
def test_of_swap_the_first_page_stays_and_a_sleeping_system_whole(magic: bytes, why: str | None) -> None:
    appliance = Appliance("swap", super=[bytes(trim.SWAP_PAGE - 10) + magic])
    (found,) = trim.trim(appliance)  # type: ignore[arg-type]
    assert (found.why or "").startswith(why or "")
    assert bool(found.why) == bool(why)
    written = [name for name in appliance.called if name in ("blkdiscard", "pwrite_device")]
    assert written == ([] if why else ["blkdiscard", "pwrite_device"])


def test_a_btrfs_that_moved_its_trees_is_not_copied() -> None:
    """What its superblock names would read as zeros."""
    appliance = Appliance("btrfs", super=[SUPER, SUPER, b"\1" + SUPER[1:]])
    with pytest.raises(ImgtoolError, match="btrfs has moved its trees"):
        list(trim.trim(appliance))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", ["lvcreate_free", "blkdiscard"])
def test_a_volume_group_without_free_extents_is_copied_whole(step: str) -> None:
    appliance = Appliance("LVM2_member", groups=("vg",), **{step: [OSError(5, "no free extents")]})
    (found,) = trim.trim(appliance)  # type: ignore[arg-type]
    assert (found.device, found.type, found.why) == ("vg", "LVM free extents", "no free extents")
