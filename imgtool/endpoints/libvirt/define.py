"""Machines made, named, started and removed on a libvirt host. Functions raise libvirtError unless they say otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from imgtool.errors import RefusedError

if TYPE_CHECKING:
    import libvirt
    from lxml import etree

TEMPORARY = ".imgtool-new"
"""Behind the name of a machine that is not verified yet."""


def define(connection: libvirt.virConnect, xml: bytes) -> libvirt.virDomain:
    """Checked against libvirt's schema; not started, no autostart. Raises RefusedError: libvirt would replace a machine of the
    same uuid without a word."""
    import libvirt

    refuse_taken(connection, xml)
    domain = connection.defineXMLFlags(xml.decode("utf-8", "surrogateescape"), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    domain.setAutostart(0)
    return domain


def refuse_taken(connection: libvirt.virConnect, xml: bytes) -> None:
    """Raises RefusedError where the name or the uuid belongs to a machine, except to a half-made one of ours that is the same."""
    root = _parsed(xml)
    name, uuid = root.findtext("name") or "", (root.findtext("uuid") or "").strip().lower()
    for domain in connection.listAllDomains():
        same_name, same_uuid = domain.name() == name, domain.UUIDString() == uuid
        again = same_name and (same_uuid or not uuid) and name.endswith(TEMPORARY) and not domain.isActive()
        if same_name and not uuid and again:
            remove(domain)
        elif (same_name or same_uuid) and not again:
            raise RefusedError(f"there is a machine {domain.name()} ({domain.UUIDString()}) at the target",
                               f"virsh undefine {domain.name()!r} removes it, if it is not needed")


def rename(connection: libvirt.virConnect, domain: libvirt.virDomain, name: str) -> None:
    """The last step: from then on it can be found. The file of UEFI variables, which libvirt named after the temporary name and
    which is not there before the first start, gets the final name, too. Raises RefusedError where the name is taken."""
    import libvirt

    if domain.name() == name:
        return
    if any(one.name() == name for one in connection.listAllDomains()):
        raise RefusedError(f"there is a machine {name} at the target", "choose another name, or remove that one")
    old = domain.name()
    text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    root = _parsed(text.encode("utf-8", "surrogateescape"))
    named_after = _forget_nvram(root, old)
    try:
        domain.rename(name, 0)
    except libvirt.libvirtError:
        # Not every libvirt renames every machine. Undefined, its disks stay.
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        named_after = True
    if named_after:
        _set_name(root, name)
        connection.defineXMLFlags(_text(root), 0).setAutostart(0)


def _forget_nvram(root: etree._Element, name: str) -> bool:
    """Where the variables' file bears the machine's name, libvirt shall name it anew."""
    nvram = root.find("os/nvram")
    if nvram is None or not (nvram.text or "").rpartition("/")[2].startswith(name):
        return False
    nvram.text = None
    if not nvram.attrib:
        root.find("os").remove(nvram)  # type: ignore[union-attr]
    return True


def _set_name(root: etree._Element, name: str) -> None:
    found = root.find("name")
    if found is not None:
        found.text = name


def start(domain: libvirt.virDomain) -> None:
    if not domain.isActive():
        domain.create()


def remove(domain: libvirt.virDomain) -> None:
    """Stopped and undefined with its NVRAM. Its volumes stay: the caller knows which are ours."""
    import libvirt

    if domain.isActive():
        domain.destroy()
    with suppress(libvirt.libvirtError):  # a transient one is gone by now
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                             | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)


def files(domain: libvirt.virDomain) -> tuple[str, ...]:
    """Of its hard disks."""
    root = _parsed(domain.XMLDesc(0).encode("utf-8", "surrogateescape"))
    found = (disk.find("source") for disk in root.iterfind("devices/disk") if disk.get("device", "disk") == "disk")
    return tuple(source.get("file", "") for source in found if source is not None and source.get("file"))


def with_name(xml: bytes, name: str) -> bytes:
    root = _parsed(xml)
    _set_name(root, name)
    return _text(root).encode("utf-8", "surrogateescape")


def with_disks(xml: bytes, placed: Iterable[tuple[str, str, str]]) -> bytes:
    """The description with each disk whose file's name is the first of a triple at the path that is the second, in the format
    that is the third. Raises RefusedError where a disk is not in it."""
    root = _parsed(xml)
    elements = [disk for disk in root.iterfind("devices/disk") if disk.get("device", "disk") not in ("cdrom", "floppy")]
    for name, path, form in placed:
        for disk in elements:
            source = disk.find("source")
            named = "" if source is None else source.get("file") or source.get("dev") or source.get("volume") or ""
            if source is not None and named.rpartition("/")[2] == name:
                disk.set("type", "file")
                source.attrib.clear()
                source.set("file", path)
                _driver(disk).set("type", form)
                break
        else:
            raise RefusedError(f"the description does not name the disk {name!r}")
    return _text(root).encode("utf-8", "surrogateescape")


def _driver(disk: etree._Element) -> etree._Element:
    from lxml import etree

    found = disk.find("driver")
    if found is None:
        found = etree.Element("driver", {"name": "qemu"})
        disk.insert(0, found)
    return found


def _parsed(xml: bytes) -> etree._Element:
    from lxml import etree

    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, no_network=True))


def _text(root: etree._Element) -> str:
    from lxml import etree

    return etree.tostring(root, encoding="unicode")
