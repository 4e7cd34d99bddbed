"""Machines made, named, started and removed on a libvirt host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import libvirt

TEMPORARY = ".imgtool-new"
"""Behind the name of a machine that is not verified yet."""


def define(connection: libvirt.virConnect, xml: bytes) -> libvirt.virDomain:
    """Checked against libvirt's schema; not started, no autostart."""
    import libvirt

    domain = connection.defineXMLFlags(xml.decode("utf-8", "surrogateescape"), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    domain.setAutostart(0)
    return domain


def rename(domain: libvirt.virDomain, name: str) -> None:
    """The last step: from then on it can be found."""
    domain.rename(name, 0)


def start(domain: libvirt.virDomain) -> None:
    domain.create()


def remove(domain: libvirt.virDomain) -> None:
    """Stopped and undefined with its NVRAM. Its volumes stay: the caller knows which are ours."""
    import libvirt

    if domain.isActive():
        domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                         | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
