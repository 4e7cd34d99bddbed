"""The modules of one kernel, as depmod(8) lists them: where they are, what they need, what is built in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from imgtool.guests.linux.edit import text
from imgtool.guests.tree import Tree

ENDING = re.compile(r"\.ko(\.(gz|xz|zst))?$")
INDEXES = ("modules.dep", "modules.alias", "modules.symbols", "modules.softdep", "modules.builtin", "modules.order",
           "modules.devname", "modules.builtin.modinfo", "modules.dep.bin", "modules.alias.bin", "modules.symbols.bin",
           "modules.builtin.bin", "modules.builtin.alias.bin", "modules.weakdep")
"""What modprobe and udev look things up in. They may name modules that are not there."""


def module_name(path: str) -> str:
    """``kernel/drivers/scsi/hv-x.ko.xz`` → ``hv_x``: the name that modprobe uses."""
    return ENDING.sub("", path.rsplit("/", 1)[-1]).replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class Modules:
    """The modules of a kernel. ``files``: name → path in ``folder``; ``needs``: name → paths, and ``soft``: name → names."""

    folder: str
    """``/lib/modules/6.1.0-13-amd64``."""
    files: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]]
    soft: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]

    def has(self, name: str) -> bool:
        """As a file, or built in."""
        return name in self.files or name in self.builtin

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """Paths in ``folder`` of these modules and all that they need. What the kernel does not have is left out."""
        waiting, found = list(names), dict[str, str]()
        while waiting:
            name = waiting.pop()
            if name not in self.files or name in found:
                continue
            found[name] = self.files[name]
            waiting += [module_name(path) for path in self.needs[name]]
            waiting += self.soft.get(name, ())
        return tuple(sorted(found.values()))


def read_modules(tree: Tree, folder: str) -> Modules:
    """Reads modules.dep, .softdep and .builtin. A path that leads out of the folder is not listed."""
    files, needs = {}, {}
    for line in text(tree, f"{folder}/modules.dep").split("\n"):
        path, colon, rest = line.partition(":")
        inside = _inside(path, folder)
        if colon and inside and ENDING.search(inside):
            files[module_name(inside)] = inside
            needs[module_name(inside)] = tuple(found for one in rest.split() if (found := _inside(one, folder)))
    builtin = {module_name(line) for line in text(tree, f"{folder}/modules.builtin").split("\n") if line}
    return Modules(folder=folder, files=files, needs=needs, soft=_soft(text(tree, f"{folder}/modules.softdep")),
                   builtin=frozenset(builtin))


def _inside(path: str, folder: str) -> str | None:
    """Old depmods wrote absolute paths."""
    path = path.strip()
    if path.startswith("/"):
        version = folder.rsplit("/", 1)[-1]
        head, found, path = path.partition(f"/lib/modules/{version}/")
        if not found or head not in ("", "/usr"):
            return None
    return None if ".." in path.split("/") or not path else path


def _soft(content: str) -> dict[str, tuple[str, ...]]:
    """``softdep NAME pre: A B post: C``: modprobe.d(5)."""
    found: dict[str, tuple[str, ...]] = {}
    for line in content.split("\n"):
        words = line.split()
        if len(words) > 2 and words[0] == "softdep":
            names = tuple(word.replace("-", "_") for word in words[2:] if not word.endswith(":"))
            found[words[1].replace("-", "_")] = found.get(words[1].replace("-", "_"), ()) + names
    return found
