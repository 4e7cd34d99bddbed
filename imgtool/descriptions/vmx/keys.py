"""Tables of keys: which field of Machine each is, which mean nothing to another host, and what the others mean."""

from __future__ import annotations

import re

from imgtool.descriptions.vmx.values import (
    BOOL,
    COUNT,
    DISK_SHARES,
    FIRMWARE,
    MAC,
    MEGABYTES,
    MHZ,
    MODE,
    NAME,
    SAID,
    UUID,
    Codec,
    Field,
    boolean,
    numbers,
    words,
)

MACHINE = (
    Field("name", "displayName", NAME),
    Field("uuid", "uuid.bios", UUID),
    Field("vc_uuid", "vc.uuid", UUID),
    Field("description", "annotation", SAID),
    Field("hardware_version", "virtualHW.version", numbers(1, 99)),
    Field("firmware.kind", "firmware", FIRMWARE),
    Field("firmware.secure_boot", "uefi.secureBoot.enabled", BOOL),
    Field("firmware.nvram", "nvram", SAID),
    Field("cpu.count", "numvcpus", COUNT),
    Field("cpu.hot_add", "vcpu.hotadd", BOOL),
    Field("cpu.hot_remove", "vcpu.hotremove", BOOL),
    Field("cpu.nested", "vhv.enable", BOOL),
    Field("memory.hot_add", "mem.hotadd", BOOL),
    Field("memory.huge_pages", "sched.mem.lpage.enable1GPage", BOOL),
    Field("tools.sync_time", "tools.syncTime", BOOL),
    Field("tools.upgrade", "tools.upgrade.policy", SAID),
    Field("resources.cpu_reservation", "sched.cpu.min", MHZ),
    Field("resources.cpu_limit", "sched.cpu.max", MHZ),
    Field("resources.memory_reservation", "sched.mem.min", MEGABYTES),
    Field("resources.memory_limit", "sched.mem.max", MEGABYTES),
)
"""Keys that stand for one field each, in the order in which they are written."""

SCSI_MODELS = words({name: name for name in ("lsilogic", "buslogic", "pvscsi", "lsisas1068")})
MODEL = {"scsi": Field("model", "virtualDev", SCSI_MODELS), "sata": Field("model", "virtualDev", words({"ahci": "ahci"}))}
SHARED_BUS = Field("shared", "sharedBus", words({"none": None, "virtual": "virtual", "physical": "physical"}))


def controller_fields(bus: str) -> tuple[Field, ...]:
    """What can be said of a controller."""
    return (MODEL[bus], SHARED_BUS) if bus in MODEL else (SHARED_BUS,)


DISK = (
    Field("path", "fileName", SAID),
    Field("mode", "mode", MODE),
    Field("shared", "sharing", words({"multi-writer": True, "none": False})),
    Field("cache", "writeThrough", Codec(lambda text: "writethrough" if boolean(text) else None, lambda value: "TRUE")),
    Field("change_tracking", "ctkEnabled", BOOL),
)
DISK_SCHEDULING = (
    Field("io_limit", "throughputCap", numbers(0, unlimited=True)),
    Field("shares", "shares", DISK_SHARES),
)
DRIVE = (Field("connected", "startConnected", BOOL),)
NIC_MODELS = words({"vlance": "pcnet", "vmxnet": "vmxnet", "vmxnet2": "vmxnet2", "vmxnet3": "vmxnet3",
                    "e1000": "e1000", "e1000e": "e1000e"})
NIC = (
    Field("model", "virtualDev", NIC_MODELS),
    Field("connected", "startConnected", BOOL),
    Field("wake_on_lan", "wakeOnPcktRcv", BOOL),
    Field("mac_check", "checkMACAddress", BOOL),
)
MAC_KEYS = {"static": "address", "generated": "generatedAddress", "vpx": "generatedAddress"}
"""By how an address was assigned: the key that holds it."""
ADDRESS = Field("mac", "address", MAC)
DISTRIBUTED = (
    Field("switch", "dvs.switchId", SAID),
    Field("port", "dvs.portId", SAID),
    Field("port_group", "dvs.portgroupId", SAID),
    Field("connection", "dvs.connectionId", SAID),
)
OPAQUE = (Field("switch", "opaqueNetwork.id", SAID), Field("port", "externalID", SAID))
VIDEO = (
    Field("memory", "vramSize", numbers(0, 1 << 40)),
    Field("heads", "numDisplays", numbers(1, 64)),
)
GRAPHICS = (
    Field("listen", "ip", SAID),
    Field("port", "port", numbers(1, 65535)),
    Field("keymap", "keymap", SAID),
)
SOUNDS = words({"hdaudio": "hda", "es1371": "es1371", "sb16": "sb16"})
USB = {"usb": "uhci", "ehci": "ehci", "usb_xhci": "xhci"}
INPUTS = {"mouse": "mouse.vusb.enable", "keyboard": "keyboard.vusb.enable"}
SCRIPTS = ("afterPowerOn", "afterResume", "beforeSuspend", "beforePowerOff")

NOISE = frozenset({
    ".encoding", "encoding", "config.version", "virtualhw.productcompatibility", "uuid.location", "uuid.action",
    "extendedconfigfile", "migrate.hostlog", "migrate.hostlogstate", "migrate.migrationid", "monitor.phys_bits_used",
    "sched.cpu.units", "cleanshutdown", "softpoweroff", "hpet0.present", "svga.autodetect", "svga.guestbackedprimaryaware",
    "vm.createdate", "viv.moid", "vmxstats.filename", "tools.remindinstall", "tools.guest.desktop.autolock",
    "vmotion.checkpointfbsize", "ctkenabled", "vmotion.checkpointsvgaprimarysize", "vmotion.svga.mobmaxsize",
    "vmotion.svga.graphicsmemorykb", "disk.scsiunittoidskew", "evccompatibilitymode", "guestos.detailed.data",
    "guestinfo.detailed.data", "guestosaltname", "sched.swap.derivedname", "isolation.tools.hgfs.disable",
    "sharedfolder.maxnum", "checkpoint.vmstate.readonly", "policy.vm.mvmtid", "chipset.motherboardlayout", "chipset.online",
    "virtualhw.scheme", "snapshot.action", "proxyapps.publishtohost", "deploymentplatform", "guestinfo.appinfo",
    "guestinfo.vmtools.description", "guestinfo.vmtools.versionnumber", "guestinfo.vmtools.versionstring",
    "guestinfo.vmtools.buildnumber", "guestinfo.driver.vmci.version",
})
"""Lower case. They mean nothing to another host, or the host that reads them writes them anew."""
NOISY = re.compile(
    r".*\.(pcislotnumber|sasww?id|generatedaddressoffset|linkstatepropagation\.enable|uptcompatibility|bsdname|yieldonmsrread|trynorxloss"
    r"|autodetect|startconnected|allowguestconnectioncontrol|displayname)"
    r"|(pcibridge\d+|vmci\d+|sched\.swap|powertype|gui|numa\.autosize|toolsinstallmanager|(host|guest|user)cpuid|replay|unity|answer"
    r"|hints?|(usb|usb_xhci|ehci):\d+|usb\.generic|extlink)\..*"
    r"|pcipassthru\d+\.(deviceid|vendorid|systemid|class|subdeviceid|subvendorid)")
NOISY_VALUES = {
    "sched.cpu.latencysensitivity": ("normal",), "sched.mem.pin": ("false",),
    "migrate.encryptionmode": ("opportunistic",), "ftcpt.ftencryptionmode": ("ftencryptionopportunistic",),
    "remotedisplay.maxconnections": ("-1",), "monitor.virtual_mmu": ("automatic",), "monitor.virtual_exec": ("automatic",),
    "smbios.reflecthost": ("false",), "vvtd.enable": ("false",), "vpmc.enable": ("false",),
    "usb.vbluetooth.startconnected": ("true", "false"), "tools.allowautoscripts": ("true",),
}
"""Keys that are noise with these values only; lower case."""

MEANINGS = (
    (r"guestinfo\.", "data that programs in the guest read", "hand the data over another way (cloud-init: a seed image)"),
    (r"cpuid\.|featmask\.|monitor_control\.|hypervisor\.cpuid|monitor\.", "masks and features of the processor",
     "choose a CPU model with these features"),
    (r"isolation\.|remotedisplay\.vnc\.(?!password)", "what the console may do", None),
    (r"vtpm\.", "the identity of the TPM",
     "suspend BitLocker, or have its recovery key, before the machine moves"),
    (r"sched\.|numa\.|latency\.|ethernet\d+\.(corespertype|ctxpercpu|pnicfeatures)", "how the host shares its resources",
     "set this anew at the target"),
    (r"checkpoint\.", "the machine is suspended: its memory is in a file", "resume it and shut it down first"),
    (r"disk\.enableuuid", "disks show serial numbers to the guest",
     "give the disks serial numbers, if the guest finds them by that"),
    (r"ethernet\d+\.", "a setting of the network card", None),
    (r"(scsi|sata|nvme|ide)\d+(:\d+)?\.", "a setting of the disk", None),
    (r"vmx\.log|log\.|logging", "how the hypervisor logs", None),
    (r"smbios\.|board-id|hw\.model|serialnumber|uuid\.", "what the firmware tells the guest of its hardware",
     "a licence may depend on it: set the SMBIOS fields at the target"),
    (r"bios\.|efi\.", "how the firmware boots", None),
    (r"fault|ft\.|ftcpt\.|dr\.|hbr_filter|vmsafe|dvfilter|filter",
     "protection by the cluster (fault tolerance, replication, filters)",
     "set it up anew at the target"),
    (r"iofilter", "filters of the storage", None),
    (r"snapshot\.", "how snapshots are taken", None),
    (r"pcipassthru", "how a card of the host is handed over", None),
    (r"(serial|parallel)\d+\.", "a setting of the port", None),
    (r"tools\.|toolscripts\.", "a setting of VMware Tools", None),
)
"""(how a key begins, what it means, what to do): one problem for all keys of a row."""
SECRET = re.compile(r"passw|secret|token|credential|\.key$", re.IGNORECASE)
ENCRYPTED = ("encryption.keysafe", "encryption.data", "encryption.bundle")
