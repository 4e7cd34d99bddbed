"""Drivers and settings for an initramfs, as one more archive behind those that it has: no program of the guest is run.

The kernel unpacks archives that stand one after another (``init/initramfs.c``), each at a multiple of 4 bytes. With lz4 zeros
must not follow: kernels before 5.9 take them for a damaged block; so there the stream itself goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from posixpath import dirname

from imgtool.errors import DamagedError, NoSpaceError
from imgtool.guests.linux import compression, cpio, initramfs
from imgtool.guests.linux.bootloaders.efi import is_uki
from imgtool.guests.linux.devices import Names
from imgtool.guests.linux.drivers import BOOT
from imgtool.guests.linux.edit import Editor, kept_name
from imgtool.guests.linux.initramfs import Initramfs
from imgtool.guests.linux.kernels import Kernel
from imgtool.guests.linux.modules import ENDING, INDEXES, Modules, module_name
from imgtool.guests.linux.settings import changed
from imgtool.guests.tree import Tree

NEW = ".imgtool-new"
EARLY_LIST = "conf/modules"
"""Of initramfs-tools. In the others udev, or what stands for it, finds drivers by the hardware."""
MAX_MODULE = 64 << 20
MAX_ADDED = 512 << 20
"""Bytes of all added files; usual are 3 MiB."""


def extend(editor: Editor, kernel: Kernel, drivers: Sequence[str], pins: Mapping[str, bytes], names: Names, *,
           fatal: bool) -> Kernel:
    """The kernel with an initramfs that has these drivers, what gives network cards their names, and UUIDs for disks.

    Nothing is written if it has all of that. What cannot be done is a warning, or, with ``fatal``, NoSpaceError or DamagedError.
    """
    if kernel.initramfs is None:
        if is_uki(kernel.path):
            editor.warn(f"{kernel.path} is a unified kernel image: it is signed whole and cannot be extended; rebuild it")
        return kernel
    if kernel.contents is None:
        editor.warn(f"{kernel.trouble}: it is left as it is (--rebuild-initramfs lets the guest make a new one)")
        return kernel
    try:
        entries = additions(editor.tree, kernel.contents, kernel.modules, drivers, changed(kernel.contents, names, pins))
        return _extend(editor, kernel, kernel.initramfs, entries)
    except (NoSpaceError, DamagedError) as error:
        if fatal:
            raise
        editor.warn(f"the initramfs of kernel {kernel.version} is left as it is: {error.message}")
        return kernel


def _extend(editor: Editor, kernel: Kernel, path: str, entries: Sequence[cpio.Entry]) -> Kernel:
    if not entries or kernel.contents is None:
        return kernel
    modules = sum(ENDING.search(entry.name) is not None for entry in entries)
    with initramfs.downloaded(editor.tree, path) as local:
        append(local, kernel.contents, entries)
        replace_file(editor, local, path, what=f"initramfs extended: {modules} drivers, {len(entries) - modules} other files",
                     why="the root file system is behind other hardware")
        return replace(kernel, contents=initramfs.read(local))


def additions(tree: Tree, old: Initramfs, modules: Modules, names: Iterable[str],
              settings: Mapping[str, bytes]) -> tuple[cpio.Entry, ...]:
    """What the initramfs lacks: modules with what they need, their indexes, and ``settings`` (name → content).

    Nothing if it has all of it. Raises DamagedError if the modules are too large to be ones.
    """
    version = modules.folder.rsplit("/", 1)[-1]
    there = old.modules(version)
    missing = [path for path in modules.closure(names) if module_name(path) not in there]
    files = _module_files(tree, modules.folder, missing) if missing else {}
    found = {old.real(f"lib/modules/{version}/{name}"): data for name, data in files.items()}
    if missing and old.layout == "initramfs-tools":
        found[EARLY_LIST] = _early(old.texts.get(EARLY_LIST, b""), names, modules)
    found |= {old.real(name): data for name, data in settings.items()}
    new = {name: data for name, data in found.items() if old.texts.get(name) != data}
    return (*_folders(new, old), *(_file(name, data) for name, data in sorted(new.items())))


def _module_files(tree: Tree, folder: str, paths: Iterable[str]) -> dict[str, bytes]:
    indexes = [name for name in INDEXES if tree.is_file(f"{folder}/{name}")]
    found: dict[str, bytes] = {}
    total = 0
    for path in (*paths, *indexes):
        found[path] = tree.read(f"{folder}/{path}", limit=MAX_MODULE)
        total += len(found[path])
        if total > MAX_ADDED:
            raise DamagedError(f"the drivers in {folder} are too large")
    return found


def _early(old: bytes, names: Iterable[str], modules: Modules) -> bytes:
    lines = old.decode("utf-8", "surrogateescape").split("\n")
    more = [name for name in names if name in BOOT and name in modules.files and name not in lines]
    whole = [line for line in lines if line] + more
    return ("\n".join(whole) + "\n").encode("utf-8", "surrogateescape")


def _folders(names: Iterable[str], old: Initramfs) -> list[cpio.Entry]:
    """Those that are missing only: a folder in the place of a link (``lib``) would replace it."""
    parents = set[str]()
    for name in names:
        while name := dirname(name):
            parents.add(name)
    missing = sorted(parents - old.names)
    return [cpio.Entry(name=name, mode=cpio.FOLDER, size=0, data=None) for name in missing]


def _file(name: str, data: bytes) -> cpio.Entry:
    return cpio.Entry(name=name, mode=cpio.FILE, size=len(data), data=data)


def append(local: str, old: Initramfs, entries: Iterable[cpio.Entry]) -> None:
    """Writes the entries behind the archives of a file on this host, packed like the last of them where we can."""
    packing = old.packing if old.packing in compression.WRITABLE else "cpio"
    archive = compression.pack(cpio.write(entries), packing)
    with open(local, "r+b") as file:
        file.truncate(old.end)
        file.seek(old.end)
        file.write(archive if packing == "lz4" else bytes(-old.end % 4) + archive)
        file.flush()
        os.fsync(file.fileno())


def replace_file(editor: Editor, local: str, path: str, *, what: str, why: str) -> None:
    """Puts the new initramfs in its place; the old one stays beside if there is room for it and one more. Raises NoSpaceError."""
    tree, size = editor.tree, os.path.getsize(local)
    path = tree.realpath(path)
    free = tree.free(dirname(path))
    if free < size:
        raise NoSpaceError(f"{dirname(path)} in the guest has {free >> 20} MiB free, {path} needs {(size >> 20) + 1}",
                           "remove an old kernel in the guest")
    mode = tree.stat(path).mode & 0o7777
    tree.upload(local, path + NEW, mode=mode)
    if editor.backup and free >= 2 * size and not tree.exists(kept_name(path)):
        tree.rename(path, kept_name(path))
    tree.rename(path + NEW, path)
    editor.note(what, path, why)
