"""Files of a package, as its OVF names them."""

from __future__ import annotations

from collections.abc import Iterable

from imgtool.descriptions.ovf import xml
from imgtool.descriptions.ovf.storage import references
from imgtool.model.package import FileReference, Packed


def files(text: bytes) -> tuple[FileReference, ...]:
    """The files that an OVF refers to, in its order. Raises DamagedError."""
    return tuple(references(xml.read(text)).values())


def sized(text: bytes, packed: Iterable[Packed]) -> bytes:
    """The same OVF, with the sizes of its files (``ovf:size``) as they are in the package. Raises DamagedError."""
    root = xml.read(text)
    sizes = {one.name: one.size for one in packed}
    for listed in xml.children(root, "References"):
        for one in xml.children(listed, "File"):
            if (href := xml.attribute(one, "href")) in sizes:
                one.set(f"{{{xml.OVF}}}size", str(sizes[href]))
    return xml.rewrite(root, text)
