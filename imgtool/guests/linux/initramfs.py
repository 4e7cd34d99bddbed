"""What is really in an initramfs: one archive or several, one after another, each packed its own way, or not at all.

The first is often not packed and holds CPU microcode. A later file replaces an earlier one of the same name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from imgtool import files
from imgtool.errors import DamagedError
from imgtool.guests.linux import compression, cpio
from imgtool.guests.linux.modules import ENDING, module_name
from imgtool.guests.tree import Tree

MAX_PACKED = 2 << 30
"""Bytes of an initramfs file."""
MAX_TEXT = 4 << 20
"""Bytes of a file in it that is looked into; the largest is ``modules.alias.bin``."""
MAX_KEPT = 128 << 20
"""Bytes of all names and of all such files."""
TEXTS = re.compile(
    r"(usr/)?lib/modules/[^/]+/modules\.[a-z.]+|conf/.+|cryptroot/crypttab|etc/(fstab|crypttab)|etc/cmdline\.d/.+"
    r"|etc/udev/rules\.d/.+\.rules|etc/systemd/network/.+\.link|etc/lvm/.+|etc/modprobe\.d/.+|config")
LAYOUTS = (
    ("initramfs-tools", r"conf/initramfs\.conf|conf/arch\.conf|scripts/functions"),
    ("dracut", r"(usr/)?lib/dracut(-lib\.sh|/.*)|(usr/)?lib/dracut-lib\.sh|etc/initrd-release|dracut-state\.sh"),
    ("mkinitcpio", r"init_functions"), ("mkinitfs", r"(usr/)?s?bin/nlplug-findfs"), ("mkinitrd", r"run_all\.sh|mkinitrd\.config"),
)
"""Who made it: files that only they put in."""
LINKS = 40


@dataclass(frozen=True, kw_only=True)
class Initramfs:
    packing: str
    """Of the last archive: gzip, zstd, …, or cpio."""
    end: int
    """Bytes of the file, without zeros at its end."""
    layout: str | None
    """initramfs-tools, dracut, mkinitcpio, mkinitfs, mkinitrd; None: unknown."""
    names: frozenset[str]
    links: Mapping[str, str]
    texts: Mapping[str, bytes]
    """Files that were looked into."""

    def real(self, name: str) -> str:
        """The name of a file with the links of the archive followed: ``lib`` is one to ``usr/lib`` in many."""
        for _ in range(LINKS):
            parts = name.split("/")
            heads = ["/".join(parts[:count]) for count in range(1, len(parts))]
            link = next((head for head in heads if head in self.links), None)
            if link is None:
                return name
            target = self.links[link]
            base = [] if target.startswith("/") else link.split("/")[:-1]
            name = _joined([*base, *target.split("/"), *name[len(link) + 1:].split("/")])
        raise DamagedError("the initramfs has links in a circle")

    def modules(self, version: str) -> frozenset[str]:
        """Names of the modules in it for one kernel."""
        folders = (f"lib/modules/{version}/", f"usr/lib/modules/{version}/")
        return frozenset(module_name(name) for name in self.names if name.startswith(folders) and ENDING.search(name))


def _joined(parts: list[str]) -> str:
    found: list[str] = []
    for part in parts:
        if part == "..":
            found = found[:-1]
        elif part not in ("", "."):
            found.append(part)
    return "/".join(found)


@contextmanager
def downloaded(tree: Tree, path: str) -> Iterator[str]:
    """A copy of a file of the guest on this host. Raises DamagedError if it is too large for an initramfs, or no file."""
    found = tree.stat(path)
    if not stat.S_ISREG(found.mode) or found.size > MAX_PACKED:
        raise DamagedError(f"{path} in the guest cannot be an initramfs")
    with files.scratch("initramfs") as folder:
        local = os.path.join(folder, "initramfs")
        tree.download(path, local)
        yield local


def read(local: str) -> Initramfs:
    """Raises DamagedError if it cannot be read: damaged, too large when unpacked, or packed with lzo."""
    names, links, texts = set[str](), dict[str, str](), dict[str, bytes]()
    packing, end, kept = "cpio", 0, 0
    with open(local, "rb") as file:
        for packing, entry in _entries(file):  # noqa: B007
            kept += len(entry.name) + (entry.size if entry.data is not None else 0)
            if kept > MAX_KEPT:
                raise DamagedError("the initramfs has too many files")
            names.add(entry.name)
            links.pop(entry.name, None)
            if stat.S_ISLNK(entry.mode):
                links[entry.name] = (entry.data or b"").decode("utf-8", "surrogateescape")
            elif entry.data is not None:
                texts[entry.name] = entry.data
        end = file.tell()
    if not names:
        raise DamagedError("the initramfs is empty")
    layout = next((name for name, pattern in LAYOUTS if any(re.fullmatch(pattern, one) for one in names)), None)
    return Initramfs(packing=packing, end=end, layout=layout, names=frozenset(names), links=links, texts=texts)


def _entries(file: BinaryIO) -> Iterator[tuple[str, cpio.Entry]]:
    """Each file with the packing of its archive; at the end ``file`` stands behind the last archive."""
    while True:
        start = file.tell()
        _skip_zeros(file)
        head = file.read(6)
        if not head:
            file.seek(start)
            return
        file.seek(-len(head), os.SEEK_CUR)
        packing = compression.kind(head)
        if head in cpio.MAGICS:
            start = file.tell()
            stream = cpio.Stream(iter(lambda: file.read(cpio.SKIP), b""))
            yield from (("cpio", entry) for entry in cpio.read(stream, _looked_into))
            file.seek(start + stream.taken)
        elif packing == "lzo":
            raise DamagedError("the initramfs is packed with lzo, which cannot be read here")
        elif packing:
            yield from ((packing, entry) for entry in _unpacked(file, packing))
        else:
            raise DamagedError("the initramfs is packed in an unknown way")


def _unpacked(file: BinaryIO, packing: str) -> Iterator[cpio.Entry]:
    """The archives in one packed stream."""
    stream = cpio.Stream(compression.unpack(file, packing))
    while True:
        stream.skip_zeros()
        if not stream.peek(1):
            return
        yield from cpio.read(stream, _looked_into)


def _looked_into(name: str, size: int) -> bool:
    return size <= MAX_TEXT and TEXTS.fullmatch(name.removeprefix("./")) is not None


def _skip_zeros(file: BinaryIO) -> None:
    while piece := file.read(cpio.SKIP):
        rest = len(piece.lstrip(b"\0"))
        if rest:
            file.seek(-rest, os.SEEK_CUR)
            return
