"""The XML of an OVF: read safely, and looked at without regard to namespaces, in which versions and products differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from lxml import etree

from imgtool.errors import DamagedError

MAX_TEXT = 16 << 20
"""Bytes of a description."""
OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW = "http://www.vmware.com/schema/ovf"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
PREFIXES = {None: OVF, "ovf": OVF, "rasd": RASD, "vssd": VSSD, "vmw": VMW, "xsi": XSI}
_FRONT = re.compile(rb"(\xef\xbb\xbf)?(\s+|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_BACK = re.compile(rb"</[^<>]*>((?:\s+|<\?.*?\?>|<!--.*?-->)*+)\Z", re.DOTALL)
"""The end of the envelope, and what may stand behind it."""
_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read(text: bytes) -> etree._Element:
    """The envelope. Raises DamagedError: no XML, no OVF, or a DOCTYPE (its entities are not resolved)."""
    if len(text) > MAX_TEXT:
        raise DamagedError(f"an OVF of {len(text)} bytes is impossible: at most {MAX_TEXT} are read")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DamagedError(f"the OVF is not well-formed XML: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise DamagedError("the OVF has a DOCTYPE, which no OVF needs", "remove it, if you trust the file")
    if local(root) != "Envelope":
        raise DamagedError(f"an OVF begins with Envelope, this with {local(root)!r}")
    return root


def local(element: etree._Element) -> str:
    """Its name without the namespace; of a comment nothing."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def children(element: etree._Element, *names: str) -> Iterator[etree._Element]:
    """Its own children of these names."""
    return (child for child in element if local(child) in names)


def child(element: etree._Element | None, name: str) -> etree._Element | None:
    """The first of its children of this name."""
    return None if element is None else next(children(element, name), None)


def text(element: etree._Element | None) -> str | None:
    """What stands in it, white space around it included; None where there is nothing."""
    return None if element is None else "".join(map(str, element.itertext())) or None


def word(element: etree._Element | None) -> str | None:
    """What stands in it, without white space around it."""
    return (text(element) or "").strip() or None


def attribute(element: etree._Element | None, name: str) -> str | None:
    """The value of an attribute, whatever its namespace; None where it is empty or missing."""
    found = () if element is None else element.items()
    return next((str(value) for key, value in found if str(key).rpartition("}")[2] == name and value), None)


def sections(parent: etree._Element, name: str) -> Iterator[etree._Element]:
    """``<DiskSection>``; oVirt and OVF 0.9 write ``<Section xsi:type="ovf:DiskSection_Type">``."""
    for element in parent:
        kind = (attribute(element, "type") or "").rpartition(":")[2].removesuffix("_Type")
        if local(element) == name or (local(element) == "Section" and kind == name):
            yield element


def section(parent: etree._Element, name: str) -> etree._Element | None:
    """The first such section."""
    return next(sections(parent, name), None)


def fit(value: str) -> str:
    """Text that XML can hold: other characters become U+FFFD."""
    return _IMPOSSIBLE.sub("\ufffd", value)


def make(namespace: str, tag: str, /, *, text: str | None = None, **attributes: str | None) -> etree._Element:
    """A new element; its attributes are in ovf's namespace, those beginning with ``vmw_`` in VMware's."""
    element = etree.Element(f"{{{namespace}}}{tag}", nsmap=cast("dict[str, str]", PREFIXES))
    element.text = None if text is None else fit(text)
    for key, value in attributes.items():
        if value is not None:
            place, plain = (VMW, key[4:]) if key.startswith("vmw_") else (OVF, key.rstrip("_"))
            element.set(f"{{{place}}}{plain}", fit(value))
    return element


def add(parent: etree._Element, *elements: etree._Element | None) -> etree._Element:
    """The parent, with these in it."""
    parent.extend(element for element in elements if element is not None)
    return parent


def write(root: etree._Element) -> bytes:
    """UTF-8, indented."""
    etree.indent(root, "  ")
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8") + b"\n"


def rewrite(root: etree._Element, before: bytes) -> bytes:
    """A tree that was read from ``before`` and changed: with its declaration, the comments around it and its line ends."""
    front, back = _FRONT.match(before), _BACK.search(before)
    encoding = (root.getroottree().docinfo.encoding or "UTF-8").upper()
    if front is None or back is None or encoding not in ("UTF-8", "ASCII", "US-ASCII"):
        return etree.tostring(root.getroottree(), xml_declaration=True, encoding="UTF-8") + b"\n"
    text = etree.tostring(root, encoding="UTF-8", with_tail=False)
    return front[0] + (text.replace(b"\n", b"\r\n") if b"\r\n" in before else text) + back[1]


def path(element: etree._Element) -> str:
    """Where it stands: ``VirtualSystem/VirtualHardwareSection/Item[3]/HostResource``."""
    steps: list[str] = []
    for one in (element, *element.iterancestors()):
        parent = one.getparent()
        if parent is not None:
            alike = list(children(parent, local(one)))
            steps.append(local(one) + (f"[{alike.index(one) + 1}]" if len(alike) > 1 else ""))
    return "/".join(reversed(steps))
