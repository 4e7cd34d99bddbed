"""Which file systems ``--only-used`` leaves whole: those whose own mount would need what another mount has freed."""

from __future__ import annotations

from typing import Any

import pytest

from imgtool.guests import trim

SUPER = bytes(trim.BTRFS_SUPER[1])
LOGGED = bytes(0x60) + b"\1" + SUPER[0x61:]


class Appliance:
    """One file system; ``said`` is what programs and functions say of it, one after another."""

    def __init__(self, kind: str, **said: list[Any]) -> None:
        self.kind, self.said, self.called = kind, said, list[str]()

    def call(self, name: str, *_: object, **__: object) -> Any:
        self.called.append(name)
        match name:
            case "list_partitions" | "list_md_devices" | "lvs" | "vgs":
                return []
            case "list_devices":
                return ["/dev/sda"]
            case "vfs_type":
                return self.kind
            case "pread_device":
                return self.said["super"][0]
            case _:
                return self.said[name].pop(0) if name in self.said else None

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
