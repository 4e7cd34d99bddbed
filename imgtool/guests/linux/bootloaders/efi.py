"""The EFI system partition: what is on it, and a loader where firmware without variables looks for one.

A machine that is moved loses its variables. Firmware then starts ``\\EFI\\BOOT\\BOOT<ARCH>.EFI`` (UEFI 2.10, 3.5.1.1). The file
system is FAT: names are compared without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import basename, dirname

from imgtool.errors import DamagedError
from imgtool.guests.linux.bootloaders.menu import ESPS
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

FALLBACK = {"x86_64": "BOOTX64.EFI", "aarch64": "BOOTAA64.EFI", "i686": "BOOTIA32.EFI", "riscv64": "BOOTRISCV64.EFI",
            "armv7l": "BOOTARM.EFI"}
SHORT = {"x86_64": "x64", "aarch64": "aa64", "i686": "ia32", "riscv64": "riscv64", "armv7l": "arm"}
"""In file names: ``shimx64.efi``."""
MAX_LOADER = 16 << 20
SECOND = re.compile(rb"(?i:\\\0(g\0r\0u\0b\0(?:[a-z0-9]\0){0,8}\.\0e\0f\0i\0))")
"""In a shim: the name, in UTF-16, of what it starts: ``\\grubx64.efi``, SUSE's ``\\grub.efi``."""
MAKER = r"fb[a-z0-9]+\.efi|fallback\.efi"
WRAPPER = "set prefix=($root){folder}\nconfigfile $prefix/grub.cfg\n"
"""A copy of the menu would grow old: this leads to the one."""


def esp(tree: Tree) -> str | None:
    """Where the ESP is mounted; None if there is none with loaders."""
    return next((base for base in ESPS if _inner(tree, base, "efi")), None)


def loaders(tree: Tree) -> tuple[str, ...]:
    """Paths in the guest of all ``/EFI/*/*.efi``."""
    return tuple(_loaders(tree))


def _loaders(tree: Tree) -> Iterator[str]:
    base = esp(tree)
    folder = _inner(tree, base, "efi") if base else None
    for name in tree.ls(folder) if folder else ():
        yield from (f"{folder}/{name}/{file}" for file in tree.ls(f"{folder}/{name}") if file.lower().endswith(".efi"))


def _inner(tree: Tree, folder: str, name: str) -> str | None:
    """The entry of a folder that has this name, in any case."""
    return next((f"{folder}/{one}" for one in tree.ls(folder) if one.lower() == name), None)


def has_fallback(tree: Tree, arch: str | None) -> bool | None:
    """There is one, and it finds what it starts. None if there is no ESP."""
    if esp(tree) is None:
        return None
    name = FALLBACK.get(arch or "x86_64", FALLBACK["x86_64"]).lower()
    return any(path.lower().endswith(f"/boot/{name}") and not _stuck(tree, path) for path in loaders(tree))


def _stuck(tree: Tree, path: str) -> bool:
    """A shim starts GRUB beside it, or there the program that makes boot entries by the lists (``*.CSV``) in other folders."""
    try:
        second = SECOND.search(tree.read(path, limit=MAX_LOADER))
    except (OSError, DamagedError):
        return False
    if second is None:
        return False  # no shim
    if _maker(tree, dirname(path)):
        return not _lists(tree, dirname(dirname(path)))
    return _inner(tree, dirname(path), second[1].decode("utf-16-le").lower()) is None


def _maker(tree: Tree, folder: str) -> bool:
    return any(re.fullmatch(MAKER, name.lower()) for name in tree.ls(folder))


def _lists(tree: Tree, efi: str) -> bool:
    return any(name.lower().endswith(".csv") for folder in tree.ls(efi) for name in tree.ls(f"{efi}/{folder}"))


def is_uki(path: str) -> bool:
    """A unified kernel image: kernel and initramfs in one signed file."""
    return "/efi/linux/" in path.lower()


def add_fallback(editor: Editor, arch: str | None) -> None:
    """Copies the distribution's loader to the place where firmware without variables looks. Nothing happens if there is one."""
    tree = editor.tree
    if has_fallback(tree, arch) is not False:
        return
    source = _best(tree, arch)
    if source is None:
        editor.warn("the ESP has no loader that could be copied to \\EFI\\BOOT: the target needs a boot entry")
        return
    efi = dirname(dirname(source))
    boot = _inner(tree, efi, "boot") or f"{efi}/BOOT"
    name = FALLBACK[arch or "x86_64"]
    why = "firmware that has no boot entry for this machine starts this file"
    _copy(editor, source, f"{boot}/{name}", why)
    for path in _companions(tree, source):
        _copy(editor, path, f"{boot}/{basename(path)}", why)
    _configuration(editor, dirname(source), boot, name, why)
    if _maker(tree, boot) and not _lists(tree, efi):
        vendor = basename(dirname(source))
        line = f"{basename(source)},{vendor},,{vendor}\n".encode("utf-16-le")
        editor.write(f"{dirname(source)}/{name.removesuffix('.EFI')}.CSV", line, what="boot entry that the shim makes", why=why)


def _best(tree: Tree, arch: str | None) -> str | None:
    """A shim first (it starts GRUB beside it, and Secure Boot knows it), then GRUB, then systemd-boot."""
    short = SHORT.get(arch or "x86_64")
    names = (f"shim{short}.efi", "shim.efi", f"grub{short}.efi", "grub.efi", f"systemd-boot{short}.efi")
    found = {basename(path).lower(): path for path in reversed(loaders(tree)) if not is_uki(path)}
    return next((found[name] for name in names if name in found), None) if short else None


def _companions(tree: Tree, source: str) -> Iterator[str]:
    """What a shim starts from its own folder: GRUB, and the manager of its keys."""
    if basename(source).lower().startswith("shim"):
        for name in tree.ls(dirname(source)):
            if name.lower().startswith(("grub", "mm", "mokmanager")) and name.lower().endswith(".efi"):
                yield f"{dirname(source)}/{name}"


def _configuration(editor: Editor, folder: str, boot: str, name: str, why: str) -> None:
    """GRUB may look for its menu beside itself; GRUB legacy does, under the name of its program."""
    tree = editor.tree
    if tree.is_file(f"{folder}/grub.conf"):
        _copy(editor, f"{folder}/grub.conf", f"{boot}/{name.removesuffix('.EFI')}.conf", why)
    elif (content := text(tree, f"{folder}/grub.cfg")) and not tree.exists(f"{boot}/grub.cfg"):
        if "menuentry " in content or "blscfg" in content:
            content = WRAPPER.format(folder=f"/EFI/{basename(folder)}")
        editor.write(f"{boot}/grub.cfg", content.encode("utf-8", "surrogateescape"), what="menu of the fallback loader", why=why)


def _copy(editor: Editor, source: str, target: str, why: str) -> None:
    try:
        data = editor.tree.read(source, limit=MAX_LOADER)
    except DamagedError:
        editor.warn(f"{source} is too large for a boot loader, or no file: it is not copied to \\EFI\\BOOT")
        return
    editor.write(target, data, what=f"copied from {source}", why=why)
