"""The words of an OVF, and ours. Sources: DMTF DSP1043 and CIM_ResourceAllocationSettingData (numbers of ResourceType), and what
VMware's ovftool and vSphere, VirtualBox and oVirt write.
"""

from __future__ import annotations

import re

from imgtool.model.devices import Backing, Bus

OTHER, CPU, MEMORY, IDE, SCSI, NIC, FLOPPY, CD, DVD, DISK, STORAGE = 1, 3, 4, 5, 6, 10, 14, 15, 16, 17, 20
STORAGE_EXTENT, SERIAL, PARALLEL, USB, VIDEO, SOUND = 19, 21, 22, 23, 24, 35
CONTROLLERS = (IDE, SCSI, STORAGE)
KINDS = {
    0: "other", 1: "other device", 2: "computer system", 3: "processor", 4: "memory", 5: "IDE controller", 6: "SCSI controller",
    7: "Fibre Channel adapter", 8: "iSCSI adapter", 9: "InfiniBand adapter", 10: "network card", 11: "other network card",
    12: "I/O slot", 13: "I/O device", 14: "floppy drive", 15: "CD-ROM", 16: "DVD", 17: "disk", 18: "tape", 19: "storage extent",
    20: "other storage", 21: "serial port", 22: "parallel port", 23: "USB controller", 24: "video card", 25: "IEEE 1394",
    26: "partition", 27: "base partition", 28: "power", 29: "cooling", 30: "Ethernet switch port", 35: "sound card",
}

SCSI_MODELS = {"lsilogic": "lsilogic", "lsilogicsas": "lsisas1068", "lsisas1068": "lsisas1068", "virtualscsi": "pvscsi",
               "pvscsi": "pvscsi", "paravirtualscsi": "pvscsi", "buslogic": "buslogic"}
SCSI_WORDS = {"lsilogic": "lsilogic", "lsisas1068": "lsilogicsas", "pvscsi": "VirtualSCSI", "buslogic": "buslogic"}
STORAGES: dict[str, tuple[Bus, str | None]] = {
    "ahci": (Bus.SATA, "ahci"), "vmware.sata.ahci": (Bus.SATA, "ahci"), "sata": (Bus.SATA, None),
    "vmware.nvme.controller": (Bus.NVME, None), "nvme": (Bus.NVME, None), "nvmexpress": (Bus.NVME, None),
    "virtioscsi": (Bus.SCSI, "virtio-scsi"), "virtio-scsi": (Bus.SCSI, "virtio-scsi"), "virtio_scsi": (Bus.SCSI, "virtio-scsi"),
    "lsilogicsas": (Bus.SCSI, "lsisas1068"), "usb": (Bus.USB, None), "virtio": (Bus.VIRTIO, None),
    "virtio-blk": (Bus.VIRTIO, None),
}
"""Controllers of ResourceType 20, "other storage", by their subtype."""
STORAGE_WORDS: dict[tuple[Bus, str | None], str] = {
    (Bus.SATA, "ahci"): "vmware.sata.ahci", (Bus.SATA, None): "sata", (Bus.NVME, None): "vmware.nvme.controller",
    (Bus.SCSI, "virtio-scsi"): "VirtioSCSI", (Bus.USB, None): "usb", (Bus.VIRTIO, None): "virtio"}

NIC_MODELS = {"pcnet32": "pcnet", "pcnet": "pcnet", "vlance": "pcnet", "e1000": "e1000", "e1000e": "e1000e", "vmxnet": "vmxnet",
              "vmxnet2": "vmxnet2", "vmxnet3": "vmxnet3", "virtio": "virtio", "virtio-net": "virtio", "rtl8139": "rtl8139",
              "0": "virtio", "1": "rtl8139", "2": "e1000", "3": "virtio", "6": "e1000e"}
"""The numbers are oVirt's (VmInterfaceType)."""
NIC_WORDS = {"pcnet": "PCNet32", "e1000": "E1000", "e1000e": "E1000e", "vmxnet": "VmxNet", "vmxnet2": "VmxNet2",
             "vmxnet3": "VmxNet3", "virtio": "virtio", "rtl8139": "rtl8139"}
FIRST_NIC = 7
"""AddressOnParent of VMware's ``ethernet0``."""
MAX_NICS = 10

DRIVES: dict[str, tuple[Backing, bool | None]] = {
    "vmware.cdrom.iso": (Backing.FILE, None), "vmware.cdrom.atapi": (Backing.BLOCK, None),
    "vmware.cdrom.passthrough": (Backing.BLOCK, True), "vmware.cdrom.remoteatapi": (Backing.CLIENT, None),
    "vmware.cdrom.remotepassthrough": (Backing.CLIENT, True), "vmware.floppy.image": (Backing.FILE, None),
    "vmware.floppy.device": (Backing.BLOCK, None), "vmware.floppy.remotedevice": (Backing.CLIENT, None)}
"""What is behind a drive, and whether the guest talks to it itself. A file without a name is an empty drive."""

SOUNDS = {"vmware.soundcard.hdaudio": "hda", "vmware.soundcard.ensoniq1371": "es1371", "vmware.soundcard.sb16": "sb16",
          "ensoniq1371": "es1371", "ac97": "ac97", "sb16": "sb16", "hda": "hda", "ich6": "ich6", "ich9": "ich9"}
SOUND_WORDS = {"hda": "vmware.soundcard.hdaudio", "es1371": "vmware.soundcard.ensoniq1371", "sb16": "vmware.soundcard.sb16",
               "ac97": "ac97", "ich6": "ich6", "ich9": "ich9"}
USBS = {"vmware.usb.ehci": "ehci", "vmware.usb.xhci": "xhci", "vmware.usb.uhci": "uhci", "ehci": "ehci", "xhci": "xhci",
        "uhci": "uhci", "ohci": "uhci"}
USB_WORDS = {"ehci": "vmware.usb.ehci", "xhci": "vmware.usb.xhci", "uhci": "vmware.usb.uhci"}
VTPM = "vmware.vtpm"
PORTS = {SERIAL: "vmware.serialport.", PARALLEL: "vmware.parallelport."}
"""Subtypes of ports begin so and end with the kind: device, file, pipe."""
PORT_KINDS = ("device", "file", "pipe")
NO_DEVICES = ("vmware.vmci", "vmware.ide.controller")
"""Subtypes of what every machine of VMware has."""

FORMATS = {"vmdk": "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized",
           "qcow2": "http://www.gnome.org/~markmc/qcow-image-format.html",
           "vpc": "http://go.microsoft.com/fwlink/?LinkId=137171"}
FORMAT_PARTS = {"vmdk": "vmdk", "qcow": "qcow2", "137171": "vpc", "vhd": "vpc", "vdi": "vdi"}
"""What the address of a format has in it."""

SCRIPTS = {"tools.afterPowerOn": "afterPowerOn", "tools.afterResume": "afterResume",
           "tools.beforeGuestStandby": "beforeSuspend", "tools.beforeGuestShutdown": "beforePowerOff"}
BOOT = {"disk": "disk", "cdrom": "cdrom", "net": "network", "ethernet": "network", "floppy": "floppy"}
BOOT_WORDS = {"disk": "disk", "cdrom": "cdrom", "network": "net", "floppy": "floppy"}
NETWORK_KINDS = {"nat": "nat", "hostonly": "host-only"}
"""Names of networks that mean a kind, to Workstation and to VirtualBox; in lower case, without a dash."""

FIRMWARE, SECURE_BOOT = "firmware", "bootOptions.efiSecureBootEnabled"
SECRETS = ("remotedisplay.vnc.password", "remotedisplay.vnc.key", "vncpassword")
"""Lines of a .vmx, and a property of VirtualBox, in lower case, that are the password of a screen."""
SECRET_NAMES = (("ExtraConfig", "key"), ("Property", "name"))
"""Where they stand: element, and the attribute with their name."""
CONFIG_NOISE = re.compile(
    r"slotinfo\..*|poweropinfo\..*|virtualich7mpresent|virtualsmcpresent|simultaneousthreads|(cpu|memory)allocation\..*|connectable\..*"
    r"|uptcompatibilityenabled|useautodetect|graphicsmemorysizeinkb|yieldonpoll|ehcienabled|autoconnectdevices|tools\.beforeguestreboot"
    r"|uselargepages|backing\.(writethrough|exclusive)|allowunrestrictedcommunication|use3drenderer|bootoptions\.boot(delay|retry.*)"
    r"|bootoptions\.enterbiossetup|fixedpassthruhotplugenabled|sevenabled|flags\..*|motherboardlayout|viommuenabled")
"""Keys of ``vmw:Config``, in lower case, that say nothing to another host."""
EXTRA_NOISE = re.compile(
    r"pcibridge\d+\..*|svga\..*|hpet0\..*|vmci0?\..*|virtualhw\..*|sched\.swap\..*|displayname|viv\.moid|vmware\.tools\..*|softpoweroff"
    r"|toolsinstallmanager\..*|monitor\.phys_bits.*|cleanshutdown|tools\.guest\..*|migrate\..*|vmxstats\..*|numa\.autosize.*|vmotion\..*"
    r"|guestos\.detailed.*|guestinfo\.detailed.*|config\.readonly|vm\.genidx?|checkpoint\..*|extendedconfigfile"
    r"|(scsi|sata|nvme|ethernet|usb|ehci|usb_xhci|hdaudio|sound|floppy)\d*(:\d+)?\.(pcislotnumber|saswwid|present|redo)")
"""Keys of ``vmw:ExtraConfig``, in lower case, likewise."""
