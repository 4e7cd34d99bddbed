"""Every place of a guest where arguments for the kernel stand: menus, and what new menus are made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from imgtool.guests.linux.bootloaders import grubenv
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

GRUB2 = re.compile(r"^([ \t]*linux(?:16|efi)?[ \t]+\S+)(.*)$", re.MULTILINE)
GRUB_LEGACY = re.compile(r"^([ \t]*kernel[ \t]+\S+|#[ \t]*kopt=)(.*)$", re.MULTILINE)
BLS = re.compile(r"^(options[ \t])(.*)$", re.MULTILINE)
EXTLINUX = re.compile(r"^([ \t]*append[ \t])(.*)$", re.MULTILINE | re.IGNORECASE)
DEFAULT_GRUB = re.compile(r"^([ \t]*GRUB_CMDLINE_[A-Z_]+=)(.*)$", re.MULTILINE)
UPDATE_EXTLINUX = re.compile(r"^(default_kernel_opts=)(.*)$", re.MULTILINE)
SUSE = re.compile(r"^((?:DEFAULT|FAILSAFE|XEN)_[A-Z_]*APPEND=)(.*)$", re.MULTILINE)
WHOLE = re.compile(r"^()([^\n#].*)$", re.MULTILINE)
FILES = (
    ("/boot/grub2/grub.cfg", GRUB2), ("/boot/grub/grub.cfg", GRUB2), ("/boot/efi/EFI/*/grub.cfg", GRUB2),
    ("/efi/EFI/*/grub.cfg", GRUB2),
    ("/boot/grub/grub.conf", GRUB_LEGACY), ("/boot/grub/menu.lst", GRUB_LEGACY), ("/boot/efi/EFI/redhat/grub.conf", GRUB_LEGACY),
    ("/boot/loader/entries/*.conf", BLS), ("/efi/loader/entries/*.conf", BLS), ("/boot/efi/loader/entries/*.conf", BLS),
    ("/boot/extlinux.conf", EXTLINUX), ("/boot/extlinux/extlinux.conf", EXTLINUX), ("/boot/syslinux/syslinux.cfg", EXTLINUX),
    ("/etc/default/grub", DEFAULT_GRUB), ("/etc/default/grub.d/*.cfg", DEFAULT_GRUB),
    ("/etc/update-extlinux.conf", UPDATE_EXTLINUX),
    ("/etc/sysconfig/bootloader", SUSE), ("/etc/kernel/cmdline", WHOLE),
)
IN_GRUBENV = ("kernelopts", "tuned_params")
"""Arguments that entries of RHEL 8 take from GRUB's environment."""


def places(tree: Tree) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Files that are there, with the pattern of a line: what stays, and the arguments. A file with two names comes once."""
    seen = set[str]()
    for pattern, line in FILES:
        for path in tree.glob(pattern):
            real = tree.realpath(path)
            if real not in seen and tree.is_file(real):
                seen.add(real)
                yield path, line


def read(tree: Tree) -> Iterator[tuple[str, str]]:
    """(file, arguments) of each line."""
    for path, line in places(tree):
        yield from ((path, found[2]) for found in line.finditer(text(tree, path)))
    yield from ((grubenv.path(tree), value) for name, value in grubenv.read(tree).items() if name in IN_GRUBENV)


def change(editor: Editor, function: Callable[[str], str], *, what: str, why: str) -> None:
    """``function`` gives the new arguments of each line."""

    def arguments(found: re.Match[str]) -> str:
        return str(found[1]) + function(found[2])

    for path, line in places(editor.tree):
        editor.change(path, partial(line.sub, arguments), what=what, why=why)
    old = grubenv.read(editor.tree)
    new = {name: function(value) if name in IN_GRUBENV else value for name, value in old.items()}
    if new != old:
        grubenv.write(editor, new, why=why)
