"""Systems that are neither Linux nor Windows, by the types of their partitions and file systems: named, and left as they are."""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.guests.appliance import Handle
from imgtool.guests.volumes import Volumes, tags

MBR_TYPES = {0xA5: "freebsd", 0xA6: "openbsd", 0xA9: "netbsd", 0xAF: "macos", 0xBF: "solaris", 0xFB: "esxi", 0xFC: "esxi"}
GPT_TYPES = {
    "516E7CB": "freebsd", "824CC7A": "openbsd", "49F48D": "netbsd", "48465300": "macos", "7C3457EF": "macos",
    "6A898CC3": "solaris", "AA31E02A": "esxi", "9D275380": "esxi", "FE3A2A5D": "chromeos",
}
"""First digits of partition types that only one system has."""
FILE_SYSTEMS = {"ufs": "bsd", "hfsplus": "macos", "apfs": "macos", "VMFS_volume_member": "esxi", "minix": "minix"}


def family(handle: Handle, volumes: Volumes) -> str:
    """freebsd, openbsd, netbsd, macos, solaris, esxi, …, or unknown."""
    return next(_families(handle, volumes), "unknown")


def _families(handle: Handle, volumes: Volumes) -> Iterator[str]:
    for partition in handle.call("list_partitions"):
        kind = tags(handle, partition).get("PART_ENTRY_TYPE", "")
        if kind.startswith("0x"):
            found = MBR_TYPES.get(int(kind, 16))
        else:
            found = next((name for start, name in GPT_TYPES.items() if kind.upper().startswith(start)), None)
        if found:
            yield found
    yield from (FILE_SYSTEMS[one.type] for one in volumes.filesystems if one.type in FILE_SYSTEMS)
