"""Which kernel modules drive which hardware, and what a kernel can therefore boot from on a platform.

Module names are those of the kernel's ``drivers/`` folder, with underscores. One bus may be driven by one of several modules
(they were renamed, or exist twice): the first that a kernel has counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from imgtool.model.guest import Capabilities, Platform

SCSI_DISK = "sd_mod"
BUSES: dict[str, tuple[tuple[str, ...], ...]] = {
    "virtio": (("virtio_blk",), ("virtio_pci",)),
    "virtio-scsi": (("virtio_scsi",), ("virtio_pci",), (SCSI_DISK,)),
    "pvscsi": (("vmw_pvscsi",), (SCSI_DISK,)),
    "lsisas1068": (("mptsas",), (SCSI_DISK,)),
    "lsilogic": (("mptspi",), (SCSI_DISK,)),
    "sata": (("ahci",), (SCSI_DISK,)),
    "nvme": (("nvme",),),
    "ide": (("ata_piix", "piix"), (SCSI_DISK, "ide_gd_mod", "ide_disk")),
}
"""Bus of a virtual disk → what is needed, each as alternatives."""
KVM_LSI = (("sym53c8xx",), (SCSI_DISK,))
"""QEMU's ``lsilogic`` is another chip than VMware's."""
NICS: dict[str, tuple[tuple[str, ...], ...]] = {
    "virtio": (("virtio_net",), ("virtio_pci",)), "vmxnet3": (("vmxnet3",),), "e1000e": (("e1000e",),), "e1000": (("e1000",),),
    "pcnet": (("pcnet32",),), "rtl8139": (("8139cp", "8139too"),),
}
BEST_BUSES = {
    Platform.KVM: ("virtio", "virtio-scsi", "sata", "nvme", "lsilogic", "lsisas1068", "ide", "pvscsi"),
    Platform.ESXI: ("pvscsi", "lsisas1068", "lsilogic", "sata", "nvme", "ide"),
    Platform.METAL: ("sata", "nvme", "ide"),
}
BEST_NICS = {
    Platform.KVM: ("virtio", "e1000e", "e1000", "rtl8139", "vmxnet3"),
    Platform.ESXI: ("vmxnet3", "e1000e", "e1000", "pcnet"),
    Platform.METAL: ("e1000e", "e1000"),
}
EXPECTED = {Platform.KVM: ("virtio", "virtio-scsi"), Platform.ESXI: ("pvscsi", "sata"), Platform.METAL: ("sata", "nvme")}
"""Without a driver for these, a person should know."""
CONTROLLERS = ("megaraid_sas", "mpt3sas", "mpt2sas", "hpsa", "smartpqi", "aacraid", "usb_storage", "uas")
"""Of servers: RAID and SAS controllers, and USB disks, with the bus of these below."""
USB_HOSTS = ("xhci_pci", "xhci_hcd", "ehci_pci", "ehci_hcd", "usbhid", "hid_generic")
COMMON_NICS = ("e1000e", "igb", "ixgbe", "i40e", "ice", "tg3", "bnx2", "bnx2x", "bnxt_en", "mlx4_en", "mlx5_core", "r8169",
               "be2net", "qede", "atlantic")
"""Of servers: they have to be on the disk, they are not needed to boot."""
BASICS = (SCSI_DISK, "ahci", "nvme", "ata_piix", "sr_mod")
"""What every initramfs gets: most machines can offer one of these."""
WANTED = {
    Platform.KVM: ("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "sym53c8xx", "mptsas", "vmw_pvscsi", *BASICS),
    Platform.ESXI: ("vmw_pvscsi", "mptspi", "mptsas", "vmxnet3", "e1000", "e1000e", *BASICS),
    Platform.METAL: (*CONTROLLERS, *USB_HOSTS, "e1000e", *BASICS),
}
"""What goes into the initramfs, where the kernel has it."""
BOOT = frozenset({"virtio_pci", "virtio_blk", "virtio_scsi", "vmw_pvscsi", "mptspi", "mptsas", "sym53c8xx", *BASICS,
                  *CONTROLLERS})
"""Of all these, what a root file system may lie behind: loaded early where an initramfs keeps a list."""
OTHERS = ("virtio_balloon", "virtio_rng", "pcnet32", "8139cp", "8139too", "hv_storvsc", "hv_netvsc", "xen_blkfront",
          "xen_netfront")
ALL = tuple(dict.fromkeys(name for names in (*WANTED.values(), COMMON_NICS, OTHERS) for name in names))
"""What ``inspect`` speaks of."""
Q35_KERNEL = (2, 6, 32)
"""Older kernels cannot be trusted with PCI Express root ports."""


def driven(table: dict[str, tuple[tuple[str, ...], ...]], best: Iterable[str], has: Callable[[str], bool]) -> tuple[str, ...]:
    """Those of ``best`` that a kernel with these drivers can use."""
    return tuple(name for name in best if all(any(has(one) for one in either) for either in table[name]))


def buses(platform: Platform, has: Callable[[str], bool]) -> tuple[str, ...]:
    """Disk buses of a platform, best first. ``has`` says whether a driver is there."""
    table = BUSES | ({"lsilogic": KVM_LSI} if platform is Platform.KVM else {})
    return driven(table, BEST_BUSES[platform], has)


def nics(platform: Platform, has: Callable[[str], bool]) -> tuple[str, ...]:
    """Models of network cards of a platform, best first."""
    return driven(NICS, BEST_NICS[platform], has)


def wanted(platform: Platform, has: Callable[[str], bool]) -> tuple[str, ...]:
    """Drivers for the initramfs of a kernel, of those that it has."""
    return tuple(name for name in WANTED[platform] if has(name))


def needs_xen(version: str) -> bool:
    """A kernel that Xen alone can start: ``3.0.101-63-xen`` of SUSE, ``2.6.18-398.el5xen`` of Red Hat."""
    return version.lower().endswith(("xen", "xenu", "xen0", "-ec2"))


def lacking(platform: Platform, has: Callable[[str], bool]) -> tuple[str, ...]:
    """Buses that are usual on the platform and that this kernel cannot drive at all."""
    there = buses(platform, has)
    return tuple(bus for bus in EXPECTED[platform] if bus not in there)


def capabilities(platform: Platform, version: str, *, early: Callable[[str], bool], has: Callable[[str], bool],
                 agent: bool) -> Capabilities:
    """What a kernel can use: disks by what is there before the root file system (``early``), the rest by what it ``has``."""
    number = tuple(int(part) for part in re.findall("[0-9]{1,9}", version.split("-", maxsplit=1)[0])[:3])
    return Capabilities(disk_buses=buses(platform, early), nic_models=nics(platform, has), agent=agent,
                        machine="q35" if number >= Q35_KERNEL else "i440fx", rng=has("virtio_rng"), balloon=has("virtio_balloon"))
