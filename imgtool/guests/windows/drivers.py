"""Which drivers Windows starts from, on which hardware. In-box: by Windows's own names of services and files.

Sources: INF files of Windows (mshdc.inf, storahci, stornvme, lsi_sas.inf) for services and compatible ids; virtio 1.2, 4.1 for
the ids of virtio.
"""

from __future__ import annotations

from dataclasses import dataclass

from imgtool.model.guest import Platform

HDC_CLASS, SCSI_CLASS = "{4D36E96A-E325-11CE-BFC1-08002BE10318}", "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
"""Device setup classes: IDE/ATA controllers, storage controllers."""


@dataclass(frozen=True, kw_only=True)
class BootDriver:
    """A storage driver."""

    service: str
    bus: str
    """As in Capabilities.disk_buses."""
    ids: tuple[str, ...]
    """PCI ids that it drives, in the words of the CriticalDeviceDatabase after ``PCI#``."""
    device_class: str = SCSI_CLASS
    group: str = "SCSI miniport"


VIOSTOR = BootDriver(service="viostor", bus="virtio", ids=("VEN_1AF4&DEV_1001", "VEN_1AF4&DEV_1042"))
VIOSCSI = BootDriver(service="vioscsi", bus="virtio-scsi", ids=("VEN_1AF4&DEV_1004", "VEN_1AF4&DEV_1048"))
STORAHCI = BootDriver(service="storahci", bus="sata", ids=("CC_0106",), device_class=HDC_CLASS)
MSAHCI = BootDriver(service="msahci", bus="sata", ids=("CC_0106",), device_class=HDC_CLASS)
STORNVME = BootDriver(service="stornvme", bus="nvme", ids=("CC_010802",))
LSI_SAS = BootDriver(service="LSI_SAS", bus="lsisas1068", ids=("VEN_1000&DEV_0054",))
PVSCSI = BootDriver(service="pvscsi", bus="pvscsi", ids=("VEN_15AD&DEV_07C0",))
MEGASAS = BootDriver(service="megasas", bus="megasas", ids=("VEN_1000&DEV_0060",))
IDE = BootDriver(service="intelide", bus="ide", ids=("VEN_8086&DEV_7010", "VEN_8086&DEV_7111"), device_class=HDC_CLASS)

IN_BOX: dict[Platform, tuple[BootDriver, ...]] = {
    Platform.KVM: (STORAHCI, MSAHCI, STORNVME, IDE),
    Platform.ESXI: (PVSCSI, LSI_SAS, STORAHCI, MSAHCI, STORNVME, IDE),
    Platform.METAL: (STORAHCI, MSAHCI, STORNVME, MEGASAS, IDE),
}
"""Best first; those that the guest has are started at boot."""
VIRTIO = (VIOSTOR, VIOSCSI)
TOOLS = {
    "VMTools": "VMware Tools", "VGAuthService": "VMware Tools", "vmvss": "VMware Tools",
    "VMwareCAFCommAmqpListener": "VMware Tools",
    "QEMU-GA": "qemu-guest-agent", "VBoxService": "VirtualBox Guest Additions", "xenagent": "Xen PV tools",
    "XenSvc": "Xen PV tools",
    "prl_tools": "Parallels Tools",
}
"""Service → whose it is."""
OWN = {Platform.KVM: ("qemu-guest-agent",), Platform.ESXI: ("VMware Tools",), Platform.METAL: ()}
"""Tools that are left alone on that platform."""
