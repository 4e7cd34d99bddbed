"""The kernels of a guest: image, initramfs, modules, drivers, and which one boots when nobody chooses.

A kernel counts if its modules are there: without them nothing can be said, or done, about its drivers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from posixpath import basename, dirname

from imgtool.errors import DamagedError
from imgtool.guests.linux import drivers, initramfs
from imgtool.guests.linux.bootloaders import efi
from imgtool.guests.linux.bootloaders.bls import version_key
from imgtool.guests.linux.bootloaders.menu import Entry, Menu
from imgtool.guests.linux.edit import text
from imgtool.guests.linux.initramfs import Initramfs
from imgtool.guests.linux.modules import Modules, read_modules
from imgtool.guests.tree import Tree
from imgtool.model.guest import KernelInfo

FOLDERS = ("/lib/modules", "/usr/lib/modules")
IMAGES = ("/boot/vmlinuz-{0}", "/boot/vmlinux-{0}", "/boot/Image-{0}", "/boot/image-{0}", "/boot/kernel-{0}")
INITRAMFS = ("/boot/initrd.img-{0}", "/boot/initramfs-{0}.img", "/boot/initrd-{0}", "/boot/initramfs-{0}", "/boot/initrd-{0}.img")
"""Debian and Photon; Red Hat, Amazon and Arch; SUSE; Alpine; Gentoo."""
MAX_KERNELS = 64


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """``initramfs`` is None if there is none, ``contents`` None if it could not be read: ``trouble`` says why."""

    version: str
    path: str
    modules: Modules
    entry: Entry | None
    default: bool
    initramfs: str | None
    contents: Initramfs | None
    trouble: str | None = None

    def has(self, name: str) -> bool:
        """The driver is on the disk, or built in."""
        return self.modules.has(name)

    def early(self, name: str) -> bool:
        """The driver is there before the root file system is: in the initramfs, or built in."""
        return name in self.modules.builtin or (self.contents is not None and name in self.contents.modules(self.version))

    def info(self) -> KernelInfo:
        """For ``inspect``."""
        return KernelInfo(version=self.version, path=self.path, initramfs=self.initramfs, modules=self.modules.folder,
                          default=self.default, drivers=tuple(name for name in drivers.ALL if self.has(name)),
                          early=tuple(name for name in drivers.ALL if self.early(name)))


def find(tree: Tree, menu: Menu | None) -> tuple[Kernel, ...]:
    """All kernels with modules, newest first. If the menu names none as default, the newest is."""
    found = [one for folder in _folders(tree) if (one := _kernel(tree, folder, menu)) is not None]
    found.sort(key=lambda one: version_key(one.version), reverse=True)
    chosen = menu.entries[menu.default] if menu and menu.default is not None else None
    named = [one for one in found if chosen and (one.entry is chosen or one.path == chosen.kernel)]
    default = next(iter(named or found), None)
    return tuple(replace(one, default=True) if one is default else one for one in found)


def _folders(tree: Tree) -> Iterator[str]:
    """Module folders, each once: ``/lib`` is a link to ``/usr/lib`` in most."""
    seen = set[str]()
    for base in FOLDERS:
        for name in tree.ls(base)[:MAX_KERNELS]:
            real = tree.realpath(f"{base}/{name}")
            if real not in seen and tree.is_file(f"{base}/{name}/modules.dep"):
                seen.add(real)
                yield f"{base}/{name}"


def _kernel(tree: Tree, folder: str, menu: Menu | None) -> Kernel | None:
    version = basename(folder)
    labels = _labels(tree, folder)
    entries = menu.entries if menu else ()
    images = [path for label in labels for pattern in IMAGES if tree.is_file(path := pattern.format(label))]
    images += _installed(tree, version, "linux")
    entry = next((one for one in entries if one.kernel in images), None)
    entry = entry or next((one for one in entries if _names(one, version)), None)
    images += [one for one in (*_ukis(tree, version), f"{folder}/vmlinuz") if tree.is_file(one)]
    if not entry and not images:
        return None
    image = _initramfs(tree, entry, labels, version)
    contents, trouble = _contents(tree, image) if image else (None, None)
    return Kernel(version=version, path=entry.kernel if entry else images[0], modules=read_modules(tree, folder), entry=entry,
                  default=False, initramfs=image, contents=contents, trouble=trouble)


def _labels(tree: Tree, folder: str) -> tuple[str, ...]:
    """What stands for the version in file names: itself, Arch's package (``linux``), Alpine's flavour (``lts``)."""
    version = basename(folder)
    package = text(tree, f"{folder}/pkgbase").strip()
    flavour = version.rsplit("-", 1)[-1]
    labels = (version, package, "" if flavour[:1].isdigit() else flavour)
    return tuple(label for label in labels if label and "/" not in label)


def _names(entry: Entry, version: str) -> bool:
    """An entry speaks of a version: its kernel's name or folder."""
    return version in (basename(entry.kernel).partition("-")[2], basename(dirname(entry.kernel)))


def _quoted(version: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in version)


def _ukis(tree: Tree, version: str) -> list[str]:
    return [path for path in efi.loaders(tree) if efi.is_uki(path) and version in basename(path)]


def _initramfs(tree: Tree, entry: Entry | None, labels: tuple[str, ...], version: str) -> str | None:
    """The last of an entry's: those before it hold microcode."""
    named = [path for path in (entry.initrds if entry else ()) if tree.is_file(path)]
    usual = [path for label in labels for pattern in INITRAMFS if tree.is_file(path := pattern.format(label))]
    return next(iter(named[-1:] + usual + _installed(tree, version, "initrd")), None)


def _installed(tree: Tree, version: str, name: str) -> list[str]:
    """Where kernel-install(8) puts things: a folder of the machine's id, and in it one of the version."""
    return [path for base in ("/boot", "/efi") for path in tree.glob(f"{base}/*/{_quoted(version)}/{name}")]


def _contents(tree: Tree, path: str) -> tuple[Initramfs | None, str | None]:
    with suppress(FileNotFoundError):
        try:
            with initramfs.downloaded(tree, path) as local:
                return initramfs.read(local), None
        except DamagedError as error:
            return None, f"{path}: {error.message}"
    return None, f"{path}: not found"
