"""References and disks of an OVF: which files there are, and which disks stand on them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from imgtool.descriptions.ovf import words, xml
from imgtool.descriptions.ovf.item import Notes, bounded
from imgtool.descriptions.ovf.units import number, unit
from imgtool.errors import DamagedError, RefusedError
from imgtool.model.devices import Backing, Bus, DiskSlot
from imgtool.model.package import FileReference

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
VARIABLE = re.compile(r"\$\{(.+)\}")
GIB = 1 << 30
OVIRT_BUSES = {"virtio_scsi": Bus.SCSI, "virtio": Bus.VIRTIO, "ide": Bus.IDE, "sata": Bus.SATA, "spapr_vscsi": Bus.SCSI}
OVIRT_FORMATS = {"cow": "qcow2", "raw": "raw"}


def references(root: etree._Element) -> dict[str, FileReference]:
    """By the id of the file. Raises DamagedError for an id that is there twice."""
    found: dict[str, FileReference] = {}
    for one in bounded(_files(root), "files"):
        href = xml.attribute(one, "href")
        name = xml.attribute(one, "id") or href
        if not href or not name:
            continue
        if name in found:
            raise DamagedError(f"the OVF has two files with the id {name!r}")
        packed = (xml.attribute(one, "compression") or "").lower()
        if packed not in ("", "gzip", "identity"):
            raise DamagedError(f"{href!r} is packed with {packed!r}, which no OVF has: gzip or nothing")
        found[name] = FileReference(href=href, size=number(xml.attribute(one, "size")), gzip=packed == "gzip",
                                    chunked=xml.attribute(one, "chunkSize") is not None)
    return found


def _files(root: etree._Element) -> Iterator[etree._Element]:
    for listed in xml.children(root, "References"):
        yield from xml.children(listed, "File")


def disks(root: etree._Element, files: dict[str, FileReference], properties: dict[str, str], notes: Notes) -> dict[str, DiskSlot]:
    """By the disk's id, not yet plugged in. Raises RefusedError for a delta disk, DamagedError for a file that is not there."""
    found: dict[str, DiskSlot] = {}
    for section in xml.sections(root, "DiskSection"):
        for one in bounded(xml.children(section, "Disk"), "disks"):
            name = xml.attribute(one, "diskId")
            if not name or name in found:
                raise DamagedError(f"the OVF has a disk without an id, or two with one id ({name!r})")
            found[name] = _disk(one, name, files, properties, notes)
            notes.read(f"disks[{len(found) - 1}].path", one, found[name].path)
    return found


def _disk(one: etree._Element, name: str, files: dict[str, FileReference], properties: dict[str, str], notes: Notes) -> DiskSlot:
    if xml.attribute(one, "parentRef"):
        raise RefusedError(f"the disk {name!r} is a delta of another disk in the package", "export the machine without snapshots")
    wanted = xml.attribute(one, "fileRef")
    href = _href(wanted, files) if wanted else None
    if wanted and href is None:
        raise DamagedError(f"the disk {name!r} refers to the file {wanted!r}, which is not among the References")
    if href is None:
        notes.problem(f"the disk {name!r} has no file: it is empty", "make an empty disk of its size at the target")
    address = (xml.attribute(one, "format") or "").lower()
    kind = next((ours for part, ours in words.FORMAT_PARTS.items() if part in address), None)
    backing = Backing.EMPTY if href is None else Backing.NETWORK if URL.match(href) else Backing.FILE
    boot = xml.attribute(one, "boot") == "true"
    bus = OVIRT_BUSES.get((xml.attribute(one, "disk-interface") or "").lower(), Bus.SCSI)
    return DiskSlot(path=href or "", backing=backing, bus=bus,
                    format=OVIRT_FORMATS.get((xml.attribute(one, "volume-format") or "").lower(), kind),
                    boot_order=1 if boot else None, capacity=_capacity(one, name, properties, notes),
                    populated=_populated(one))


def _href(wanted: str, files: dict[str, FileReference]) -> str | None:
    """By the id of the file; oVirt names the file itself."""
    if wanted in files:
        return files[wanted].href
    return next((file.href for file in files.values() if file.href == wanted), None)


def _capacity(one: etree._Element, name: str, properties: dict[str, str], notes: Notes) -> int | None:
    """Bytes. oVirt says ``size``, in GiB."""
    said = xml.attribute(one, "capacity")
    if said and (variable := VARIABLE.fullmatch(said)):
        said = properties.get(variable[1])
    units = xml.attribute(one, "capacityAllocationUnits")
    factor = unit(units) if units else 1
    found = number(said)
    if found is None and (gib := number(xml.attribute(one, "size"))):
        found, factor = gib, GIB
    if found is None or factor is None or found * factor >= 1 << 63:
        notes.problem(f"how large the disk {name!r} is cannot be read: {said!r} in units of {units!r}",
                      "the image itself says it")
        return None
    return found * factor


def _populated(one: etree._Element) -> int | None:
    found = number(xml.attribute(one, "populatedSize"))
    gib = number(xml.attribute(one, "actual_size"))
    return found if found is not None or gib is None else gib * GIB
