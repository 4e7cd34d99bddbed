"""Small images with whatever an attacker writes into them."""

from __future__ import annotations

import struct
from pathlib import Path

SECRET = "what-nobody-may-read-7c41"
"""Stands in files outside; must come out nowhere."""


def qcow2(
    path: Path,
    *,
    backing: str | bytes = b"",
    backing_format: str = "",
    data_file: str | bytes = b"",
    size: int = 1 << 20,
    cluster_bits: int = 16,
    crypt: int = 0,
) -> Path:
    """An empty qcow2 image of version 3 with these names in its header: the header's cluster, then the L1 table."""
    cluster = 1 << cluster_bits
    names = [value if isinstance(value, bytes) else value.encode() for value in (backing, data_file)]
    extensions = b"".join(
        _extension(kind, text) for kind, text in ((0xE2792ACA, backing_format.encode()), (0x44415441, names[1])) if text
    )
    l1_size = -(-size // (cluster // 8 * cluster))
    at = 112 + len(extensions) + 8 if names[0] else 0
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, at, len(names[0]), cluster_bits, size, crypt, l1_size, cluster * 4, cluster * 2, 1, 0, 0
    )
    head += struct.pack(">QQQII8x", 4 if names[1] else 0, 0, 0, 4, 112)
    head += extensions + bytes(8) + names[0]
    assert len(head) <= cluster
    block = struct.pack(">H", 1) * (5 + -(-l1_size * 8 // cluster))
    parts = [head, b"", struct.pack(">Q", cluster * 3), block]
    path.write_bytes(b"".join(part.ljust(cluster, b"\0") for part in parts) + bytes(-(-l1_size * 8 // cluster) * cluster))
    return path


def _extension(kind: int, text: bytes) -> bytes:
    return struct.pack(">II", kind, len(text)) + text.ljust(-(-len(text) // 8) * 8, b"\0")


def vmdk(
    path: Path,
    *extents: str,
    parent: str = "",
    cid: str = "11111111",
    parent_cid: str = "ffffffff",
    kind: str = "monolithicFlat",
    more: str = "",
) -> Path:
    """A descriptor with these extent lines."""
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    text = (
        f'# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID={cid}\nparentCID={parent_cid}\ncreateType="{kind}"\n{hint}'
        + "\n".join(extents)
        + f'\nddb.adapterType = "lsilogic"\n{more}'
    )
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path
