"""A Windows guest as a folder of this host: the registry is read and written by the host's own hivex, without an appliance."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hivex

from imgtool.guests.tree import KEPT
from tests.folder_tree import FolderTree

CONFIG = "Windows/System32/config"


class WindowsTree(FolderTree):
    """With what ``GuestTree`` has for Windows."""

    def folded(self, path: str) -> str | None:
        found = "/"
        for part in filter(None, path.split("/")):
            name = next((name for name in self.ls(found) if name.lower() == part.lower()), None)
            if name is None:
                return None
            found = os.path.join(found, name)
        return found

    def keep(self, path: str) -> None:
        if not self.exists(path + KEPT):
            shutil.copyfile(self.real(path), self.real(path + KEPT))


class HostHandle:
    """The calls of guestfs(3) that the knowledge about Windows makes."""

    def __init__(self, tree: WindowsTree, table: str) -> None:
        self._tree, self._table = tree, table
        self._hive: Any = None

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        match name:
            case "part_to_dev":
                return "/dev/sda"
            case "part_get_parttype":
                return self._table
            case "hivex_open":
                self._hive = hivex.Hivex(str(self._tree.real(args[0])), write=options["write"])
            case "hivex_close":
                self._hive = None
            case "hivex_node_children":
                return [{"hivex_node_h": node} for node in self._hive.node_children(args[0])]
            case "hivex_node_set_value":
                return self._hive.node_set_value(args[0], {"key": args[1], "t": args[2], "value": args[3]})
            case "hivex_value_value":
                return self._hive.value_value(args[0])[1]
            case "hivex_node_get_value":
                with suppress(RuntimeError):  # so the binding says that there is none
                    return self._hive.node_get_value(*args)
                return 0
            case _:
                return getattr(self._hive, name.removeprefix("hivex_"))(*args) or 0
        return None


def values(tree: WindowsTree, name: str) -> dict[str, str]:
    """Every value of a hive: its key and name → its type, and its text or bytes."""
    hive = hivex.Hivex(str(tree.root / CONFIG / name))
    return dict(_below(hive, hive.root(), f"HKLM\\{name}"))


def _below(hive: Any, node: int, path: str) -> Iterator[tuple[str, str]]:
    for value in hive.node_values(node):
        kind, data = hive.value_value(value)
        text = data.decode("utf-16-le").replace("\0", "|") if kind in (1, 2, 7) else data.hex(" ")
        yield f"{path}: {hive.value_key(value) or '(default)'}", f"{kind} {text}"
    for child in hive.node_children(node):
        yield from _below(hive, child, f"{path}\\{hive.node_name(child)}")


def files(root: Path) -> dict[str, bytes]:
    """All but the hives, whose times change."""
    return {f"/{path.relative_to(root)}": path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and path.name not in ("SYSTEM", "SOFTWARE")}
