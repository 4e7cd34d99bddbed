"""GRUB 2: ``grub.cfg`` as grub-mkconfig makes it. Its language is a shell's; what is read here are its menu entries.

Debian and others write each kernel as a ``menuentry``, within a ``submenu`` where there are several. Where ``blscfg`` stands in
the file, the entries are files of their own: see ``bls``.
"""

from __future__ import annotations

import re

from imgtool.guests.linux.bootloaders import bls, grubenv
from imgtool.guests.linux.bootloaders.menu import ESPS, Entry, Menu, guest_path, number_or_none
from imgtool.guests.linux.distro import variables
from imgtool.guests.linux.edit import Editor, text
from imgtool.guests.tree import Tree

CONFIGS = ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg")
DEFAULTS = "/etc/default/grub"
HEAD = re.compile(r"""\s*(menuentry|submenu)\s+('[^']*'|"[^"]*"|\S+)(.*)\{\s*$""")
ID = re.compile(r"""(?:\$menuentry_id_option|--id)\s+('[^']*'|"[^"]*"|\S+)""")
MAX_NESTED = 16
"""Menus within menus; usual are two."""
COMMAND = re.compile(r"\s*(linux|linux16|linuxefi|initrd|initrd16|initrdefi)\s+(.*)")
DEFAULT = re.compile(r"""^([ \t]*set[ \t]+default=)["']?([^"'\n$]*+)["']?[ \t]*$""", re.MULTILINE)
SAVED = re.compile(r"""^[ \t]*set[ \t]+default=["']?\$\{?saved_entry""", re.MULTILINE)


def config(tree: Tree) -> str | None:
    """The grub.cfg with the menu; on UEFI the ESP often has one that only leads to it."""
    esp = [path for base in ESPS for path in tree.glob(f"{base}/EFI/*/grub.cfg")]
    found = [path for path in (*CONFIGS, *esp) if tree.is_file(path)]
    return next((path for path in found if _has_menu(text(tree, path))), found[0] if found else None)


def _has_menu(content: str) -> bool:
    return "menuentry " in content or "blscfg" in content


def read(tree: Tree) -> Menu | None:
    """None if there is no grub.cfg."""
    path = config(tree)
    if path is None:
        return None
    content = text(tree, path)
    if uses_bls(content) and (entries := bls.read(tree)):
        return Menu(kind="grub2", config=path, entries=entries, default=_place(grubenv.read(tree).get("saved_entry"), entries))
    numbered = _entries(tree, content)
    entries = tuple(entry for _, entry in numbered)
    return Menu(kind="grub2", config=path, entries=entries, default=_default(tree, content, numbered))


def uses_bls(content: str) -> bool:
    """The menu is made of files in ``loader/entries``."""
    return re.search(r"^[ \t]*blscfg\b", content, re.MULTILINE) is not None


def _entries(tree: Tree, content: str) -> list[tuple[tuple[set[str], ...], Entry]]:
    """Each entry that starts Linux, with what may name it: number, title or id, for each menu above it and itself.

    Nothing is taken any more from where menus are nested too deep.
    """
    found, stack, counts = [], list[tuple[set[str], str]](), [0]
    commands: dict[str, str] = {}
    title, depth = "", 0
    for line in content.split("\n"):
        head = HEAD.match(line) if line.rstrip().endswith("{") else None  # first: HEAD is slow on long lines without
        if head and len(stack) == MAX_NESTED:
            break
        if head:
            title = head[2].strip("'\"")
            own = ID.search(head[3])
            id_ = own[1].strip("'\"") if own else title
            stack.append(({str(counts[-1]), title, id_}, id_))
            counts[-1] += 1
            counts.append(0)
            commands, depth = {}, len(stack)
        elif line.strip() == "}" and stack:
            if "linux" in commands and depth == len(stack):
                found.append((tuple(names for names, _ in stack), _entry(tree, [id_ for _, id_ in stack], title, commands)))
            commands = {}
            stack.pop()
            counts.pop()
        elif stack and (command := COMMAND.match(line)):
            commands[re.sub(r"16$|efi$", "", command[1])] = command[2].strip()
    return found


def _entry(tree: Tree, ids: list[str], title: str, commands: dict[str, str]) -> Entry:
    kernel, _, options = commands["linux"].partition(" ")
    initrds = tuple(guest_path(tree, word) for word in commands.get("initrd", "").split())
    return Entry(id=">".join(ids), title=title, kernel=guest_path(tree, kernel), initrds=initrds, options=options.strip())


def _default(tree: Tree, content: str, numbered: list[tuple[tuple[set[str], ...], Entry]]) -> int | None:
    """``default`` is a number, a title or an id, with ``>`` between menu and entry. A menu alone means its first entry."""
    fixed = [value for _, value in DEFAULT.findall(content) if value]
    word = grubenv.read(tree).get("saved_entry", "0") if SAVED.search(content) else (fixed or ["0"])[-1]
    wanted = word.split(">")
    for place, (names, _) in enumerate(numbered):
        if all(part in names[at] for at, part in enumerate(wanted) if at < len(names)) and len(wanted) <= len(names):
            return place
    return None


def _place(saved: str | None, entries: tuple[Entry, ...]) -> int | None:
    number = number_or_none(saved)
    if number is not None and number < len(entries):
        return number
    by_id = {entry.id: place for place, entry in enumerate(entries)} | {entry.title: place for place, entry in enumerate(entries)}
    return by_id.get(saved or "", 0 if entries else None)


def choose(editor: Editor, menu: Menu, entry: Entry, *, why: str) -> None:
    """Makes an entry the one that boots, now and when the menu is made anew."""
    tree, content = editor.tree, text(editor.tree, menu.config)
    if uses_bls(content) or SAVED.search(content):
        grubenv.write(editor, grubenv.read(tree) | {"saved_entry": entry.id}, why=why)
        return
    what = f"default entry is {entry.title}"
    editor.change(menu.config, lambda old: _with_default(old, entry.id), what=what, why=why)
    if variables(text(tree, DEFAULTS)).get("GRUB_DEFAULT") != "saved":
        editor.change(DEFAULTS, lambda old: _with_setting(old, f'GRUB_DEFAULT="{entry.id}"'), what=what, why=why)


def _with_default(content: str, id_: str) -> str:
    """A menu that sets none, as one written by hand may, gets a line before all others."""
    if not any(value for _, value in DEFAULT.findall(content)):
        return f'set default="{id_}"\n{content}'
    return DEFAULT.sub(lambda found: f'{found[1]}"{id_}"' if found[2] else found[0], content)


def _with_setting(content: str, line: str) -> str:
    new, count = re.subn(r"(?m)^[ \t]*GRUB_DEFAULT=.*$", lambda _: line, content)
    return new if count else f"{content}{'' if content.endswith(chr(10)) or not content else chr(10)}{line}\n"
