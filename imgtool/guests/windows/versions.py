"""Releases of Windows: how the registry numbers them, and how virtio-win names the folders of their drivers."""

from __future__ import annotations

import re

CLIENTS = ((22000, "w11"), (10240, "w10"), (9600, "w8.1"), (9200, "w8"), (7600, "w7"))
SERVERS = ((26100, "2k25"), (20348, "2k22"), (17763, "2k19"), (14393, "2k16"), (9600, "2k12R2"), (9200, "2k12"), (7600, "2k8R2"))
"""First build of each release, newest first."""
VMWARE = ((10240, "win10"), (9200, "win8"), (7600, "win7"), (6000, "vista"))
"""Folders of VMware Tools."""
ARCHITECTURES = {"AMD64": "x86_64", "x86": "i686", "ARM64": "aarch64"}
FOLDERS = {"x86_64": "amd64", "i686": "x86", "aarch64": "arm64"}
DRIVER_DATABASE = 9200
"""From this build on (Windows 8) drivers are bound by the DriverDatabase, before by the CriticalDeviceDatabase."""
OLDEST = 7600
"""Windows 7, Server 2008 R2."""


def build_number(text: str | None) -> int:
    """Of what the registry says, which may be anything; 0: it is no number."""
    return int(text) if text and re.fullmatch("[0-9]{1,9}", text) else 0


def driver_folders(build: int, *, server: bool) -> list[str]:
    """Folders of virtio-win for this release, best first: its own, then those of the releases before it."""
    known = SERVERS if server else CLIENTS
    return [name for first, name in known if first <= build]


def vmware_folders(build: int) -> list[str]:
    """The same in VMware Tools, which knows no servers."""
    return [name for first, name in VMWARE if first <= build]
