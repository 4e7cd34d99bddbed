"""The drivers that a user gives for Windows: virtio for KVM, VMware's for ESXi; of each kind those that fit this Windows best.

virtio-win has two layouts (``viostor/w10/amd64``, ``amd64/w10``), VMware Tools a third (``pvscsi/Win10/amd64``); a flat folder
has one of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from posixpath import basename

from imgtool.errors import UsageError
from imgtool.guests.guest_tree import GuestTree
from imgtool.guests.windows import media
from imgtool.guests.windows.drivers import PVSCSI, VIOSCSI, VIOSTOR, BootDriver
from imgtool.guests.windows.media import MAX_FILE, Entry
from imgtool.guests.windows.versions import FOLDERS, build_number, driver_folders, vmware_folders
from imgtool.model.guest import Change, GuestInfo, Platform

WANTED = (".sys", ".inf", ".cat", ".dll", ".exe")
OTHER_WORDS = {"amd64": ("x86", "i386", "arm64"), "x86": ("amd64", "x64", "arm64"), "arm64": ("amd64", "x64", "x86", "i386")}
"""Folders of other architectures."""
AGENTS = {"amd64": "qemu-ga-x86_64.msi", "x86": "qemu-ga-i386.msi"}


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Whose drivers these are. ``kinds``: folders, or first parts of names, that are copied; ``folder`` in Windows's."""

    name: str
    folder: str
    kinds: tuple[str, ...]
    boot: tuple[BootDriver, ...]
    nic: tuple[str, str]
    """Its driver, and the model."""


VIRTIO = Maker(name="virtio", folder="Drivers/VirtIO", boot=(VIOSTOR, VIOSCSI), nic=("netkvm", "virtio"),
               kinds=("viostor", "vioscsi", "netkvm", "balloon", "vioserial", "vioser", "viorng", "pvpanic", "qemupciserial",
                      "viogpudo", "vioinput"))
VMWARE = Maker(name="VMware", folder="Drivers/VMware", boot=(PVSCSI,), nic=("vmxnet3", "vmxnet3"), kinds=("pvscsi", "vmxnet3"))
MAKERS = {Platform.KVM: VIRTIO, Platform.ESXI: VMWARE}


@dataclass(frozen=True, kw_only=True)
class Package:
    """Files for one Windows: name in lower case → where it is."""

    maker: Maker
    files: dict[str, Entry]

    @property
    def boot(self) -> tuple[BootDriver, ...]:
        """Storage drivers that it has."""
        return tuple(driver for driver in self.maker.boot if f"{driver.service.lower()}.sys" in self.files)

    @property
    def nic(self) -> tuple[str, ...]:
        """Models of network cards that it drives."""
        driver, model = self.maker.nic
        return (model,) if any(name.startswith(driver) and name.endswith(".sys") for name in self.files) else ()

    @property
    def agent(self) -> str | None:
        """The installer of QEMU's guest agent."""
        return next((name for name in self.files if name.endswith(".msi")), None)


def choose(path: str, info: GuestInfo, platform: Platform) -> Package:
    """Of each driver the one of the newest release that is not newer than this Windows. Raises UsageError, DamagedError."""
    maker = MAKERS[platform]
    server = "Server" in (info.os.edition or "") or "Server" in (info.os.name or "")
    build = build_number(info.os.build)
    releases = driver_folders(build, server=server) if maker is VIRTIO else vmware_folders(build)
    architecture = FOLDERS.get(info.os.arch or "", "amd64")
    best: dict[str, tuple[int, Entry]] = {}
    for entry in media.entries(path):
        parts = entry.name.lower().split("/")
        rank = _rank(parts, releases, architecture, maker)
        if rank is not None and (parts[-1] not in best or rank < best[parts[-1]][0]):
            best[parts[-1]] = (rank, entry)
    package = Package(maker=maker, files={name: entry for name, (_, entry) in best.items()})
    if not package.boot:
        raise UsageError(f"{path} has no {maker.name} storage driver for {info.os.name} ({architecture})",
                         f"looked for: {', '.join(releases)}")
    return package


def _rank(parts: list[str], releases: list[str], architecture: str, maker: Maker) -> int | None:
    """0 is best; None: for another Windows, or nothing that is wanted."""
    if maker is VIRTIO and parts[-1] == AGENTS.get(architecture):
        return 0
    if not parts[-1].endswith(WANTED):
        return None
    if len(parts) == 1:
        return 0
    if any(word in parts for word in OTHER_WORDS[architecture]) or (maker is VIRTIO and architecture not in parts):
        return None
    known = any(kind in parts for kind in maker.kinds) or parts[-1].rsplit(".", 1)[0] in maker.kinds
    ranks = [number for number, release in enumerate(releases) if release.lower() in parts]
    if maker is VMWARE and not ranks and not any(word.startswith(("win", "vista")) for word in parts[:-1]):
        ranks = [len(releases)]
    return ranks[0] if ranks and known else None


def copy(tree: GuestTree, package: Package, keep: Callable[[str], None] | None = None) -> Iterator[Change]:
    """Into a folder of their own, and the storage drivers to where Windows starts them from. ``keep``: as of ``hive.opened``."""
    windows = tree.folded("/Windows") or "/Windows"
    drivers = tree.folded("/Windows/System32/drivers") or f"{windows}/System32/drivers"
    boot = {f"{driver.service.lower()}.sys" for driver in package.boot}
    for name, entry in package.files.items():
        data = entry.read()
        for path in [f"{windows}/{package.maker.folder}/{basename(name)}", *([f"{drivers}/{name}"] if name in boot else [])]:
            if not tree.is_file(path) or tree.read(path, limit=MAX_FILE) != data:
                if keep is not None and tree.is_file(path):
                    keep(path)
                tree.write(path, data)
                yield Change(what=f"copied {name}", where=path, why=f"a driver of {package.maker.name}")
