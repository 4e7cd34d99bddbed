"""A registry hive of a Windows guest, read and written by hivex in the appliance. hivex holds one hive at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from imgtool.errors import DamagedError
from imgtool.guests.appliance import Handle
from imgtool.model.guest import Change

SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ = 1, 2, 3, 4, 7
"""Types of values (winnt.h: REG_SZ, …)."""


class Hive:
    """Keys are paths with backslashes, below the hive's root; case does not matter."""

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self.name = name
        self.changes: list[Change] = []

    def has(self, key: str) -> bool:
        return self._node(key) != 0

    def children(self, key: str) -> list[str]:
        node = self._node(key)
        found = self._handle.call("hivex_node_children", node) if node else []
        return [str(self._handle.call("hivex_node_name", child["hivex_node_h"])) for child in found]

    def raw(self, key: str, value: str) -> bytes | None:
        node = self._node(key)
        found = self._handle.call("hivex_node_get_value", node, value) if node else 0
        return bytes(self._handle.call("hivex_value_value", found)) if found else None

    def text(self, key: str, value: str) -> str | None:
        data = self.raw(key, value)
        return None if data is None else data.decode("utf-16-le", "replace").split("\0")[0]

    def texts(self, key: str, value: str) -> list[str]:
        """Of a REG_MULTI_SZ."""
        return [word for word in (self.raw(key, value) or b"").decode("utf-16-le", "replace").split("\0") if word]

    def number(self, key: str, value: str) -> int | None:
        data = self.raw(key, value)
        return int.from_bytes(data, "little") if data is not None and len(data) == 4 else None

    def put_number(self, key: str, value: str, number: int, why: str) -> None:
        self.put(key, value, DWORD, number.to_bytes(4, "little"), f"{value} = {number}", why)

    def put_text(self, key: str, value: str, text: str, why: str, *, kind: int = SZ) -> None:
        self.put(key, value, kind, f"{text}\0".encode("utf-16-le"), f"{value} = {text}", why)

    def put_texts(self, key: str, value: str, texts: list[str], why: str) -> None:
        data = "".join(f"{text}\0" for text in [*texts, ""])
        self.put(key, value, MULTI_SZ, data.encode("utf-16-le"), f"{value} = {', '.join(texts)}", why)

    def put(self, key: str, value: str, kind: int, data: bytes, what: str, why: str) -> None:
        """Nothing is written, and nothing said, where it is so already. Missing keys are made."""
        if self.raw(key, value) != data:
            self._handle.call("hivex_node_set_value", self._made(key), value, kind, data)
            self.changes.append(Change(what=what, where=f"HKLM\\{self.name}\\{key}", why=why))

    def _node(self, key: str) -> int:
        """0 where it is not there."""
        node = int(self._handle.call("hivex_root"))
        for part in key.split("\\"):
            node = int(self._handle.call("hivex_node_get_child", node, part)) if node else 0
        return node

    def _made(self, key: str) -> int:
        node = int(self._handle.call("hivex_root"))
        for part in key.split("\\"):
            child = int(self._handle.call("hivex_node_get_child", node, part))
            node = child or int(self._handle.call("hivex_node_add_child", node, part))
        return node


@contextmanager
def opened(handle: Handle, path: str, name: str, *, write: bool, keep: Callable[[str], None] | None = None) -> Iterator[Hive]:
    """The hive in the guest's file ``path``; what was changed in the block is written at its end. Raises DamagedError.

    ``keep`` is called with the path before the file changes.
    """
    try:
        handle.call("hivex_open", path, write=write)
    except OSError as error:
        raise DamagedError(f"the registry hive {path} of the guest cannot be read: {error.strerror}") from error
    try:
        hive = Hive(handle, name)
        yield hive
        if hive.changes:
            if keep is not None:
                keep(path)
            handle.call("hivex_commit", None)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise DamagedError(f"the registry hive {path} of the guest is damaged: {error.strerror}") from error
    finally:
        with suppress(OSError):
            handle.call("hivex_close")
