"""The guest's own tool for its initramfs: its settings, so that the next kernel keeps the drivers, and how it is called.

``keep`` writes what the next run of the tool reads. ``commands`` is what ``--rebuild-initramfs`` runs in the guest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from posixpath import basename

from imgtool.guests.linux.distro import variables
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

TOOLS = (
    ("initramfs-tools", ("/usr/sbin/mkinitramfs",)), ("dracut", ("/usr/bin/dracut", "/sbin/dracut", "/usr/sbin/dracut")),
    ("mkinitcpio", ("/usr/bin/mkinitcpio",)), ("mkinitfs", ("/sbin/mkinitfs", "/usr/sbin/mkinitfs")),
    ("mkinitrd", ("/sbin/mkinitrd",)),
)
"""In this order: a system with dracut often has a ``mkinitrd`` that calls it."""
MARK = "# imgtool: drivers of the hardware that this machine was moved to"
WHY = "the initramfs of the next kernel needs the drivers too"
INITRAMFS_TOOLS = "/etc/initramfs-tools"
MOST = f"{INITRAMFS_TOOLS}/conf.d/zz-imgtool.conf"
ONCE = f"{INITRAMFS_TOOLS}/conf.d/zzz-imgtool-once.conf"
HOOK = f"{INITRAMFS_TOOLS}/hooks/imgtool-once"
HOOK_TEXT = """#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules {names}
"""
DRACUT = "/etc/dracut.conf.d/99-imgtool.conf"
MKINITCPIO = "/etc/mkinitcpio.conf"
MKINITFS = "/etc/mkinitfs/mkinitfs.conf"
FEATURE = "/etc/mkinitfs/features.d/imgtool.modules"
SUSE = "/etc/sysconfig/kernel"


def tool(tree: Tree) -> str | None:
    """initramfs-tools, dracut, mkinitcpio, mkinitfs, mkinitrd; None if there is none that we know."""
    return next((name for name, paths in TOOLS if any(tree.is_file(path) for path in paths)), None)


def keep(editor: Editor, tool: str | None, names: Sequence[str], files: Sequence[str]) -> None:
    """Puts modules into the settings of the tool: by name, or by ``files`` (below ``/lib/modules/VERSION``) for mkinitfs."""
    if not names:
        return
    if tool == "initramfs-tools":
        _initramfs_tools(editor, names)
    elif tool == "dracut":
        content = f'{MARK}\nadd_drivers+=" {" ".join(names)} "\n'
        editor.write(DRACUT, content.encode(), what="dracut adds the drivers", why=WHY)
    elif tool == "mkinitcpio":
        editor.change(MKINITCPIO, partial(_in_list, r"MODULES=", names), what="mkinitcpio adds the drivers", why=WHY)
    elif tool == "mkinitfs":
        lines = "".join(f"{re.sub(r'[.]ko[.].*$', '.ko', path)}*\n" for path in files)
        editor.write(FEATURE, lines.encode(), what="mkinitfs: a feature with the drivers", why=WHY)
        editor.change(MKINITFS, partial(_in_list, r"features=", ("imgtool",)), what="mkinitfs adds the drivers", why=WHY)
    elif tool == "mkinitrd":
        editor.change(SUSE, partial(_in_list, r"INITRD_MODULES=", names), what="mkinitrd adds the drivers", why=WHY)
    else:
        editor.warn("no tool is known that makes this guest's initramfs: after a kernel update the drivers may be missing")


def _initramfs_tools(editor: Editor, names: Sequence[str]) -> None:
    path = f"{INITRAMFS_TOOLS}/modules"
    old = text(editor.tree, path)
    listed = {line.split()[0].replace("-", "_") for line in old.split("\n") if line.split()}
    missing = [name for name in names if name not in listed]
    if missing:
        head = old if not old or old.endswith("\n") else old + "\n"
        mark = "" if MARK in old else f"{MARK}\n"
        content = head + mark + "".join(f"{name}\n" for name in missing)
        editor.write(path, content.encode("utf-8", "surrogateescape"), what="initramfs-tools adds the drivers", why=WHY)
    if _modules_setting(editor.tree) == "dep":
        editor.write(MOST, f"{MARK}\nMODULES=most\n".encode(),
                     what="initramfs-tools takes all usual drivers", why="MODULES=dep takes only what it runs on")


def _modules_setting(tree: Tree) -> str | None:
    """``MODULES`` as mkinitramfs sees it: the main file, then those of ``conf.d`` by name."""
    paths = [f"{INITRAMFS_TOOLS}/initramfs.conf", *tree.glob(f"{INITRAMFS_TOOLS}/conf.d/*")]
    found = [value for path in paths if (value := variables(text(tree, path)).get("MODULES"))]
    return found[-1] if found else None


def _in_list(key: str, names: Sequence[str], content: str) -> str:
    """Adds words to ``KEY="a b"`` or ``KEY=(a b)``; a line of its own if there is none."""

    def added(found: re.Match[str]) -> str:
        have = found[2].strip("()\"' ").split()
        more = [name for name in names if name not in have and name.replace("_", "-") not in have]
        left, right = ("(", ")") if found[2].startswith("(") else ('"', '"')
        return found[0] if not more else f"{found[1]}{left}{' '.join([*have, *more])}{right}{found[3]}"

    line = re.compile(rf"""^([ \t]*{key})(\([^)\n]*\)|"[^"\n]*"|'[^'\n]*'|[^\s"'(#]*)(.*)$""", re.MULTILINE)
    if line.search(content):
        return line.sub(added, content)
    head = content if not content or content.endswith("\n") else content + "\n"
    return f'{head}{key}"{" ".join(names)}"\n'


@contextmanager
def listed_once(tree: Tree, tool: str | None, names: Iterable[str]) -> Iterator[None]:
    """While this lasts, a guest that had ``MODULES=dep`` gets exactly these modules. Its next kernel gets all usual ones.

    ``dep`` would look at the hardware of the appliance, and ``most`` starts 20,000 processes: 30 s of a processor, and ten times
    that where it is emulated.
    """
    wanted = [name for name in names if re.fullmatch(r"\w+", name)]
    if tool != "initramfs-tools" or not tree.is_file(MOST) or not wanted:
        yield
        return
    tree.write(ONCE, f"{MARK}\nMODULES=list\n".encode())
    tree.write(HOOK, HOOK_TEXT.format(names=" ".join(wanted)).encode(), mode=0o755)
    yield
    tree.remove(HOOK)
    tree.remove(ONCE)


def commands(tool: str | None, version: str, kernel: str, initramfs: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """What makes the initramfs of one kernel anew, in the guest: dracut(8), update-initramfs(8), mkinitcpio(8), mkinitfs(1)."""
    if tool == "dracut":
        return (("dracut", "--force", "--add-drivers", " ".join(names), initramfs, version),)
    if tool == "initramfs-tools":
        return (("update-initramfs", "-u", "-k", version),)
    if tool == "mkinitcpio":
        return (("mkinitcpio", "-k", version, "-S", "autodetect", "-g", initramfs),)
    if tool == "mkinitfs":
        return (("mkinitfs", "-o", initramfs, version),)
    if tool == "mkinitrd":
        return (("mkinitrd", "-k", basename(kernel), "-i", basename(initramfs), "-m", " ".join(names)),)
    return ()
