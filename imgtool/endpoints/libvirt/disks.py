"""What stands behind the disks of a domain, by its XML and libvirt's pools. Formats are what the XML says, never probed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgtool.errors import RefusedError
from imgtool.model.devices import Backing, DiskSlot
from imgtool.model.endpoint import RemoteDisk
from imgtool.model.situation import SourceDisk

if TYPE_CHECKING:
    import libvirt
    from lxml import etree

RAW = "raw"
"""What libvirt takes an image for whose format is not said."""


@dataclass(frozen=True, kw_only=True)
class Behind:
    """A disk's image, as files of its host go."""

    name: str
    """As the domain names it."""
    device: str
    """``vda``."""
    path: str | None
    """None: no file or device of its host."""
    format: str
    kind: str
    """qcow2, raw, …, block, network."""
    chain: tuple[tuple[str, str], ...] | None = None
    """(path, format) of all images below, where the domain says so; libvirt then looks at nothing else."""
    pool: str | None = None
    shared: bool = False
    encrypted: bool = False
    capacity: int = 0
    allocated: int | None = None

    def situation(self) -> SourceDisk:
        return SourceDisk(name=self.name, capacity=self.capacity, data=self.allocated, kind=self.kind, datastore=self.pool,
                          shared=self.shared, encrypted=self.encrypted)

    def remote(self, number: int) -> RemoteDisk:
        return RemoteDisk(path=self.path or self.name, capacity=self.capacity, key=number, allocated=self.allocated,
                          kind=self.kind, shared=self.shared)

    def file(self) -> str:
        """Raises RefusedError where there is none."""
        if self.encrypted:
            raise RefusedError(f"disk {self.device} ({self.name}) is encrypted", "imgtool cannot open it: decrypt it first")
        if self.path is None:
            raise RefusedError(f"disk {self.device} ({self.name}) is no file and no device of its host",
                               "copy it into a volume of a storage pool first: qemu-img convert, or virsh blockcopy")
        return self.path


def behind(domain: libvirt.virDomain, connection: libvirt.virConnect, text: bytes, slots: Sequence[DiskSlot]) -> list[Behind]:
    """Of each of the machine's disks, in their order."""
    from lxml import etree

    root = etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True))
    elements = _matching(root, slots)
    return [_behind(domain, connection, element, slot) for element, slot in zip(elements, slots, strict=True)]


def _matching(root: etree._Element, slots: Sequence[DiskSlot]) -> list[etree._Element]:
    """The elements that the disks of the machine were made of: those of the same name, in order."""
    waiting = list(root.iterfind("devices/disk"))
    found = []
    for slot in slots:
        while waiting:
            element = waiting.pop(0)
            if element.get("device") not in ("cdrom", "floppy") and (_named(element) in (None, slot.path)):
                found.append(element)
                break
        else:
            raise RefusedError(f"libvirt's description of the disk {slot.path!r} cannot be understood")
    return found


def _named(element: etree._Element) -> str | None:
    """None for a disk of a network, whose name is put together."""
    source = element.find("source")
    if source is None:
        return ""
    if element.get("type") == "volume":
        return f"{source.get('pool')}/{source.get('volume')}"
    return source.get("file") or source.get("dev") or (None if element.get("type") == "network" else "")


def _behind(domain: libvirt.virDomain, connection: libvirt.virConnect, element: etree._Element, slot: DiskSlot) -> Behind:
    target = element.find("target")
    device = (target.get("dev") if target is not None else None) or "?"
    path, pool = slot.path if slot.backing in (Backing.FILE, Backing.BLOCK) else None, None
    if slot.backing is Backing.VOLUME:
        path, pool = _volume(connection, slot.path)
    form = slot.format or RAW
    kind = "block" if slot.backing is Backing.BLOCK else "network" if path is None else form
    capacity, allocated = _sizes(domain, connection, device, path)
    encrypted = element.find("encryption") is not None or element.find("source/encryption") is not None
    return Behind(name=slot.path, device=device, path=path, format=form, kind=kind, chain=_chain(element), pool=pool,
                  shared=bool(slot.shared), encrypted=encrypted, capacity=capacity, allocated=allocated)


def _volume(connection: libvirt.virConnect, name: str) -> tuple[str | None, str]:
    """(path, pool) of ``pool/volume``; no path where the volume is no file and no device. Raises libvirtError."""
    import libvirt

    pool, _, volume = name.partition("/")
    found = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
    local = found.info()[0] in (libvirt.VIR_STORAGE_VOL_FILE, libvirt.VIR_STORAGE_VOL_BLOCK, libvirt.VIR_STORAGE_VOL_PLOOP)
    path = found.path()
    return path if local and path.startswith("/") else None, pool


def volume_at(connection: libvirt.virConnect, path: str) -> libvirt.virStorageVol:
    """The volume whose file that is. Raises RefusedError where it lies in no storage pool, libvirtError."""
    import libvirt

    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        pool.refresh(0)  # what came by another way is not seen yet
    try:
        return connection.storageVolLookupByPath(path)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise
        hint = "install qemu-nbd there: apt-get install qemu-utils"
        raise RefusedError(f"{path} is in no storage pool: libvirt cannot send it", hint) from error


def _sizes(domain: libvirt.virDomain, connection: libvirt.virConnect, device: str, path: str | None) -> tuple[int, int | None]:
    """(capacity, bytes that are taken); 0 and None where libvirt cannot tell, as of a file that is missing."""
    import libvirt

    with suppress(libvirt.libvirtError):
        capacity, allocated, _ = domain.blockInfo(device)
        return int(capacity), int(allocated)
    if path is not None:
        with suppress(libvirt.libvirtError):
            _, capacity, allocated = connection.storageVolLookupByPath(path).info()
            return int(capacity), int(allocated)
    return 0, None


def _chain(element: etree._Element) -> tuple[tuple[str, str], ...] | None:
    """What ``backingStore`` says, down to its end; None where it says nothing."""
    if element.find("backingStore") is None:
        return None
    return tuple(_below(element))


def _below(element: etree._Element) -> Iterator[tuple[str, str]]:
    here: etree._Element | None = element
    while here is not None and (here := here.find("backingStore")) is not None:
        source, form = here.find("source"), here.find("format")
        if source is not None:
            yield source.get("file") or source.get("dev") or "", (form.get("type") if form is not None else None) or RAW


def check_chain(behind: Behind, found: Sequence[tuple[str, str]], folders: Sequence[str]) -> None:
    """``found``: (path, format) of the images that were opened, top first. Raises RefusedError.

    Images below may lie in the folder of the top one, or in a storage pool: they are files that the host's administrator gives
    to machines. libvirt itself would follow any name.
    """
    if behind.chain is not None:
        said = [(os.path.realpath(path), form) for path, form in behind.chain]
        if said != [(os.path.realpath(path), form) for path, form in found[1:]]:
            raise RefusedError(f"disk {behind.device}: the domain says that it stands on {_words(said)}, the image says "
                               f"{_words(found[1:])}", "bring them into agreement: virsh edit, or qemu-img rebase -u")
    roots = [os.path.realpath(folder) for folder in (os.path.dirname(found[0][0]), *folders)]
    for path, _ in found[1:]:
        real = os.path.realpath(path)
        if not any(os.path.commonpath([real, root]) == root for root in roots):
            raise RefusedError(f"disk {behind.device} stands on {path}, which is in no storage pool and not beside it",
                               "if it may be read, make its folder a storage pool: virsh pool-define-as NAME dir --target DIR")


def _words(chain: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{path} ({form})" for path, form in chain) or "nothing"
